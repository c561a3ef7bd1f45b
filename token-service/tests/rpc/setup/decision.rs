//! Approvals and denials: what each needs, and what it gives.

use std::time::Duration;

use accord::{
    clock::Clock,
    token::v1::{self as pb, SetupState},
};
use tonic::Code;

use super::{MINUTE, answer, approve, deny, get, start};
use crate::{
    harness::{assert_rejected, assert_violations},
    world::{REDIRECT_URI, World},
};

#[tokio::test]
async fn an_approval_gives_a_pending_consent_and_a_code_for_the_client() {
    let world = World::start().await;
    let start_request = pb::StartSetupRequest {
        state: "x y&z=1".into(),
        ..world.request()
    };
    let setup = start(&world, start_request).await.unwrap();
    let session = world.sign_in(&setup.setup_id).await;
    let end = world.clock().now().plus(1000 * MINUTE).to_timestamp();
    let request = pb::ApproveSetupRequest {
        scopes: vec!["contacts.read".into()],
        expire_time: Some(end),
        ..world.approval(&setup.setup_id, &session)
    };
    let approved = approve(&world, request).await.unwrap();
    let consent = approved.consent.unwrap();
    assert_eq!(consent.state(), pb::ConsentState::Pending);
    assert_eq!(
        (consent.tenant_id.as_str(), consent.client_id.as_str()),
        ("acme", world.client_id.as_str())
    );
    assert_eq!(consent.scopes, ["contacts.read"]);
    assert_eq!(consent.designated_user_id, world.api_user_id);
    assert_eq!(consent.granted_by_user_id, world.admin_id);
    assert_eq!(
        (&consent.purpose, &consent.client_display_name),
        (&setup.purpose, &setup.client_display_name)
    );
    assert!(!consent.designated_user_label.is_empty());
    assert_eq!(
        (consent.expire_time, consent.activate_time, consent.end_time),
        (Some(end), None, None)
    );
    assert!(approved.authorization_code.starts_with("acc_"));

    assert!(approved.redirect_url.starts_with(REDIRECT_URI));
    let sent = answer(&approved.redirect_url);
    assert_eq!(sent["code"], approved.authorization_code);
    assert_eq!(sent["state"], "x y&z=1");
    assert_eq!(sent["iss"], world.issuer);
    assert_eq!(sent.len(), 3);
    assert_eq!(
        get(&world, &setup.setup_id).await.unwrap().state(),
        SetupState::Approved
    );

    let event = world.audit_events("consent.approve").await.remove(0);
    assert_eq!(event.actor_id, world.admin_id);
    assert_eq!(
        (event.subject.as_str(), event.detail["scopes"].as_str()),
        (consent.grant_id.as_str(), "contacts.read")
    );
    assert!(!format!("{event:?}").contains(&approved.authorization_code));

    // The same choices get the same code again, others don't.
    let same = pb::ApproveSetupRequest {
        scopes: vec!["contacts.read".into()],
        expire_time: Some(end),
        ..world.approval(&setup.setup_id, &session)
    };
    let again = approve(&world, same.clone()).await.unwrap();
    assert_eq!(
        (&again.authorization_code, &again.redirect_url),
        (&approved.authorization_code, &approved.redirect_url)
    );
    assert_eq!(again.consent.unwrap().grant_id, consent.grant_id);
    assert_eq!(world.audit_events("consent.approve").await.len(), 1);
    assert_eq!(world.audit_events("consent.repeat").await.len(), 1);
    let other = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_eq!(
        assert_rejected(other, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "APPROVED"
    );
    let denied = deny(&world, &setup.setup_id, &session).await;
    assert_eq!(
        assert_rejected(denied, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "APPROVED"
    );
    world.clock().advance(MINUTE);
    let late = approve(&world, same).await;
    assert_rejected(late, Code::FailedPrecondition, "WRONG_STATE");
    let consent = world.consent(&consent.grant_id).await;
    assert_eq!(consent.state(), pb::ConsentState::Expired);
    assert_eq!(consent.end_time, Some(world.clock().now().to_timestamp()));
}

#[tokio::test]
async fn an_approval_without_scopes_grants_all_requested() {
    let world = World::start().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    let approved = approve(&world, world.approval(&setup.setup_id, &session))
        .await
        .unwrap();
    assert_eq!(
        approved.consent.unwrap().scopes,
        ["contacts.read", "contacts.write"]
    );
    let sent = answer(&approved.redirect_url);
    assert!(!sent.contains_key("state"), "the client sent none");
}

#[tokio::test]
async fn a_decision_needs_a_session_that_was_opened_for_the_setup() {
    let world = World::start().await;
    let (setup, other) = (world.setup().await, world.setup().await);
    for session in [world.sign_in("").await, world.sign_in(&other.setup_id).await] {
        let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
        assert_rejected(approved, Code::PermissionDenied, "ADMIN_SESSION_MISMATCH");
        let denied = deny(&world, &setup.setup_id, &session).await;
        assert_rejected(denied, Code::PermissionDenied, "ADMIN_SESSION_MISMATCH");
    }
    let approved = approve(&world, world.approval(&setup.setup_id, "")).await;
    assert_rejected(approved, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let session = world.sign_in_at("globex").await;
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_eq!(
        assert_rejected(approved, Code::NotFound, "NOT_FOUND")["resource"],
        "setup"
    );
    let denied = deny(&world, &setup.setup_id, &session).await;
    assert_eq!(
        assert_rejected(denied, Code::NotFound, "NOT_FOUND")["resource"],
        "setup"
    );
    let unknown = approve(&world, world.approval("set_01jd0000000000000000000000", &session)).await;
    assert_eq!(
        assert_rejected(unknown, Code::NotFound, "NOT_FOUND")["resource"],
        "setup"
    );
    assert_eq!(
        get(&world, &setup.setup_id).await.unwrap().state(),
        SetupState::Pending
    );
}

#[tokio::test]
async fn an_approval_needs_a_fresh_sign_in_and_a_denial_does_not() {
    let world = World::start().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.clock().advance(5 * MINUTE + Duration::from_millis(1));
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_rejected(approved, Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    deny(&world, &setup.setup_id, &session).await.unwrap();

    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.clock().advance(5 * MINUTE);
    approve(&world, world.approval(&setup.setup_id, &session))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_rejected_approval_names_every_violation() {
    let world = World::start().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    let bad = pb::ApproveSetupRequest {
        setup_id: "x".into(),
        admin_session: session.clone(),
        scopes: ["a", "a b"].map(String::from).to_vec(),
        designated_account_name: String::new(),
        expire_time: Some(world.clock().now().to_timestamp()),
        ..Default::default()
    };
    let fields = ["setup_id", "scopes[1]", "designated_account_name", "expire_time"];
    assert_violations(approve(&world, bad).await, &fields);
    let beyond = pb::ApproveSetupRequest {
        scopes: vec!["files.read".into()],
        ..world.approval(&setup.setup_id, &session)
    };
    assert_rejected(
        approve(&world, beyond).await,
        Code::InvalidArgument,
        "INVALID_SCOPE",
    );
    world.deactivate_api_user(true);
    for account_name in ["nobody", world.api_user_name(), world.globex_admin_name()] {
        let request = pb::ApproveSetupRequest {
            designated_account_name: account_name.into(),
            ..world.approval(&setup.setup_id, &session)
        };
        let metadata = assert_rejected(approve(&world, request).await, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], "user", "{account_name}");
    }
    assert_eq!(
        get(&world, &setup.setup_id).await.unwrap().state(),
        SetupState::Pending
    );
    assert!(world.audit_events("consent.approve").await.is_empty());
}

#[tokio::test]
async fn an_approval_fails_when_the_client_has_changed() {
    let world = World::start().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.suspend("client", true);
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    let metadata = assert_rejected(approved, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(
        (metadata["resource"].as_str(), metadata["state"].as_str()),
        ("client", "SUSPENDED")
    );
    world.suspend("client", false);
    world.change_client(|client| client.version += 1);
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_rejected(approved, Code::FailedPrecondition, "CLIENT_CHANGED");

    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.change_client(|client| client.scopes[0].description = "Allows much more".into());
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_rejected(approved, Code::FailedPrecondition, "CLIENT_CHANGED");
    let unchanged = pb::ApproveSetupRequest {
        scopes: vec!["contacts.write".into()],
        ..world.approval(&setup.setup_id, &session)
    };
    approve(&world, unchanged).await.unwrap();
}

#[tokio::test]
async fn a_denial_sends_the_browser_back_with_an_error() {
    let world = World::start().await;
    let start_request = pb::StartSetupRequest {
        state: "s".into(),
        ..world.request()
    };
    let setup = start(&world, start_request).await.unwrap();
    let session = world.sign_in(&setup.setup_id).await;
    let other = world.sign_in(&setup.setup_id).await;
    let denied = deny(&world, &setup.setup_id, &session).await.unwrap();
    assert_eq!(denied.setup.as_ref().unwrap().state(), SetupState::Denied);
    let sent = answer(&denied.redirect_url);
    assert_eq!(sent["error"], "access_denied");
    assert_eq!(
        (sent["state"].as_str(), sent["iss"].as_str(), sent.len()),
        ("s", world.issuer.as_str(), 3)
    );
    let event = world.audit_events("consent.deny").await.remove(0);
    assert_eq!(
        (&event.actor_id, &event.subject),
        (&world.admin_id, &setup.setup_id)
    );
    let again = deny(&world, &setup.setup_id, &session).await.unwrap();
    assert_eq!(again.redirect_url, denied.redirect_url);
    assert_eq!(world.audit_events("consent.deny").await.len(), 1);
    for refused in [
        deny(&world, &setup.setup_id, &other).await.map(drop),
        approve(&world, world.approval(&setup.setup_id, &session))
            .await
            .map(drop),
    ] {
        assert_eq!(
            assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
            "DENIED"
        );
    }
}

#[tokio::test]
async fn of_racing_approvals_one_wins_and_all_get_its_code() {
    for world in World::start_on_all().await {
        let setup = world.setup().await;
        let session = world.sign_in(&setup.setup_id).await;
        let mut racers = Vec::new();
        for _ in 0..8 {
            let (mut setups, request) = (world.setups(), world.approval(&setup.setup_id, &session));
            racers.push(tokio::spawn(async move { setups.approve_setup(request).await }));
        }
        let mut codes = Vec::new();
        for racer in racers {
            codes.push(racer.await.unwrap().unwrap().into_inner().authorization_code);
        }
        codes.dedup();
        assert_eq!(codes.len(), 1);
        assert_eq!(world.audit_events("consent.approve").await.len(), 1);
    }
}
