//! What changes while a call is under way: no token leaves, and none is called active, that stands on
//! what was so before. And no change makes an honest client look like a thief.

use std::{sync::Arc, time::Duration};

use accord::token::v1::{self as pb, IssueTokenResponse};
use tonic::{Code, Status};

use crate::{
    fake_registry::Question,
    harness::assert_refused,
    world::World,
};

/// The registry takes so long to answer that its answer counts no more. Time jumps; nobody waits.
async fn too_late() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(701)).await;
    tokio::time::resume();
}

type Change = fn(&World);

/// What ends tokens in the registry, and what a client is told then.
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
async fn no_token_is_issued_on_an_answer_that_comes_too_late() {
    for (index, (change, code, reason)) in REGISTRY_CHANGES.into_iter().enumerate() {
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
            assert_refused(answer, code, reason);
        }
    }
}

#[tokio::test]
async fn no_token_is_called_active_on_an_answer_that_comes_too_late() {
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
async fn a_refresh_token_that_ends_while_the_registry_is_asked_is_inactive() {
    let world = world().await;
    let tokens = world.first_tokens().await;
    let grant_id = tokens.grant_id.clone();
    meanwhile(&world, |world| async move { world.revoke_consent(&grant_id).await });
    assert!(!world.is_active(&tokens.refresh_token).await);
    assert!(world.registry().was_delayed());

    let tokens = world.first_tokens().await;
    let token = tokens.refresh_token.clone();
    meanwhile(&world, |world| async move { world.revoke(&token).await.unwrap() });
    assert!(!world.is_active(&tokens.refresh_token).await);
    assert!(world.registry().was_delayed());

    let tokens = world.first_tokens().await;
    let token = tokens.refresh_token.clone();
    meanwhile(&world, |world| async move { world.refresh(&token).await.map(drop).unwrap() });
    assert!(!world.is_active(&tokens.refresh_token).await, "it was used up");
    assert!(world.registry().was_delayed());
}
