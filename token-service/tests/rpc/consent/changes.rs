//! Revoking a consent, and changing its designated user.

use std::time::Duration;

use accord::{
    clock::Clock,
    rpc::auth::Role,
    text::opaque::{OpaqueToken, TokenKind},
    token::v1::{self as pb, ConsentState},
};
use token_service::model::admin_session::session_id;
use tonic::Code;

use super::{
    MINUTE, UNKNOWN, assert_not_found, assert_wrong_state, change, changing, ids, listing, revoke, revoking,
};
use crate::{
    harness::{assert_rejected, assert_violations},
    world::World,
};

#[tokio::test]
async fn a_tenant_admin_revokes_for_good() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let pending = world.pending_grant().await;
    let session = world.sign_in("").await;
    for grant_id in [&grant_id, &pending] {
        let revoked = revoke(&world, revoking(grant_id, &session, "")).await.unwrap();
        assert_eq!(revoked.state(), ConsentState::Revoked);
        assert_eq!(revoked.end_time, Some(world.clock().now().to_timestamp()));
        world.clock().advance(Duration::from_secs(1));
        let again = revoke(&world, revoking(grant_id, &session, "again"))
            .await
            .unwrap();
        assert_eq!(again, revoked);
        assert_eq!(world.consent(grant_id).await, revoked);
    }
    let events = world.audit_events("consent.revoke").await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.actor_id == world.admin_id));
    let refused = change(&world, changing(&grant_id, &session, world.api_user_name())).await;
    assert_wrong_state(refused, "REVOKED");
    let unknown = revoke(&world, revoking(UNKNOWN, &session, "")).await;
    assert_not_found(unknown, "consent");
}

#[tokio::test]
async fn operators_revoke_with_a_reason() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let mut consents = world.consents_of(Role::Security);
    let bad = pb::RevokeConsentRequest {
        tenant_id: "A".into(),
        ..revoking("x", "", "  ")
    };
    assert_violations(
        consents.revoke_consent(bad).await,
        &["tenant_id", "grant_id", "reason"],
    );
    let long = "r".repeat(1001);
    assert_violations(
        consents.revoke_consent(revoking(&grant_id, "", &long)).await,
        &["reason"],
    );
    for role in [Role::Auditor, Role::Registrar, Role::Approver] {
        let refused = world
            .consents_of(role)
            .revoke_consent(revoking(&grant_id, "", "why"))
            .await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let session = world.sign_in("").await;
    let refused = consents
        .revoke_consent(revoking(&grant_id, &session, "why"))
        .await;
    assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Active);

    consents
        .revoke_consent(revoking(&grant_id, "", "leaked credentials"))
        .await
        .unwrap();
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Revoked);
    let event = world.audit_events("consent.revoke").await.remove(0);
    assert_eq!(event.detail["reason"], "leaked credentials");
}

#[tokio::test]
async fn a_superseded_or_expired_consent_can_not_be_revoked() {
    let world = World::start().await;
    let first = world.active_grant().await;
    world.active_grant().await;
    let lapsed = world.pending_grant().await;
    world.clock().advance(MINUTE);
    let session = world.sign_in("").await;
    for (grant_id, state) in [(first, "SUPERSEDED"), (lapsed, "EXPIRED")] {
        let refused = revoke(&world, revoking(&grant_id, &session, "")).await;
        assert_wrong_state(refused, state);
        let refused = change(&world, changing(&grant_id, &session, world.api_user_name())).await;
        assert_wrong_state(refused, state);
    }
}

#[tokio::test]
async fn a_suspended_consent_can_be_revoked() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    world.suspend("client", true);
    let session = world.sign_in("").await;
    let revoked = revoke(&world, revoking(&grant_id, &session, "")).await.unwrap();
    assert_eq!(revoked.state(), ConsentState::Revoked);
}

#[tokio::test]
async fn a_tenant_admin_changes_the_designated_user() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    let same = change(&world, changing(&grant_id, &session, world.api_user_name()))
        .await
        .unwrap();
    assert_eq!(same.designated_user_id, world.api_user_id);
    assert!(
        world
            .audit_events("consent.change_designated_user")
            .await
            .is_empty()
    );

    // A suspended consent can be given another user: that is how it goes on after a deactivation.
    world.deactivate_api_user(true);
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Suspended);
    let changed = change(&world, changing(&grant_id, &session, world.second_user_name()))
        .await
        .unwrap();
    assert_eq!(changed.designated_user_id, world.second_user_id);
    assert_ne!(changed.designated_user_label, same.designated_user_label);
    assert_eq!(changed.state(), ConsentState::Active);
    let event = world
        .audit_events("consent.change_designated_user")
        .await
        .remove(0);
    assert_eq!((&event.actor_id, &event.subject), (&world.admin_id, &grant_id));
    assert_eq!(event.detail["old_user_id"], world.api_user_id);
    assert_eq!(event.detail["new_user_id"], world.second_user_id);

    for account_name in ["nobody", world.api_user_name(), world.globex_admin_name()] {
        let refused = change(&world, changing(&grant_id, &session, account_name)).await;
        let metadata = assert_rejected(refused, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], "user", "{account_name}");
    }
    let bad = pb::ChangeDesignatedUserRequest {
        tenant_id: "A".into(),
        ..changing("x", &session, "")
    };
    let fields = ["tenant_id", "grant_id", "designated_account_name"];
    assert_violations(change(&world, bad).await, &fields);
    let unknown = change(&world, changing(UNKNOWN, &session, world.second_user_name())).await;
    assert_not_found(unknown, "consent");
}

#[tokio::test]
async fn a_change_of_the_designated_user_needs_a_fresh_sign_in_and_an_active_consent() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let pending = world.pending_grant().await;
    let session = world.sign_in("").await;
    let refused = change(&world, changing(&pending, &session, world.second_user_name())).await;
    assert_wrong_state(refused, "PENDING");
    world.clock().advance(5 * MINUTE + Duration::from_millis(1));
    let refused = change(&world, changing(&grant_id, &session, world.second_user_name())).await;
    assert_rejected(refused, Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    let refused = change(&world, changing(&grant_id, "", world.second_user_name())).await;
    assert_rejected(refused, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    for role in Role::ALL {
        let request = changing(&grant_id, "", world.second_user_name());
        let refused = world.consents_of(role).change_designated_user(request).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    assert_eq!(
        world.consent(&grant_id).await.designated_user_id,
        world.api_user_id
    );
}

#[tokio::test]
async fn tokens_end_with_their_consent_and_a_pending_code_dies() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let code = world.code().await;
    let session = world.sign_in("").await;
    assert!(world.is_active(&tokens.access_token).await);
    let listed = world.list(listing(&session)).await.unwrap();
    for grant_id in ids(&listed.consents) {
        revoke(&world, revoking(grant_id, &session, "")).await.unwrap();
    }
    assert!(!world.is_active(&tokens.access_token).await);
    assert!(!world.is_active(&tokens.refresh_token).await);
    let refused = world.refresh(&tokens.refresh_token).await;
    assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
    let refused = world.issue(world.by_code(&code)).await;
    assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
    let refused = world.issue(world.by_client_credentials()).await;
    assert_rejected(refused, Code::PermissionDenied, "CONSENT_REQUIRED");
}

#[tokio::test]
async fn with_another_designated_user_access_tokens_end_and_refresh_tokens_go_on() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let session = world.sign_in("").await;
    change(
        &world,
        changing(&tokens.grant_id, &session, world.second_user_name()),
    )
    .await
    .unwrap();
    assert!(!world.is_active(&tokens.access_token).await);
    let renewed = world.refresh(&tokens.refresh_token).await.unwrap();
    assert_eq!(
        world.introspect(&renewed.access_token).await.sub,
        world.second_user_id
    );
}

#[tokio::test]
async fn events_name_the_session_that_acted() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let (first, second) = (world.sign_in("").await, world.sign_in("").await);
    revoke(&world, revoking(&grant_id, &second, "")).await.unwrap();
    world.sign_out(&first).await;
    let id = |session: &str| {
        let token = OpaqueToken::parse(TokenKind::AdminSession, session).unwrap();
        session_id(&token.digest())
    };
    assert_ne!(id(&first), id(&second));
    let sessions = async |action| {
        let events = world.audit_events(action).await;
        let sessions = events.iter().map(|event| event.detail["session"].clone());
        sessions.collect::<Vec<_>>()
    };
    assert_eq!(sessions("consent.revoke").await, [id(&second)]);
    assert_eq!(sessions("admin_session.end").await, [id(&first)]);
    let opened = sessions("admin_session.open").await;
    assert!(opened.contains(&id(&first)) && opened.contains(&id(&second)));
    let approved = sessions("consent.approve").await;
    assert!(
        approved.iter().all(|session| opened.contains(session)),
        "{approved:?}"
    );
}
