//! Changes while a call is under way: no token is returned, and none is called active, that rests on
//! older facts. And no change makes an honest client look like a thief.

use std::{sync::Arc, time::Duration};

use accord::{clock::Clock, registry::v1::SecurityProfile, token::v1 as pb};
use tonic::Code;

use crate::{fake_registry::Question, harness::assert_rejected, world::World};

mod assertions;
mod unanswered;

/// The registry takes so long to answer that its answer no longer counts. Time jumps; the test does not wait.
async fn too_late() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(701)).await;
    tokio::time::resume();
}

type Change = fn(&World);

/// A change in the registry that ends tokens, and the error that a client gets then.
const REGISTRY_CHANGES: [(Change, Code, &str); 4] = [
    (
        |world| world.suspend("client", true),
        Code::Unauthenticated,
        "INVALID_CLIENT",
    ),
    (
        |world| world.suspend("tenant", true),
        Code::PermissionDenied,
        "CONSENT_REQUIRED",
    ),
    (
        |world| world.deactivate_api_user(true),
        Code::PermissionDenied,
        "CONSENT_REQUIRED",
    ),
    (
        |world| world.change_client(|client| client.scopes.clear()),
        Code::InvalidArgument,
        "INVALID_SCOPE",
    ),
];

/// A change that limits to what a client may get tokens, and the error that it gets then.
const LIMITS: [(Change, Code, &str); 3] = [
    (
        |world| world.change_client(|client| client.dpop_jkts = vec!["k".repeat(43)]),
        Code::InvalidArgument,
        "INVALID_DPOP_PROOF",
    ),
    (
        |world| world.change_client(|client| client.allowed_networks = vec!["203.0.113.0/24".into()]),
        Code::PermissionDenied,
        "NETWORK_NOT_ALLOWED",
    ),
    (
        |world| {
            world.change_client(|client| {
                client.security_profile = SecurityProfile::Fapi20.into();
                client.profile_start_time = Some(world.clock().now().to_timestamp());
            });
        },
        Code::Unauthenticated,
        "INVALID_CLIENT",
    ),
];

async fn world() -> Arc<World> {
    Arc::new(World::start().await)
}

/// Lets the next answer about a user arrive after this change, and too late.
fn change_meanwhile(world: &Arc<World>, change: Change) {
    let there = world.clone();
    world.registry().delay(Question::User, async move {
        change(&there);
        too_late().await;
    });
}

#[tokio::test]
async fn no_token_is_issued_by_an_answer_that_is_too_old() {
    for (index, (change, code, reason)) in REGISTRY_CHANGES.into_iter().chain(LIMITS).enumerate() {
        for flow in 0..3 {
            let world = world().await;
            let first = world.first_tokens().await;
            let request = match flow {
                0 => world.by_client_credentials(),
                1 => world.by_refresh_token(&first.refresh_token),
                _ => world.by_code(&world.code().await),
            };
            change_meanwhile(&world, change);
            let answer = world.issue(request).await;
            assert!(world.registry().was_delayed(), "change {index}, flow {flow}");
            assert_rejected(answer, code, reason);
        }
    }
}

#[tokio::test]
async fn a_call_that_is_judged_again_counts_once() {
    // Two calls at once, the first of which exchanges the code.
    let world = Arc::new(World::start_with(|settings| settings.client_calls_per_second = 1).await);
    world.first_tokens().await;
    change_meanwhile(&world, |world| {
        world.change_client(|client| client.display_name = "Renamed".into());
    });
    let issued = world.issue(world.by_client_credentials()).await;
    assert!(world.registry().was_delayed());
    assert!(issued.is_ok(), "{issued:?}");
}

#[tokio::test]
async fn no_token_is_active_by_an_answer_that_is_too_old() {
    for (index, (change, ..)) in REGISTRY_CHANGES.into_iter().enumerate() {
        let world = world().await;
        let tokens = world.first_tokens().await;
        for token in [&tokens.access_token, &tokens.refresh_token] {
            change_meanwhile(&world, change);
            assert!(!world.is_active(token).await, "change {index}");
            assert!(world.registry().was_delayed());
        }
    }
}

#[tokio::test]
async fn a_late_answer_after_which_nothing_changed_costs_nothing() {
    let world = world().await;
    let first = world.first_tokens().await;
    world.registry().delay(Question::User, too_late());
    let second = world.refresh(&first.refresh_token).await.unwrap();
    assert!(world.registry().was_delayed());
    world.registry().delay(Question::User, too_late());
    assert!(world.is_active(&second.access_token).await);
    assert!(world.registry().was_delayed());
    let events = world.audit_events("token.issue").await;
    assert_eq!(events.len(), 2, "a token that still stands is not made again");
}

/// Lets this happen while the next question about a user is under way.
fn meanwhile<F>(world: &Arc<World>, happens: impl FnOnce(Arc<World>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    world.registry().delay(Question::User, happens(world.clone()));
}

#[tokio::test]
async fn a_refresh_token_that_ends_during_a_call_to_the_registry_is_inactive() {
    let world = world().await;
    let tokens = world.first_tokens().await;
    let grant_id = tokens.grant_id.clone();
    meanwhile(
        &world,
        |world| async move { world.revoke_consent(&grant_id).await },
    );
    assert!(!world.is_active(&tokens.refresh_token).await);
    assert!(world.registry().was_delayed());

    let tokens = world.first_tokens().await;
    let token = tokens.refresh_token.clone();
    meanwhile(&world, |world| async move { world.revoke(&token).await.unwrap() });
    assert!(!world.is_active(&tokens.refresh_token).await);
    assert!(world.registry().was_delayed());

    let tokens = world.first_tokens().await;
    let token = tokens.refresh_token.clone();
    meanwhile(&world, |world| async move {
        world.refresh(&token).await.map(drop).unwrap()
    });
    assert!(!world.is_active(&tokens.refresh_token).await, "it was used up");
    assert!(world.registry().was_delayed());
}

/// The last event of an issue is about this token: none leaves before its event is committed.
async fn assert_audited(world: &World, tokens: &pb::IssueTokenResponse) {
    let jti = world.introspect(&tokens.access_token).await.jti;
    let events = world.audit_events("token.issue").await;
    assert_eq!(events[0].detail["jti"], jti);
    assert_eq!(
        events[0].detail["instead_of"], events[1].detail["jti"],
        "the one before never left"
    );
}

#[tokio::test]
async fn a_change_of_the_designated_user_during_a_refresh_is_no_replay() {
    for world in World::start_on_all().await {
        let world = Arc::new(world);
        let first = world.first_tokens().await;
        let grant_id = first.grant_id.clone();
        meanwhile(&world, |world| async move {
            world.change_designated_user(&grant_id).await
        });
        let second = world.refresh(&first.refresh_token).await.unwrap();
        assert!(world.registry().was_delayed());
        assert!(!world.is_active(&first.access_token).await);
        assert_eq!(
            world.introspect(&second.access_token).await.sub,
            world.second_user_id
        );
        assert_audited(&world, &second).await;
        world.refresh(&second.refresh_token).await.unwrap();
    }
}

/// Lets this happen after the call's own change was committed, before its answer leaves: the registry was
/// too slow, and is asked again.
fn after_the_commit<F>(world: &Arc<World>, happens: impl FnOnce(Arc<World>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let happens = happens(world.clone());
    let registry = world.registry().clone();
    world.registry().delay(Question::User, async move {
        too_late().await;
        registry.delay(Question::Tenant, happens);
    });
}

#[tokio::test]
async fn ending_access_tokens_does_not_end_a_family_in_use() {
    for world in World::start_on_all().await {
        let world = Arc::new(world);
        // The key that signed the first token made.
        let code = world.code().await;
        after_the_commit(
            &world,
            |world| async move { world.revoke_active_signing_key().await },
        );
        let first = world.issue(world.by_code(&code)).await.unwrap();
        assert!(world.registry().was_delayed());
        assert_audited(&world, &first).await;

        after_the_commit(
            &world,
            |world| async move { world.revoke_active_signing_key().await },
        );
        let second = world.refresh(&first.refresh_token).await.unwrap();
        assert!(world.registry().was_delayed());
        assert_audited(&world, &second).await;

        after_the_commit(
            &world,
            |world| async move { world.revoke_active_signing_key().await },
        );
        let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
        assert!(world.registry().was_delayed());
        assert_audited(&world, &by_itself).await;

        let grant_id = second.grant_id.clone();
        after_the_commit(&world, |world| async move {
            world.change_designated_user(&grant_id).await
        });
        let third = world.refresh(&second.refresh_token).await.unwrap();
        assert!(world.registry().was_delayed());
        assert_eq!(
            world.introspect(&third.access_token).await.sub,
            world.second_user_id
        );
        assert_audited(&world, &third).await;
        world.refresh(&third.refresh_token).await.unwrap();
    }
}

#[tokio::test]
async fn a_call_fails_when_its_grant_or_family_ends_meanwhile() {
    let world = world().await;
    let tokens = world.first_tokens().await;
    let grant_id = tokens.grant_id.clone();
    after_the_commit(
        &world,
        |world| async move { world.revoke_consent(&grant_id).await },
    );
    let refused = world.refresh(&tokens.refresh_token).await;
    assert!(world.registry().was_delayed());
    assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");

    let tokens = world.first_tokens().await;
    let grant_id = tokens.grant_id.clone();
    after_the_commit(
        &world,
        |world| async move { world.revoke_consent(&grant_id).await },
    );
    let refused = world.issue(world.by_client_credentials()).await;
    assert!(world.registry().was_delayed());
    assert_rejected(refused, Code::PermissionDenied, "CONSENT_REQUIRED");

    let tokens = world.first_tokens().await;
    let token = tokens.refresh_token.clone();
    after_the_commit(&world, |world| async move { world.revoke(&token).await.unwrap() });
    let refused = world.refresh(&tokens.refresh_token).await;
    assert!(world.registry().was_delayed());
    assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
}

#[tokio::test]
async fn endless_changes_end_in_unavailable() {
    let world = world().await;
    let tokens = world.first_tokens().await;
    // Every answer about a tenant or a user comes too late.
    fn always(world: Arc<World>, question: Question) {
        let there = world.clone();
        world.registry().delay(question, async move {
            too_late().await;
            always(there, question);
        });
    }
    always(world.clone(), Question::Tenant);
    let refused = world.refresh(&tokens.refresh_token).await;
    assert_rejected(refused, Code::Unavailable, "UNAVAILABLE");
    world.registry().end_delays();
    let next = world.refresh(&tokens.refresh_token).await.unwrap();
    assert!(world.is_active(&next.access_token).await, "and it is no replay");
}

#[tokio::test]
async fn a_session_that_ends_while_it_decides_decides_nothing() {
    let world = world().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    let signed_out = session.clone();
    let happens = {
        let world = world.clone();
        async move { world.sign_out(&signed_out).await }
    };
    world.registry().delay(Question::Client, happens);
    let approval = world.approval(&setup.setup_id, &session);
    let refused = world.setups().approve_setup(approval).await;
    assert!(world.registry().was_delayed());
    assert_rejected(refused, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let session = world.sign_in(&setup.setup_id).await;
    let approval = world.approval(&setup.setup_id, &session);
    world
        .setups()
        .approve_setup(approval)
        .await
        .expect("it is still to be decided");
}

#[tokio::test]
async fn a_session_that_a_reset_ended_decides_nothing_once_answers_are_too_old() {
    let world = world().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    let reset = |world: Arc<World>| async move {
        world.end_admin_sessions();
        too_late().await;
    };
    world.registry().delay(Question::Client, reset(world.clone()));
    let approval = world.approval(&setup.setup_id, &session);
    let refused = world.setups().approve_setup(approval).await;
    assert!(world.registry().was_delayed());
    assert_rejected(refused, Code::Unauthenticated, "ADMIN_SESSION_INVALID");

    let grant_id = world.active_grant().await;
    let request = pb::ChangeDesignatedUserRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.clone(),
        admin_session: world.sign_in("").await,
        designated_account_name: world.second_user_name().into(),
    };
    // The first answer about a user is about the admin; the second about the user to be.
    let (there, registry) = (world.clone(), world.registry().clone());
    world.registry().delay(Question::User, async move {
        registry.delay(Question::User, reset(there));
    });
    let refused = world.consents().change_designated_user(request).await;
    assert!(world.registry().was_delayed());
    assert_rejected(refused, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let consent = world.consent(&grant_id).await;
    assert_eq!(consent.designated_user_id, world.api_user_id);
}
