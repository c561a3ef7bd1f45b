//! Enrolment links.

use std::time::Duration;

use accord::{
    audit::v1::AuditOutcome,
    registry::v1::{self as pb, find_user_request::User as Which, user_service_client::UserServiceClient},
    testing::databases,
};
use tonic::Code;

use super::{NAME, PASSWORD, admin, enrol, found, listed, registered, registrar, security, seeded};
use crate::directory::sign_in;
use crate::harness::{Harness, assert_rejected, assert_violations, ok, strangers_token};

#[tokio::test]
async fn an_enrolment_link_works_once_before_it_expires() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    let user_id = created.user.unwrap().user_id;
    let invalid = |result| assert_rejected(result, Code::FailedPrecondition, "LINK_INVALID");
    invalid(
        enrol(
            &harness,
            &strangers_token(accord::text::opaque::TokenKind::Enrolment),
            PASSWORD,
        )
        .await,
    );
    assert_eq!(
        enrol(&harness, &created.enrolment_token, PASSWORD).await.unwrap(),
        "firm-one"
    );
    let used = invalid(enrol(&harness, &created.enrolment_token, PASSWORD).await);
    assert_eq!(used["use_time"], "2026-01-01T00:00:00Z");
    let [refused, _] = &harness.audit_events("user.enrol").await[..] else {
        panic!("an event each");
    };
    assert_eq!(
        (
            refused.outcome(),
            refused.detail["why"].as_str(),
            &refused.subject
        ),
        (AuditOutcome::Refused, "used before", &user_id)
    );
    assert!(
        found(&harness, "firm-one", Which::UserId(user_id.clone()))
            .await
            .unwrap()
            .enrolled
    );

    // A reset ends the password and every earlier link; a link ends after 72 hours.
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: user_id.clone(),
        request_id: String::new(),
    };
    let first = ok(registrar(&harness).reset_user_password(reset.clone()).await);
    assert!(!first.user.unwrap().enrolled);
    let second = ok(registrar(&harness).reset_user_password(reset.clone()).await);
    invalid(enrol(&harness, &first.enrolment_token, PASSWORD).await);
    harness.clock.advance(Duration::from_secs(72 * 3600));
    invalid(enrol(&harness, &second.enrolment_token, PASSWORD).await);

    // Deactivation ends links too. Passwords of deactivated users and of users who are no admins can't be reset.
    let third = ok(registrar(&harness).reset_user_password(reset.clone()).await);
    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id: user_id.clone(),
        reason: "a test".into(),
    };
    for _ in 0..2 {
        let answer = security(&harness)
            .deactivate_user(deactivate.clone())
            .await
            .unwrap();
        assert_eq!(
            answer.into_inner().user.unwrap().state(),
            pb::UserState::Deactivated
        );
    }
    assert_eq!(harness.audit_events("user.deactivate").await.len(), 1);
    invalid(enrol(&harness, &third.enrolment_token, PASSWORD).await);
    let refused = registrar(&harness).reset_user_password(reset).await;
    let metadata = assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "DEACTIVATED");
    let plain = pb::RegisterUserRequest {
        tenant_admin: false,
        ..admin("api@firm.example")
    };
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: registered(&harness, plain).await.user.unwrap().user_id,
        request_id: String::new(),
    };
    let refused = registrar(&harness).reset_user_password(reset).await;
    assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
    let reactivate = pb::ReactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id,
    };
    let answer = security(&harness).reactivate_user(reactivate).await.unwrap();
    assert_eq!(answer.into_inner().user.unwrap().state(), pb::UserState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_enrolments_one_wins() {
    for database in databases() {
        let label = database.label;
        let harness = Harness::start_on(database).await;
        harness.tenant("firm-one").await;
        let token = registered(&harness, admin(NAME)).await.enrolment_token;
        let racing = (0..8).map(|index| {
            let mut anyone = UserServiceClient::new(harness.anonymous());
            let request = pb::CompleteEnrolmentRequest {
                enrolment_token: token.clone(),
                password: format!("{PASSWORD} {index}"),
                ..Default::default()
            };
            tokio::spawn(async move { anyone.complete_enrolment(request).await })
        });
        let mut won = 0;
        for race in racing.collect::<Vec<_>>() {
            match race.await.unwrap() {
                Ok(_) => won += 1,
                refused => drop(assert_rejected(refused, Code::FailedPrecondition, "LINK_INVALID")),
            }
        }
        assert_eq!(won, 1, "{label}");
        let events = harness.audit_events("user.enrol").await;
        let outcomes = |outcome| events.iter().filter(|event| event.outcome() == outcome).count();
        let counts = (outcomes(AuditOutcome::Success), outcomes(AuditOutcome::Refused));
        assert_eq!(counts, (1, 7), "{label}");
    }
}

#[tokio::test]
async fn a_rejected_password_leaves_the_link_open() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    let token = created.enrolment_token;
    for refused in ["", &"ä".repeat(14), &"x".repeat(1025)] {
        assert_violations(enrol(&harness, &token, refused).await, &["password"]);
    }
    let wrong_kind = strangers_token(accord::text::opaque::TokenKind::Claim);
    assert_violations(enrol(&harness, &wrong_kind, PASSWORD).await, &["enrolment_token"]);
    let stranger = strangers_token(accord::text::opaque::TokenKind::Enrolment);
    let refused = enrol(&harness, &stranger, PASSWORD).await;
    assert_rejected(refused, Code::FailedPrecondition, "LINK_INVALID");
    let hasher = &harness.registry.store().hasher;
    assert_eq!(hasher.runs(), 0, "what can't enrol costs no hash");
    assert!(harness.audit_events("user.enrol").await.is_empty());

    harness.clock.advance(Duration::from_millis(72 * 3_600_000 - 1));
    let longest = format!("{PASSWORD}{}", "ä".repeat(1024 - PASSWORD.len()));
    enrol(&harness, &token, &longest).await.unwrap();
    assert_eq!(hasher.runs(), 1);
    let user_id = created.user.unwrap().user_id;
    let events = harness.audit_events("user.enrol").await;
    assert_eq!(
        (events.len(), &events[0].subject, events[0].tenant_id.as_str()),
        (1, &user_id, "firm-one")
    );
}

#[tokio::test]
async fn reactivation_restores_the_password_but_no_link() {
    let harness = seeded().await;
    let enrolled = registered(&harness, admin(NAME)).await;
    // Users are listed by id, and ids of the same millisecond have no order.
    harness.clock.advance(Duration::from_millis(1));
    let invited = registered(&harness, admin("late@firm.example")).await;
    enrol(&harness, &enrolled.enrolment_token, PASSWORD)
        .await
        .unwrap();
    let ids: Vec<_> = [&enrolled, &invited]
        .map(|created| created.user.as_ref().unwrap().user_id.clone())
        .into();
    for user_id in &ids {
        let (tenant_id, user_id) = ("firm-one".to_owned(), user_id.clone());
        let deactivate = pb::DeactivateUserRequest {
            tenant_id: tenant_id.clone(),
            user_id: user_id.clone(),
            reason: "a test".into(),
        };
        security(&harness).deactivate_user(deactivate).await.unwrap();
        let reactivate = pb::ReactivateUserRequest { tenant_id, user_id };
        let first = ok(security(&harness).reactivate_user(reactivate.clone()).await);
        harness.clock.advance(Duration::from_secs(1));
        let second = security(&harness).reactivate_user(reactivate).await.unwrap();
        assert_eq!(second.into_inner(), first);
    }
    assert_eq!(harness.audit_events("user.reactivate").await.len(), 2);
    let refused = enrol(&harness, &invited.enrolment_token, PASSWORD).await;
    assert_rejected(refused, Code::FailedPrecondition, "LINK_INVALID");
    let users = listed(&harness, pb::UserState::Active).await;
    let enrolled: Vec<_> = users.iter().map(|user| (&user.user_id, user.enrolled)).collect();
    assert_eq!(enrolled, [(&ids[0], true), (&ids[1], false)]);
}

#[tokio::test]
async fn a_password_that_is_easy_to_guess_is_refused_and_leaves_the_link_open() {
    let harness = seeded().await;
    let token = registered(&harness, admin(NAME)).await.enrolment_token;
    for weak in [
        "passwordpassword",
        "123456789012345",
        "               ",
        "firm-onefirm-one",
        "accordaccordaccord",
        "Ada.Admin@firm.example",
        "my name is ADA.admin@Firm.example!",
    ] {
        assert_violations(enrol(&harness, &token, weak).await, &["password"]);
    }
    let stranger = strangers_token(accord::text::opaque::TokenKind::Enrolment);
    let refused = enrol(&harness, &stranger, "passwordpassword").await;
    assert_rejected(refused, Code::FailedPrecondition, "LINK_INVALID");
    assert_eq!(harness.registry.store().hasher.runs(), 0);
    enrol(&harness, &token, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_password_is_the_same_composed_or_not() {
    let harness = seeded().await;
    let token = registered(&harness, admin(NAME)).await.enrolment_token;
    enrol(&harness, &token, "caf\u{e9} au lait avec sucre")
        .await
        .unwrap();
    for typed in [
        "caf\u{e9} au lait avec sucre",
        "cafe\u{301} au lait avec sucre",
        "caf\u{e9}\u{a0}au lait\u{3000}avec sucre",
    ] {
        sign_in(&harness, "firm-one", &format!(" {NAME}\u{200b}"), typed)
            .await
            .unwrap();
    }
    let other = sign_in(&harness, "firm-one", NAME, "cafe au lait avec sucre").await;
    assert_rejected(other, Code::Unauthenticated, "SIGN_IN_FAILED");
}
