//! `TokenService.RevokeToken`: how a client ends its tokens.

use std::time::{Duration, Instant};

use accord::{
    rpc::auth::Role,
    testing::calls::hang_up_before_lock,
    token::v1::{self as pb, ConsentState, revoke_token_request::ClientAuthentication as RevokeProof},
};
use tonic::{Code, Status};

use crate::{
    harness::{assert_rejected, assert_violations},
    world::World,
};

async fn revoke(world: &World, request: pb::RevokeTokenRequest) -> Result<(), Status> {
    world.tokens().revoke_token(request).await.map(drop)
}

#[tokio::test]
async fn a_client_ends_one_access_token() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let other = world.issue(world.by_client_credentials()).await.unwrap();
    let jti = world.introspect(&tokens.access_token).await.jti;
    for _ in 0..2 {
        world.revoke(&tokens.access_token).await.unwrap();
        assert!(!world.is_active(&tokens.access_token).await);
    }
    assert!(world.is_active(&other.access_token).await);
    world.refresh(&tokens.refresh_token).await.unwrap();
    let events = world.audit_events("token.revoke").await;
    assert_eq!(events.len(), 1, "a repeated call changes nothing");
    assert_eq!(
        (&events[0].actor_id, &events[0].subject),
        (&world.client_id, &tokens.grant_id)
    );
    assert_eq!(events[0].detail["jti"], jti);
}

#[tokio::test]
async fn a_client_ends_a_family_by_any_of_its_refresh_tokens() {
    let world = World::start().await;
    for revoke_first in [true, false] {
        let first = world.first_tokens().await;
        let second = world.refresh(&first.refresh_token).await.unwrap();
        let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
        let named = if revoke_first { &first } else { &second };
        for _ in 0..2 {
            world.revoke(&named.refresh_token).await.unwrap();
        }
        for token in [&first.access_token, &second.access_token, &second.refresh_token] {
            assert!(!world.is_active(token).await);
        }
        assert_rejected(
            world.refresh(&second.refresh_token).await,
            Code::FailedPrecondition,
            "INVALID_GRANT",
        );
        assert!(
            world.is_active(&by_itself.access_token).await,
            "the consent stays"
        );
    }
    assert_eq!(world.audit_events("token.revoke").await.len(), 2);
}

#[tokio::test]
async fn another_clients_token_is_not_revoked() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let stranger = world.new_client(&["acme", "globex"]);
    for token in [&tokens.access_token, &tokens.refresh_token] {
        revoke(&world, stranger.revoking(token)).await.unwrap();
        for tenant_id in ["globex", "nobody"] {
            let elsewhere = pb::RevokeTokenRequest {
                tenant_id: tenant_id.into(),
                ..world.client.revoking(token)
            };
            revoke(&world, elsewhere).await.unwrap();
        }
    }
    let (unsigned, _) = tokens.access_token.rsplit_once('.').unwrap();
    for unknown in ["x", "a.b.c", &format!("{unsigned}.{}", "A".repeat(86))] {
        world.revoke(unknown).await.unwrap();
    }
    assert!(world.is_active(&tokens.access_token).await);
    assert!(world.is_active(&tokens.refresh_token).await);
    world.clock().advance(Duration::from_secs(300));
    world.revoke(&tokens.access_token).await.unwrap();
    assert!(world.audit_events("token.revoke").await.is_empty());
}

#[tokio::test]
async fn a_revocation_needs_the_clients_proof_and_every_field() {
    let world = World::start().await;
    let token = world.first_tokens().await.access_token;
    let own = world.client.revoking(&token);
    let bad = pb::RevokeTokenRequest {
        tenant_id: "A".into(),
        token: String::new(),
        ..own.clone()
    };
    assert_violations(revoke(&world, bad).await, &["tenant_id", "token"]);
    let other = world.new_client(&["acme"]);
    for proof in [
        None,
        Some(RevokeProof::ClientSecret("x".into())),
        Some(RevokeProof::ClientSecret(other.client_secret)),
    ] {
        let unproven = pb::RevokeTokenRequest {
            client_authentication: proof,
            ..own.clone()
        };
        assert_rejected(
            revoke(&world, unproven).await,
            Code::Unauthenticated,
            "INVALID_CLIENT",
        );
    }
    let assertion = pb::RevokeTokenRequest {
        client_authentication: Some(RevokeProof::ClientAssertion("x".into())),
        ..own
    };
    assert_rejected(
        revoke(&world, assertion).await,
        Code::Unauthenticated,
        "INVALID_CLIENT",
    );
    assert!(world.is_active(&token).await);
}

/// Waits until the record has an event.
async fn recorded(world: &World, action: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.audit_events(action).await.is_empty() {
        assert!(
            Instant::now() < deadline,
            "{action}: the call ended with its caller"
        );
    }
}

#[tokio::test]
async fn a_revocation_is_completed_although_its_caller_hangs_up() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let read = async || drop(world.consent(&tokens.grant_id).await);

    let lock = async || world.harness().hold_writes().await;
    let revoke = async || world.revoke(&tokens.refresh_token).await;
    hang_up_before_lock(lock, revoke, read).await;
    recorded(&world, "token.revoke").await;
    assert!(!world.is_active(&tokens.access_token).await);
    let refused = world.refresh(&tokens.refresh_token).await;
    assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");

    let revoking = pb::RevokeConsentRequest {
        tenant_id: "acme".into(),
        grant_id: tokens.grant_id.clone(),
        admin_session: String::new(),
        reason: "a test".into(),
    };
    let revoke = async || {
        let mut operator = world.consents_of(Role::Security);
        operator.revoke_consent(revoking.clone()).await
    };
    hang_up_before_lock(lock, revoke, read).await;
    recorded(&world, "consent.revoke").await;
    assert_eq!(
        world.consent(&tokens.grant_id).await.state(),
        ConsentState::Revoked
    );
}
