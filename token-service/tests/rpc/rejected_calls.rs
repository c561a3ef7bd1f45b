//! Rejected calls of operators and Tenant Admins in the audit record.

use std::time::Duration;

use accord::{
    audit::v1::{AuditActorKind, AuditEvent, AuditOutcome},
    random::SystemRandom,
    rpc::auth::Role,
    text::opaque::{OpaqueToken, TokenKind},
    token::v1 as pb,
};
use tonic::Code;

use crate::{
    harness::{assert_rejected, assert_violations},
    world::World,
};

const MINUTE: Duration = Duration::from_secs(60);
const REVOKE: &str = "accord.token.v1.ConsentService/RevokeConsent";
const UNKNOWN: &str = "grt_01k9zzzzzzzzzzzzzzzzzzzzzz";

/// The events of rejected calls, the oldest first.
async fn rejected(world: &World) -> Vec<AuditEvent> {
    let mut events = world.audit_events("call.reject").await;
    events.reverse();
    events
}

fn revoking(grant_id: &str, session: &str) -> pb::RevokeConsentRequest {
    pb::RevokeConsentRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
        reason: "a test".into(),
    }
}

/// Method and reason of an event.
fn said(event: &AuditEvent) -> (&str, &str) {
    (&event.detail["method"], &event.detail["error_reason"])
}

#[tokio::test]
async fn every_role_without_a_method_leaves_an_event() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    for role in [Role::Registrar, Role::Approver, Role::Auditor] {
        let refused = world
            .consents_of(role)
            .revoke_consent(revoking(&grant_id, ""))
            .await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let event = rejected(&world).await.pop().unwrap();
        assert_eq!(said(&event), (REVOKE, "PERMISSION_DENIED"), "{role:?}");
        assert_eq!(
            (event.actor_kind(), event.outcome()),
            (AuditActorKind::Operator, AuditOutcome::Refused)
        );
        assert!(event.actor_id.starts_with("opr_") && event.request_id.len() >= 8);
        assert_eq!(event.caller_address, "127.0.0.1");
    }
    for role in [Role::Security, Role::Admin] {
        // Operators change no designated user.
        let change = pb::ChangeDesignatedUserRequest {
            tenant_id: "acme".into(),
            grant_id: grant_id.clone(),
            designated_account_name: world.second_user_name().into(),
            ..Default::default()
        };
        let refused = world.consents_of(role).change_designated_user(change).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let unknown = world
            .consents_of(role)
            .revoke_consent(revoking(UNKNOWN, ""))
            .await;
        assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
        let with_session = revoking(&grant_id, "ads_x");
        let refused = world.consents_of(role).revoke_consent(with_session).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let events = rejected(&world).await;
        let last: Vec<_> = events[events.len() - 3..].iter().map(said).collect();
        let change = "accord.token.v1.ConsentService/ChangeDesignatedUser";
        assert_eq!(
            last,
            [
                (change, "PERMISSION_DENIED"),
                (REVOKE, "NOT_FOUND"),
                (REVOKE, "PERMISSION_DENIED")
            ]
        );
        assert!(!format!("{events:?}").contains(world.second_user_name()));
    }
    let unformed = revoking("x", "");
    let refused = world.consents_of(Role::Security).revoke_consent(unformed).await;
    assert_violations(refused, &["grant_id"]);
    assert_eq!(
        said(&rejected(&world).await.pop().unwrap()),
        (REVOKE, "INVALID_FIELDS")
    );
}

#[tokio::test]
async fn a_tenant_admin_is_named_whose_session_does_not_suffice() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    assert_eq!(rejected(&world).await, []);
    let last = async |reason: &str| {
        let event = rejected(&world).await.pop().unwrap();
        assert_eq!(event.detail["error_reason"], reason);
        assert_eq!(
            (event.actor_kind(), event.actor_id.as_str()),
            (AuditActorKind::TenantAdmin, world.admin_id.as_str())
        );
    };
    let unknown = world.consents().revoke_consent(revoking(UNKNOWN, &session)).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    last("NOT_FOUND").await;
    // Another workload has the session.
    let stolen = world
        .other_consents()
        .revoke_consent(revoking(&grant_id, &session))
        .await;
    assert_rejected(stolen, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    last("ADMIN_SESSION_INVALID").await;
    world.clock().advance(6 * MINUTE);
    let change = pb::ChangeDesignatedUserRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.clone(),
        admin_session: session.clone(),
        designated_account_name: world.second_user_name().into(),
    };
    let late = world.consents().change_designated_user(change).await;
    assert_rejected(late, Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    last("SIGN_IN_TOO_OLD").await;
    world.clock().advance(16 * MINUTE);
    let idle = world
        .consents()
        .revoke_consent(revoking(&grant_id, &session))
        .await;
    assert_rejected(idle, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    last("ADMIN_SESSION_INVALID").await;
    let events = format!("{:?}", rejected(&world).await);
    assert!(!events.contains(&session[4..]) && !events.contains(world.second_user_name()));
    // A session that nobody has is a mistake of the internal service.
    let before = rejected(&world).await.len();
    let none = world
        .consents()
        .revoke_consent(revoking(&grant_id, "ads_x"))
        .await;
    assert_rejected(none, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    assert_eq!(rejected(&world).await.len(), before);
}

#[tokio::test]
async fn a_flood_of_a_tenant_admin_is_counted() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    for _ in 0..200 {
        let unknown = world.consents().revoke_consent(revoking(UNKNOWN, &session)).await;
        assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(rejected(&world).await.len(), 10);
    world.clock().advance(MINUTE);
    let unknown = world.consents().revoke_consent(revoking(UNKNOWN, &session)).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    let events = rejected(&world).await;
    assert_eq!(events.len(), 12, "{events:?}");
    let count = events.iter().find_map(|event| event.detail.get("count"));
    assert_eq!(count.map(String::as_str), Some("190"));
}

#[tokio::test]
async fn an_unknown_credential_is_an_event_of_its_address() {
    let world = World::start().await;
    let token = OpaqueToken::generate(TokenKind::Operator, &SystemRandom);
    let mut keys = world.harness().signing_keys_with(&token);
    let refused = keys
        .list_signing_keys(pb::ListSigningKeysRequest::default())
        .await;
    assert_rejected(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    let event = rejected(&world).await.pop().unwrap();
    assert_eq!(
        (
            event.actor_kind(),
            event.actor_id.as_str(),
            event.caller_address.as_str()
        ),
        (AuditActorKind::Anonymous, "", "127.0.0.1")
    );
    assert!(!format!("{event:?}").contains(&token.expose()[4..]));
    // A client's wrong code is no call of an operator.
    world.issue(world.by_code("acc_wrong")).await.unwrap_err();
    assert_eq!(rejected(&world).await.len(), 1);
}
