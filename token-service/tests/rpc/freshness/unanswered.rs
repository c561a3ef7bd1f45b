//! Code exchanges whose tokens do not leave although the code is redeemed: the call takes too long, or its caller goes
//! away. The client may repeat the call.

use std::future::pending;

use accord::token::v1 as pb;
use tonic::{Code, Status};

use super::*;

/// Lets every answer about the tenant come too late.
fn always_too_late(world: &Arc<World>) {
    let there = world.clone();
    world.registry().delay(Question::Tenant, async move {
        too_late().await;
        always_too_late(&there);
    });
}

/// Repeats a call as a client does that is told to.
async fn repeated(world: &World, request: &pb::IssueTokenRequest) -> Result<pb::IssueTokenResponse, Status> {
    loop {
        match world.issue(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

/// The code gave its tokens once, so it is used up.
async fn assert_used_up(world: &World, request: &pb::IssueTokenRequest, tokens: &pb::IssueTokenResponse) {
    assert!(world.is_active(&tokens.access_token).await);
    let next = world.refresh(&tokens.refresh_token).await.unwrap();
    let again = world.issue(request.clone()).await;
    assert_rejected(again, Code::FailedPrecondition, "INVALID_GRANT");
    assert!(!world.is_active(&next.access_token).await);
    assert_eq!(world.audit_events("code.replay").await.len(), 1);
}

#[tokio::test]
async fn a_code_whose_exchange_was_unavailable_gives_its_tokens_to_the_next_call() {
    for world in World::start_on_all().await {
        let world = Arc::new(world);
        let request = world.by_code(&world.code().await);
        always_too_late(&world);
        // It is redeemed again, and fails again.
        for _ in 0..2 {
            let refused = world.issue(request.clone()).await;
            assert_rejected(refused, Code::Unavailable, "UNAVAILABLE");
        }
        assert_eq!(world.audit_events("consent.activate").await.len(), 1);
        assert_eq!(world.audit_events("code.reopen").await.len(), 2);
        world.registry().end_delays();

        let mut foreign = request.clone();
        foreign.resource = "https://elsewhere.example".into();
        assert_rejected(
            world.issue(foreign).await,
            Code::InvalidArgument,
            "INVALID_TARGET",
        );
        let tokens = world.issue(request.clone()).await.unwrap();
        assert_used_up(&world, &request, &tokens).await;
    }
}

#[tokio::test]
async fn a_reopened_code_is_burnt_by_a_wrong_verifier_and_ends_with_its_time_and_its_consent() {
    for flaw in 0..3 {
        let world = world().await;
        let request = world.by_code(&world.code().await);
        always_too_late(&world);
        let refused = world.issue(request.clone()).await;
        assert_rejected(refused, Code::Unavailable, "UNAVAILABLE");
        world.registry().end_delays();
        match flaw {
            0 => {
                let mut wrong = request.clone();
                if let Some(pb::issue_token_request::Grant::AuthorizationCode(code)) = &mut wrong.grant {
                    code.code_verifier = "w".repeat(43);
                }
                let refused = world.issue(wrong).await;
                assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
            }
            1 => world.clock().advance(Duration::from_secs(60)),
            _ => {
                let activated = world.audit_events("consent.activate").await.remove(0);
                world.revoke_consent(&activated.subject).await;
            }
        }
        let refused = world.issue(request).await;
        assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
    }
}

#[tokio::test]
async fn a_code_whose_caller_went_away_gives_its_tokens_to_the_next_call() {
    for world in World::start_on_all().await {
        let world = Arc::new(world);
        let request = world.by_code(&world.code().await);
        let (there, reached) = (world.clone(), Arc::new(tokio::sync::Notify::new()));
        let reaches = reached.clone();
        world.registry().delay(Question::User, async move {
            too_late().await;
            there.registry().delay(Question::Tenant, async move {
                reaches.notify_one();
                pending::<()>().await;
            });
        });
        tokio::select! {
            answer = world.issue(request.clone()) => panic!("{answer:?}"),
            () = reached.notified() => {}
        }
        assert_eq!(world.audit_events("consent.activate").await.len(), 1);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while world.audit_events("code.reopen").await.is_empty() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "the service does not learn that its caller went away"
            );
        }
        let tokens = repeated(&world, &request).await.unwrap();
        assert_used_up(&world, &request, &tokens).await;
    }
}
