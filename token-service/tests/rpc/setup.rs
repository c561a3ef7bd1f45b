//! `SetupService`.

use std::{collections::HashMap, time::Duration};

use accord::{
    clock::Clock,
    token::v1::{self as pb, SetupState},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use url::Url;

use crate::{
    harness::{assert_refused, assert_violations, request_id},
    world::{PASSWORD, REDIRECT_URI, World},
};

const MINUTE: Duration = Duration::from_secs(60);

/// What a browser brings back to the client.
fn answer(redirect_url: &str) -> HashMap<String, String> {
    let url = Url::parse(redirect_url).unwrap();
    url.query_pairs()
        .map(|(key, value)| (key.into_owned(), value.into_owned()))
        .collect()
}

async fn start(world: &World, request: pb::StartSetupRequest) -> Result<pb::Setup, Status> {
    let answer = world.setups().start_setup(request).await?;
    Ok(answer.into_inner().setup.unwrap())
}

async fn get(world: &World, setup_id: &str) -> Result<pb::Setup, Status> {
    let request = pb::GetSetupRequest {
        setup_id: setup_id.into(),
    };
    Ok(world
        .setups()
        .get_setup(request)
        .await?
        .into_inner()
        .setup
        .unwrap())
}

async fn deny(world: &World, setup_id: &str, session: &str) -> Result<pb::DenySetupResponse, Status> {
    let request = pb::DenySetupRequest {
        setup_id: setup_id.into(),
        admin_session: session.into(),
    };
    Ok(world.setups().deny_setup(request).await?.into_inner())
}

async fn approve(
    world: &World,
    request: pb::ApproveSetupRequest,
) -> Result<pb::ApproveSetupResponse, Status> {
    Ok(world.setups().approve_setup(request).await?.into_inner())
}

async fn sign_out(world: &World, session: &str) -> Result<pb::SignOutTenantAdminResponse, Status> {
    let request = pb::SignOutTenantAdminRequest {
        admin_session: session.into(),
    };
    Ok(world.setups().sign_out_tenant_admin(request).await?.into_inner())
}

/// Asks something that needs a session and is harmless.
async fn use_session(world: &World, session: &str) -> Result<(), Status> {
    world
        .list(pb::ListConsentsRequest {
            tenant_id: "acme".into(),
            admin_session: session.into(),
            ..Default::default()
        })
        .await
        .map(drop)
}

#[track_caller]
fn assert_session_invalid(result: Result<(), Status>) {
    assert_refused(result, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
}

#[tokio::test]
async fn a_setup_shows_who_asks_for_what_and_why() {
    let world = World::start().await;
    let setup = start(&world, world.request()).await.unwrap();
    assert!(setup.setup_id.starts_with("set_"));
    assert_eq!(
        (setup.tenant_id.as_str(), setup.client_id.as_str()),
        ("acme", world.client_id.as_str())
    );
    assert_eq!(setup.state(), SetupState::Pending);
    assert_eq!(setup.redirect_uri, REDIRECT_URI);
    for text in [
        &setup.tenant_display_name,
        &setup.client_display_name,
        &setup.partner_name,
        &setup.purpose,
    ] {
        assert!(!text.is_empty());
    }
    let names: Vec<_> = setup.scopes.iter().map(|scope| scope.name.as_str()).collect();
    assert_eq!(names, ["contacts.read", "contacts.write"]);
    assert!(
        setup
            .scopes
            .iter()
            .all(|scope| !scope.description.is_empty() && !scope.reason.is_empty())
    );
    let now = world.clock().now();
    assert_eq!(setup.create_time, Some(now.to_timestamp()));
    assert_eq!(setup.expire_time, Some(now.plus(60 * MINUTE).to_timestamp()));
    assert_eq!(get(&world, &setup.setup_id).await.unwrap(), setup);

    world.clock().advance(60 * MINUTE);
    assert_eq!(
        get(&world, &setup.setup_id).await.unwrap().state(),
        SetupState::Expired
    );
    let unknown = get(&world, "set_01jd0000000000000000000000").await;
    assert_eq!(
        assert_refused(unknown, Code::NotFound, "NOT_FOUND")["resource"],
        "setup"
    );
    assert_violations(get(&world, "set_x").await, &["setup_id"]);
}

#[tokio::test]
async fn scopes_and_resource_may_be_named_or_left_out() {
    let world = World::start().await;
    let one = pb::StartSetupRequest {
        scopes: vec!["contacts.write".into()],
        resource: world.cloud_api_url.clone(),
        state: "~ !\"".into(),
        ..world.request()
    };
    let setup = start(&world, one).await.unwrap();
    assert_eq!(
        (setup.scopes.len(), setup.scopes[0].name.as_str()),
        (1, "contacts.write")
    );

    for scopes in [
        vec!["contacts.read".to_owned(), "files.read".to_owned()],
        vec!["unknown".to_owned()],
    ] {
        let beyond = pb::StartSetupRequest {
            scopes,
            ..world.request()
        };
        assert_refused(
            start(&world, beyond).await,
            Code::InvalidArgument,
            "INVALID_SCOPE",
        );
    }
    for resource in [
        format!("{}/", world.cloud_api_url),
        "https://elsewhere.example".to_owned(),
    ] {
        let elsewhere = pb::StartSetupRequest {
            resource,
            ..world.request()
        };
        assert_refused(
            start(&world, elsewhere).await,
            Code::InvalidArgument,
            "INVALID_TARGET",
        );
    }
    world.change_client(|client| client.scopes.clear());
    assert_refused(
        start(&world, world.request()).await,
        Code::InvalidArgument,
        "INVALID_SCOPE",
    );
}

#[tokio::test]
async fn every_violation_of_a_start_is_reported_at_once() {
    let world = World::start().await;
    let bad = pb::StartSetupRequest {
        request_id: "1".into(),
        tenant_id: "A".into(),
        client_id: "cli_1".into(),
        redirect_uri: String::new(),
        scopes: ["a b", "a", "a", ""].map(String::from).to_vec(),
        state: "é".into(),
        code_challenge: "c".repeat(42),
        resource: String::new(),
    };
    let fields = [
        "request_id",
        "tenant_id",
        "client_id",
        "redirect_uri",
        "scopes[0]",
        "scopes[2]",
        "scopes[3]",
        "state",
        "code_challenge",
    ];
    assert_violations(start(&world, bad).await, &fields);

    let long = pb::StartSetupRequest {
        state: "s".repeat(1025),
        code_challenge: "c".repeat(42) + "=",
        ..world.request()
    };
    assert_violations(start(&world, long).await, &["state", "code_challenge"]);
    let longest = pb::StartSetupRequest {
        state: "s".repeat(1024),
        ..world.request()
    };
    start(&world, longest).await.unwrap();
    for uri in [
        format!("{REDIRECT_URI}/"),
        REDIRECT_URI.to_uppercase(),
        format!("{REDIRECT_URI}?x=1"),
        "https://evil.example/".into(),
    ] {
        let unregistered = pb::StartSetupRequest {
            redirect_uri: uri,
            ..world.request()
        };
        assert_violations(start(&world, unregistered).await, &["redirect_uri"]);
    }
}

#[tokio::test]
async fn only_an_active_client_may_ask_an_active_tenant_of_its_own() {
    let world = World::start().await;
    let asking = |tenant_id: &str, client_id: &str| pb::StartSetupRequest {
        tenant_id: tenant_id.into(),
        client_id: client_id.into(),
        ..world.request()
    };
    for (tenant_id, client_id, resource) in [
        ("nobody", world.client_id.as_str(), "tenant"),
        ("acme", "cli_01jd0000000000000000000000", "client"),
        ("globex", world.client_id.as_str(), "client"),
    ] {
        let refused = start(&world, asking(tenant_id, client_id)).await;
        let metadata = assert_refused(refused, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], resource, "{tenant_id} {client_id}");
    }
    for resource in ["client", "tenant"] {
        world.suspend(resource, true);
        let refused = start(&world, world.request()).await;
        let metadata = assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE");
        assert_eq!(
            (metadata["resource"].as_str(), metadata["state"].as_str()),
            (resource, "SUSPENDED")
        );
        world.suspend(resource, false);
    }
    world.registry().set_unavailable(true);
    let refused = start(&world, world.request()).await.unwrap_err();
    assert!(refused.get_details_retry_info().is_some());
    assert_refused::<()>(Err(refused), Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_repeated_start_gives_the_same_setup_whatever_has_happened_since() {
    let world = World::start().await;
    let request = pb::StartSetupRequest {
        request_id: request_id(),
        ..world.request()
    };
    let first = start(&world, request.clone()).await.unwrap();
    world.suspend("client", true);
    assert_eq!(start(&world, request.clone()).await.unwrap(), first);
    // What was answered is not asked for again.
    world.registry().set_unavailable(true);
    assert_eq!(start(&world, request.clone()).await.unwrap(), first);
    let other = pb::StartSetupRequest {
        state: "other".into(),
        ..request.clone()
    };
    assert_refused(
        start(&world, other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    world.clock().advance(11 * MINUTE);
    assert_refused(
        start(&world, request).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    assert_eq!(world.audit_events("setup.start").await.len(), 1);
}

#[tokio::test]
async fn a_sign_in_opens_a_session_for_an_hour_at_most() {
    let world = World::start().await;
    let setup = world.setup().await;
    let request = world.credentials(&setup.setup_id);
    let answer = world
        .setups()
        .sign_in_tenant_admin(request)
        .await
        .unwrap()
        .into_inner();
    assert!(answer.admin_session.starts_with("ads_"));
    let end = world.clock().now().plus(60 * MINUTE);
    assert_eq!(answer.expire_time, Some(end.to_timestamp()));
    let event = world.audit_events("admin_session.open").await.remove(0);
    assert_eq!(
        (event.tenant_id.as_str(), event.subject.as_str()),
        ("acme", world.admin_id.as_str())
    );
    assert_eq!(event.detail["setup_id"], setup.setup_id);
    assert!(!format!("{event:?}").contains(&answer.admin_session));
}

#[tokio::test]
async fn a_sign_in_is_refused_without_the_right_password_or_for_a_setup_that_can_not_be_decided() {
    let world = World::start().await;
    let sign_in = async |request| world.setups().sign_in_tenant_admin(request).await.map(drop);
    for (account_name, password) in [
        (world.admin_name(), "wrong"),
        ("nobody", PASSWORD),
        (world.api_user_name(), PASSWORD),
    ] {
        let request = pb::SignInTenantAdminRequest {
            account_name: account_name.into(),
            password: password.into(),
            ..world.credentials("")
        };
        assert_refused(sign_in(request).await, Code::Unauthenticated, "SIGN_IN_FAILED");
    }
    let refused = world.audit_events("admin_session.open").await;
    assert_eq!(refused.len(), 3);
    assert!(!format!("{refused:?}").contains(world.admin_name()));

    assert_violations(
        sign_in(pb::SignInTenantAdminRequest {
            tenant_id: "A".into(),
            setup_id: "set_".into(),
            ..Default::default()
        })
        .await,
        &["tenant_id", "setup_id", "account_name", "password"],
    );
    let setup = world.setup().await;
    let elsewhere = pb::SignInTenantAdminRequest {
        tenant_id: "globex".into(),
        ..world.credentials(&setup.setup_id)
    };
    for request in [elsewhere, world.credentials("set_01jd0000000000000000000000")] {
        let metadata = assert_refused(sign_in(request).await, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], "setup");
    }
    let session = world.sign_in(&setup.setup_id).await;
    deny(&world, &setup.setup_id, &session).await.unwrap();
    let refused = sign_in(world.credentials(&setup.setup_id)).await;
    assert_eq!(
        assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "DENIED"
    );
    let late = world.setup().await;
    world.clock().advance(60 * MINUTE);
    let refused = sign_in(world.credentials(&late.setup_id)).await;
    assert_eq!(
        assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "EXPIRED"
    );
    world.registry().set_unavailable(true);
    assert_refused(
        sign_in(world.credentials("")).await,
        Code::Unavailable,
        "UNAVAILABLE",
    );
}

#[tokio::test]
async fn a_sign_out_ends_the_session_of_the_same_workload() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    use_session(&world, &session).await.unwrap();
    let request = pb::SignOutTenantAdminRequest {
        admin_session: session.clone(),
    };
    world.other_setups().sign_out_tenant_admin(request).await.unwrap();
    use_session(&world, &session).await.unwrap();
    for _ in 0..2 {
        sign_out(&world, &session).await.unwrap();
        assert_session_invalid(use_session(&world, &session).await);
    }
    assert_violations(sign_out(&world, &session[1..]).await, &["admin_session"]);
    assert_violations(sign_out(&world, "").await, &["admin_session"]);
}

#[tokio::test]
async fn a_session_ends_by_idleness_and_by_age() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    for _ in 0..4 {
        world.clock().advance(15 * MINUTE - Duration::from_millis(1));
        use_session(&world, &session).await.unwrap();
    }
    world.clock().advance(Duration::from_millis(4));
    assert_session_invalid(use_session(&world, &session).await);
    let session = world.sign_in("").await;
    world.clock().advance(15 * MINUTE);
    assert_session_invalid(use_session(&world, &session).await);
}

#[tokio::test]
async fn a_session_is_of_use_to_its_own_workload_alone() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    let request = pb::ListConsentsRequest {
        tenant_id: "acme".into(),
        admin_session: session.clone(),
        ..Default::default()
    };
    let refused = world.other_consents().list_consents(request).await;
    assert_session_invalid(refused.map(drop));
    use_session(&world, &session).await.unwrap();
    for text in [
        "",
        "ads_",
        &session[..session.len() - 1],
        &session.replace("ads_", "acc_"),
    ] {
        assert_session_invalid(use_session(&world, text).await);
    }
}

#[tokio::test]
async fn a_session_ends_with_what_it_stands_on_and_does_not_come_back() {
    type Change = fn(&World);
    let changes: [(Change, Change); 5] = [
        (
            |world| world.deactivate_admin(true),
            |world| world.deactivate_admin(false),
        ),
        (
            |world| world.set_admin_role(false),
            |world| world.set_admin_role(true),
        ),
        (|world| world.end_admin_sessions(), |_| ()),
        (
            |world| world.suspend("tenant", true),
            |world| world.suspend("tenant", false),
        ),
        (|world| world.start_registry_epoch(), |_| ()),
    ];
    for (index, (end, restore)) in changes.into_iter().enumerate() {
        let world = World::start().await;
        let session = world.sign_in("").await;
        use_session(&world, &session).await.unwrap();
        end(&world);
        assert_session_invalid(use_session(&world, &session).await);
        restore(&world);
        assert_session_invalid(use_session(&world, &session).await);
        let again = world.sign_in("").await;
        use_session(&world, &again)
            .await
            .unwrap_or_else(|status| panic!("case {index}: {status:?}"));
        let ended = world.audit_events("admin_session.end").await;
        assert_eq!(
            (ended.len(), ended[0].detail["reason"].as_str()),
            (1, "no_longer_allowed"),
            "case {index}"
        );
    }
}

#[tokio::test]
async fn a_change_between_two_uses_ends_the_session_even_if_it_was_undone() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    world.deactivate_admin(true);
    world.deactivate_admin(false);
    assert_session_invalid(use_session(&world, &session).await);
}

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

    let again = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_eq!(
        assert_refused(again, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "APPROVED"
    );
    let denied = deny(&world, &setup.setup_id, &session).await;
    assert_eq!(
        assert_refused(denied, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "APPROVED"
    );
    world.clock().advance(MINUTE);
    let consent = world.consent(&consent.grant_id).await;
    assert_eq!(consent.state(), pb::ConsentState::Expired);
    assert_eq!(consent.end_time, Some(world.clock().now().to_timestamp()));
}

#[tokio::test]
async fn no_scopes_named_means_all_that_were_asked_for() {
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
        assert_refused(approved, Code::PermissionDenied, "ADMIN_SESSION_MISMATCH");
        let denied = deny(&world, &setup.setup_id, &session).await;
        assert_refused(denied, Code::PermissionDenied, "ADMIN_SESSION_MISMATCH");
    }
    let approved = approve(&world, world.approval(&setup.setup_id, "")).await;
    assert_refused(approved, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let session = world.sign_in_at("globex").await;
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_eq!(
        assert_refused(approved, Code::NotFound, "NOT_FOUND")["resource"],
        "setup"
    );
    let denied = deny(&world, &setup.setup_id, &session).await;
    assert_eq!(
        assert_refused(denied, Code::NotFound, "NOT_FOUND")["resource"],
        "setup"
    );
    let unknown = approve(&world, world.approval("set_01jd0000000000000000000000", &session)).await;
    assert_eq!(
        assert_refused(unknown, Code::NotFound, "NOT_FOUND")["resource"],
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
    assert_refused(approved, Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    deny(&world, &setup.setup_id, &session).await.unwrap();

    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.clock().advance(5 * MINUTE);
    approve(&world, world.approval(&setup.setup_id, &session))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_approval_is_refused_with_every_violation() {
    let world = World::start().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    let bad = pb::ApproveSetupRequest {
        setup_id: "x".into(),
        admin_session: session.clone(),
        scopes: ["a", "a"].map(String::from).to_vec(),
        designated_account_name: String::new(),
        expire_time: Some(world.clock().now().to_timestamp()),
    };
    let fields = ["setup_id", "scopes[1]", "designated_account_name", "expire_time"];
    assert_violations(approve(&world, bad).await, &fields);
    let beyond = pb::ApproveSetupRequest {
        scopes: vec!["files.read".into()],
        ..world.approval(&setup.setup_id, &session)
    };
    assert_refused(
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
        let metadata = assert_refused(approve(&world, request).await, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], "user", "{account_name}");
    }
    assert_eq!(
        get(&world, &setup.setup_id).await.unwrap().state(),
        SetupState::Pending
    );
    assert!(world.audit_events("consent.approve").await.is_empty());
}

#[tokio::test]
async fn an_approval_fails_when_what_was_shown_has_changed() {
    let world = World::start().await;
    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.suspend("client", true);
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    let metadata = assert_refused(approved, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(
        (metadata["resource"].as_str(), metadata["state"].as_str()),
        ("client", "SUSPENDED")
    );
    world.suspend("client", false);
    world.change_client(|client| client.version += 1);
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_refused(approved, Code::FailedPrecondition, "CLIENT_CHANGED");

    let setup = world.setup().await;
    let session = world.sign_in(&setup.setup_id).await;
    world.change_client(|client| client.scopes[0].description = "Allows much more".into());
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_refused(approved, Code::FailedPrecondition, "CLIENT_CHANGED");
    let unchanged = pb::ApproveSetupRequest {
        scopes: vec!["contacts.write".into()],
        ..world.approval(&setup.setup_id, &session)
    };
    approve(&world, unchanged).await.unwrap();
}

#[tokio::test]
async fn an_expired_setup_can_not_be_decided() {
    let world = World::start().await;
    let setup = world.setup().await;
    world.clock().advance(59 * MINUTE);
    let session = world.sign_in(&setup.setup_id).await;
    world.clock().advance(MINUTE);
    let approved = approve(&world, world.approval(&setup.setup_id, &session)).await;
    assert_eq!(
        assert_refused(approved, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "EXPIRED"
    );
    let denied = deny(&world, &setup.setup_id, &session).await;
    assert_eq!(
        assert_refused(denied, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "EXPIRED"
    );
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
    let denied = deny(&world, &setup.setup_id, &session).await.unwrap();
    assert_eq!(denied.setup.unwrap().state(), SetupState::Denied);
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
    for refused in [
        deny(&world, &setup.setup_id, &session).await.map(drop),
        approve(&world, world.approval(&setup.setup_id, &session))
            .await
            .map(drop),
    ] {
        assert_eq!(
            assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
            "DENIED"
        );
    }
}

#[tokio::test]
async fn of_racing_approvals_one_wins() {
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
            match racer.await.unwrap() {
                Ok(answer) => codes.push(answer.into_inner().authorization_code),
                refused => {
                    let metadata = assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE");
                    assert_eq!(metadata["state"], "APPROVED");
                }
            }
        }
        assert_eq!(codes.len(), 1);
        assert_eq!(world.audit_events("consent.approve").await.len(), 1);
    }
}
