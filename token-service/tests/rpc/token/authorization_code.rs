//! Redeeming authorization codes.

use std::time::Duration;

use accord::token::v1::{self as pb, ConsentState, issue_token_request::Grant};

use futures_util::future::{join, join_all};

use super::{Answer, assert_consent_required, assert_invalid_grant};
use crate::world::{REDIRECT_URI, VERIFIER, World};

/// A redemption with another redirect URI or verifier.
fn redemption(world: &World, code: &str, redirect_uri: &str, code_verifier: &str) -> pb::IssueTokenRequest {
    world
        .client
        .asking(Grant::AuthorizationCode(pb::AuthorizationCodeGrant {
            code: code.into(),
            redirect_uri: redirect_uri.into(),
            code_verifier: code_verifier.into(),
        }))
}

#[tokio::test]
async fn a_code_activates_its_consent() {
    let world = World::start().await;
    let approved = world.approved(&world.client, |_| ()).await;
    let grant_id = approved.consent.unwrap().grant_id;
    let code = world.by_code(&approved.authorization_code);
    let tokens = world.issue(code).await.unwrap();
    assert_eq!(tokens.grant_id, grant_id);
    assert!(tokens.refresh_token.starts_with("acr_"));
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Active);
    let event = world.audit_events("consent.activate").await.remove(0);
    assert_eq!((&event.actor_id, &event.subject), (&world.client_id, &grant_id));
}

#[tokio::test]
async fn another_clients_or_tenants_code_is_not_used_up() {
    let world = World::start().await;
    let both = world.new_client(&["acme", "globex"]);
    let approved = world.approved(&both, |_| ()).await;
    let code = approved.authorization_code;
    let own = both.instead(&world.by_code(&code));
    assert_invalid_grant(world.issue(world.by_code(&code)).await);
    for tenant_id in ["globex", "nobody"] {
        let elsewhere = pb::IssueTokenRequest {
            tenant_id: tenant_id.into(),
            ..own.clone()
        };
        assert_invalid_grant(world.issue(elsewhere).await);
    }
    let unknown = format!("{}{}", &code[..10], code[10..].chars().rev().collect::<String>());
    for wrong in ["x", &unknown, &code[..code.len() - 1]] {
        assert_invalid_grant(world.issue(both.instead(&world.by_code(wrong))).await);
    }
    world.issue(own).await.unwrap();
}

#[tokio::test]
async fn a_code_is_burnt_by_a_wrong_verifier_a_wrong_redirect_uri_or_too_late() {
    let world = World::start().await;
    let other_uri = format!("{REDIRECT_URI}/");
    let other_verifier = VERIFIER.to_uppercase();
    for (redirect_uri, verifier, late) in [
        (REDIRECT_URI, other_verifier.as_str(), 0),
        (REDIRECT_URI, "short", 0),
        (other_uri.as_str(), VERIFIER, 0),
        (REDIRECT_URI, VERIFIER, 60),
    ] {
        let code = world.code().await;
        world.clock().advance(Duration::from_secs(late));
        let refused = world
            .issue(redemption(&world, &code, redirect_uri, verifier))
            .await;
        assert_invalid_grant(refused);
        assert_invalid_grant(world.issue(world.by_code(&code)).await);
    }
    assert_eq!(world.audit_events("code.refuse").await.len(), 4);
    assert_eq!(world.audit_events("consent.activate").await.len(), 0);

    let code = world.code().await;
    world.clock().advance(Duration::from_millis(59_999));
    world.issue(world.by_code(&code)).await.unwrap();
}

#[tokio::test]
async fn a_second_use_of_a_code_ends_the_tokens_of_the_first() {
    let world = World::start().await;
    // Whatever else is wrong with the second use.
    let flaws: [fn(&mut pb::IssueTokenRequest); 3] = [
        |_| (),
        |request| request.resource = "https://elsewhere.example".into(),
        |request| request.scopes = vec!["files.read".into()],
    ];
    for (index, flaw) in flaws.into_iter().enumerate() {
        let code = world.code().await;
        let tokens = world.issue(world.by_code(&code)).await.unwrap();
        let refreshed = world.refresh(&tokens.refresh_token).await.unwrap();
        // Another client's attempt has no effect.
        let stranger = world.new_client(&["acme"]);
        assert_invalid_grant(world.issue(stranger.instead(&world.by_code(&code))).await);
        assert!(world.is_active(&refreshed.access_token).await);

        let mut again = world.by_code(&code);
        flaw(&mut again);
        assert_invalid_grant(world.issue(again).await);
        for token in [
            &tokens.access_token,
            &refreshed.access_token,
            &refreshed.refresh_token,
        ] {
            assert!(!world.is_active(token).await, "flaw {index}");
        }
        assert_invalid_grant(world.refresh(&refreshed.refresh_token).await);
        let events = world.audit_events("code.replay").await;
        assert_eq!(events.len(), index + 1);
        assert_eq!(
            (events[0].outcome(), &events[0].subject),
            (accord::audit::v1::AuditOutcome::Refused, &tokens.grant_id)
        );
    }
}

#[tokio::test]
async fn a_second_use_of_a_code_that_was_put_back_ends_the_tokens_of_the_first() {
    for world in World::start_on_all().await {
        let code = world.by_code(&world.code().await);
        let edit = |statement: &'static str| world.harness().edit(statement);
        edit("CREATE TABLE older AS SELECT * FROM codes").await;
        let tokens = world.issue(code.clone()).await.unwrap();
        edit("DELETE FROM codes").await;
        edit("INSERT INTO codes SELECT * FROM older").await;
        assert_invalid_grant(world.issue(code).await);
        assert!(!world.is_active(&tokens.access_token).await);
        assert_invalid_grant(world.refresh(&tokens.refresh_token).await);
        assert_eq!(world.audit_events("code.replay").await.len(), 1);
    }
}

#[tokio::test]
async fn a_code_that_was_redeemed_is_known_as_long_as_its_family() {
    for world in World::start_on_all().await {
        let code = world.by_code(&world.code().await);
        let unused = world.by_code(&world.code().await);
        let mut last = world.issue(code.clone()).await.unwrap();
        for _ in 0..3 {
            world.clock().advance(Duration::from_secs(29 * 24 * 3600));
            world.delete_ended_rows().await;
            last = world.refresh(&last.refresh_token).await.unwrap();
        }
        assert_invalid_grant(world.issue(code.clone()).await);
        assert!(!world.is_active(&last.access_token).await);
        assert_invalid_grant(world.refresh(&last.refresh_token).await);
        assert_eq!(world.audit_events("code.replay").await.len(), 1);

        // One that was not redeemed is gone, and the other with its family.
        assert_invalid_grant(world.issue(unused).await);
        assert!(world.audit_events("code.refuse").await.is_empty());
        world.clock().advance(Duration::from_secs(11 * 24 * 3600));
        world.delete_ended_rows().await;
        assert_invalid_grant(world.issue(code).await);
        assert_eq!(world.audit_events("code.replay").await.len(), 1);
    }
}

#[tokio::test]
async fn of_racing_redemptions_one_activates_and_the_others_are_replays() {
    for world in World::start_on_all().await {
        let code = world.code().await;
        let mut racers = Vec::new();
        for _ in 0..8 {
            let (mut tokens, request) = (world.tokens(), world.by_code(&code));
            racers.push(tokio::spawn(async move { tokens.issue_token(request).await }));
        }
        let mut winners = Vec::new();
        for racer in racers {
            match racer.await.unwrap() {
                Ok(answer) => winners.push(answer.into_inner()),
                Err(status) => assert_invalid_grant(Err(status)),
            }
        }
        // The winner may itself learn of the replays before it answers.
        assert!(winners.len() <= 1);
        assert_eq!(world.audit_events("consent.activate").await.len(), 1);
        for winner in winners {
            assert!(!world.is_active(&winner.access_token).await);
            assert_invalid_grant(world.refresh(&winner.refresh_token).await);
        }
    }
}

#[tokio::test]
async fn a_new_consent_supersedes_the_old_one_when_its_code_is_redeemed() {
    for world in World::start_on_all().await {
        let old = world.first_tokens().await;
        let code = world.code().await;
        assert!(
            world.is_active(&old.access_token).await,
            "a pending consent changes nothing"
        );
        let new = world.issue(world.by_code(&code)).await.unwrap();
        assert_eq!(
            world.consent(&old.grant_id).await.state(),
            ConsentState::Superseded
        );
        assert!(!world.is_active(&old.access_token).await);
        assert!(!world.is_active(&old.refresh_token).await);
        assert_invalid_grant(world.refresh(&old.refresh_token).await);
        assert!(world.is_active(&new.access_token).await);
        world.refresh(&new.refresh_token).await.unwrap();
        let event = world.audit_events("consent.supersede").await.remove(0);
        assert_eq!(
            (&event.subject, &event.detail["by"]),
            (&old.grant_id, &new.grant_id)
        );
    }
}

#[tokio::test]
async fn racing_codes_of_one_client_are_all_redeemed_and_leave_one_active_consent() {
    for world in World::start_on_all().await {
        let codes = [world.code().await, world.code().await, world.code().await];
        let mut racers = Vec::new();
        for code in &codes {
            let (mut tokens, request) = (world.tokens(), world.by_code(code));
            racers.push(tokio::spawn(async move { tokens.issue_token(request).await }));
        }
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) => {}
                // Superseded before it answered.
                Err(status) => assert_invalid_grant(Err(status)),
            }
        }
        let session = world.sign_in("").await;
        let active = pb::ListConsentsRequest {
            tenant_id: "acme".into(),
            admin_session: session,
            state: ConsentState::Active.into(),
            ..Default::default()
        };
        assert_eq!(world.list(active).await.unwrap().consents.len(), 1);
        assert_eq!(world.audit_events("consent.activate").await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_racing_exchanges_each_good_code_yields_its_tokens() {
    /// Repeats a call that was unavailable, as its client is told to.
    async fn exchange(world: &World, request: pb::IssueTokenRequest) -> Answer {
        loop {
            match world.issue(request.clone()).await {
                Err(status) if status.code() == tonic::Code::Unavailable => {}
                answer => return answer,
            }
        }
    }
    for world in World::start_on_all().await {
        let (mut good, mut replayed) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let client = world.new_client(&["acme"]);
            let approved = world.approved(&client, |_| ()).await;
            good.push(client.instead(&world.by_code(&approved.authorization_code)));
        }
        for _ in 0..5 {
            let client = world.new_client(&["acme"]);
            let approved = world.approved(&client, |_| ()).await;
            let request = client.instead(&world.by_code(&approved.authorization_code));
            replayed.extend([request.clone(), request.clone(), request]);
        }
        let all = join_all(good.into_iter().map(|request| exchange(&world, request)));
        let (good, replayed) = join(
            all,
            join_all(replayed.into_iter().map(|request| exchange(&world, request))),
        )
        .await;
        for answer in good {
            let tokens = answer.unwrap();
            assert!(world.is_active(&tokens.access_token).await);
        }
        for answers in replayed.chunks(3) {
            assert!(answers.iter().filter(|answer| answer.is_ok()).count() <= 1);
        }
        assert_eq!(world.audit_events("consent.activate").await.len(), 25);
    }
}

#[tokio::test]
async fn a_code_waits_while_the_consent_is_suspended_and_ends_with_it() {
    let world = World::start().await;
    let approved = world.approved(&world.client, |_| ()).await;
    let code = world.by_code(&approved.authorization_code);
    type Change = fn(&World, bool);
    let changes: [Change; 2] = [
        |world, on| world.suspend("tenant", on),
        |world, on| world.deactivate_api_user(on),
    ];
    for change in changes {
        change(&world, true);
        assert_consent_required(world.issue(code.clone()).await, Some("SUSPENDED"));
        change(&world, false);
    }
    world.issue(code).await.unwrap();

    let approved = world.approved(&world.client, |_| ()).await;
    world.revoke_consent(&approved.consent.unwrap().grant_id).await;
    assert_invalid_grant(world.issue(world.by_code(&approved.authorization_code)).await);
}

#[tokio::test]
async fn a_code_is_worth_nothing_once_its_redirect_uri_is_removed() {
    let world = World::start().await;
    let code = world.code().await;
    world.change_client(|client| client.redirect_uris = vec!["https://elsewhere.example/cb".into()]);
    assert_invalid_grant(world.issue(world.by_code(&code)).await);
    assert_eq!(world.audit_events("code.refuse").await.len(), 1);
    // It is burnt, so that it does not come back with the URI.
    world.change_client(|client| client.redirect_uris = vec![REDIRECT_URI.into()]);
    assert_invalid_grant(world.issue(world.by_code(&code)).await);
    assert!(world.audit_events("consent.activate").await.is_empty());
}
