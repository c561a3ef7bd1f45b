//! The sign-in of Tenant Admins.

use std::time::Duration;

use accord::{
    audit::v1::AuditOutcome,
    registry::v1::{self as pb, tenant_service_client::TenantServiceClient},
    rpc::auth::Role,
};
use tonic::Code;

use super::{NAME, sign_in};
use crate::{
    harness::{assert_rejected, assert_violations},
    user::{PASSWORD, admin, enrol, registered, registrar, security, seeded},
};

#[tokio::test]
async fn each_sign_in_costs_one_argon2_run() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    let not_enrolled = registered(&harness, admin("late@firm.example")).await;
    assert!(!not_enrolled.enrolment_token.is_empty());
    let long = format!("{PASSWORD}{}", "x".repeat(72));
    enrol(&harness, &created.enrolment_token, &format!("{long}\0tail"))
        .await
        .unwrap();
    let user_id = created.user.unwrap().user_id;

    let authenticated = sign_in(
        &harness,
        "firm-one",
        "ADA.ADMIN@firm.example",
        &format!("{long}\0tail"),
    )
    .await
    .unwrap();
    assert_eq!(authenticated.user.unwrap().user_id, user_id);
    assert_eq!(harness.audit_events("user.sign_in").await.len(), 1);

    let hasher = &harness.registry.store().hasher.clone();
    let attempts = [
        ("firm-one", NAME, format!("{long}\0tale")),
        ("firm-one", NAME, format!("{long}.\0tail")),
        ("firm-one", NAME, long.clone()),
        ("firm-one", NAME, long[..72].to_owned()),
        ("firm-one", NAME, "short".to_owned()),
        ("firm-one", NAME, String::new()),
        ("firm-one", NAME, "x".repeat(100_000)),
        ("firm-one", "nobody@firm.example", long.clone()),
        ("firm-one", "late@firm.example", long.clone()),
        ("firm-one", "not\0a name", long.clone()),
        ("firm-two", NAME, format!("{long}\0tail")),
        ("firm-nine", NAME, format!("{long}\0tail")),
    ];
    let mut messages = Vec::new();
    for (tenant_id, name, password) in attempts {
        let before = hasher.runs();
        let refused = sign_in(&harness, tenant_id, name, &password).await;
        messages.push(refused.as_ref().unwrap_err().message().to_owned());
        assert_rejected(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(hasher.runs() - before, 1, "{tenant_id} {name}");
    }
    messages.dedup();
    assert_eq!(messages.len(), 1);
    for event in harness.audit_events("user.sign_in").await {
        assert!(!format!("{event:?}").contains("firm.example"), "{event:?}");
    }

    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id,
        reason: "a test".into(),
    };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let before = hasher.runs();
    let refused = sign_in(&harness, "firm-one", NAME, &format!("{long}\0tail")).await;
    assert_rejected(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
    assert_eq!(hasher.runs() - before, 1);
}

#[tokio::test]
async fn users_who_may_not_sign_in_are_rejected_like_unknown_ones() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    enrol(&harness, &created.enrolment_token, PASSWORD).await.unwrap();
    let plain = pb::RegisterUserRequest {
        tenant_admin: false,
        ..admin("api@firm.example")
    };
    registered(&harness, plain).await;
    let hasher = &harness.registry.store().hasher.clone();
    let refused = async |name: &str| {
        let before = hasher.runs();
        let refused = sign_in(&harness, "firm-one", name, PASSWORD).await;
        let message = refused.as_ref().unwrap_err().message().to_owned();
        assert_rejected(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(hasher.runs() - before, 1, "{name}");
        message
    };
    let mut messages = vec![refused("stranger").await, refused("api@firm.example").await];

    // Admins of a suspended tenant are rejected until it is reinstated.
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    let tenant_id = "firm-one".to_owned();
    let suspend = pb::SuspendTenantRequest {
        tenant_id: tenant_id.clone(),
        reason: "a test".into(),
    };
    tenants.suspend_tenant(suspend).await.unwrap();
    messages.push(refused(NAME).await);
    let reinstate = pb::ReinstateTenantRequest {
        tenant_id: tenant_id.clone(),
    };
    tenants.reinstate_tenant(reinstate).await.unwrap();
    let before = hasher.runs();
    sign_in(&harness, "firm-one", NAME, PASSWORD).await.unwrap();
    assert_eq!(hasher.runs() - before, 1);

    // After a reset the old password is rejected, and a new one can be chosen.
    let reset = pb::ResetUserPasswordRequest {
        tenant_id,
        user_id: created.user.unwrap().user_id,
        request_id: String::new(),
    };
    let reset = registrar(&harness).reset_user_password(reset).await.unwrap();
    messages.push(refused(NAME).await);
    let token = reset.into_inner().enrolment_token;
    enrol(&harness, &token, "another long password").await.unwrap();
    messages.push(refused(NAME).await);
    sign_in(&harness, "firm-one", NAME, "another long password")
        .await
        .unwrap();
    messages.dedup();
    assert_eq!(messages.len(), 1);

    let before = hasher.runs();
    assert_violations(sign_in(&harness, "Firm", NAME, PASSWORD).await, &["tenant_id"]);
    assert_eq!(
        hasher.runs(),
        before,
        "a text that can't be a tenant's id says nothing"
    );
}

#[tokio::test]
async fn a_failed_sign_in_is_in_the_audit_record() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    enrol(&harness, &created.enrolment_token, PASSWORD).await.unwrap();
    let user_id = created.user.unwrap().user_id;
    sign_in(&harness, "firm-one", NAME, PASSWORD).await.unwrap();
    for (tenant_id, name) in [
        ("firm-one", NAME),
        ("firm-two", NAME),
        ("firm-nine", NAME),
        ("firm-one", "stranger"),
    ] {
        harness.clock.advance(Duration::from_millis(1));
        let refused = sign_in(&harness, tenant_id, name, "not the password of anybody").await;
        assert_rejected(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
    }
    let mut events = harness.audit_events("user.sign_in").await;
    events.reverse();
    let recorded: Vec<_> = events
        .iter()
        .map(|event| (event.outcome(), event.tenant_id.as_str(), event.subject.as_str()))
        .collect();
    let user_id = user_id.as_str();
    let expected = [
        (AuditOutcome::Success, "firm-one", user_id),
        (AuditOutcome::Refused, "firm-one", user_id),
        (AuditOutcome::Refused, "firm-two", ""),
        (AuditOutcome::Refused, "", ""),
        (AuditOutcome::Refused, "firm-one", ""),
    ];
    assert_eq!(recorded, expected);
}
