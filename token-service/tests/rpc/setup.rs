//! `SetupService`.

mod decision;
mod pushed_request;
mod session;

use std::{collections::HashMap, time::Duration};

use accord::{
    clock::Clock,
    token::v1::{self as pb, SetupState},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use url::Url;

use crate::{
    harness::{assert_rejected, assert_violations, request_id},
    world::{REDIRECT_URI, World},
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
    assert_rejected(result, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
}

#[tokio::test]
async fn a_setup_shows_client_scopes_and_reasons() {
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
        assert_rejected(unknown, Code::NotFound, "NOT_FOUND")["resource"],
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
        assert_rejected(
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
        assert_rejected(
            start(&world, elsewhere).await,
            Code::InvalidArgument,
            "INVALID_TARGET",
        );
    }
    world.change_client(|client| client.scopes.clear());
    assert_rejected(
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
        state: "é".repeat(2049),
        code_challenge: "c".repeat(42),
        resource: String::new(),
        ..Default::default()
    };
    let fields = [
        "request_id",
        "tenant_id",
        "client_id",
        "redirect_uri",
        "scopes[0]",
        "scopes[3]",
        "state",
        "code_challenge",
    ];
    assert_violations(start(&world, bad).await, &fields);
    for name in ["", "a b", "é"] {
        let malformed = pb::StartSetupRequest {
            scopes: vec!["contacts.read".into(), name.into()],
            ..world.request()
        };
        let refused = start(&world, malformed).await;
        assert_rejected(refused, Code::InvalidArgument, "INVALID_SCOPE");
    }

    let long = pb::StartSetupRequest {
        state: "s".repeat(4097),
        code_challenge: "c".repeat(42) + "=",
        ..world.request()
    };
    assert_violations(start(&world, long).await, &["state", "code_challenge"]);
    let longest = pb::StartSetupRequest {
        state: "é".repeat(2048),
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
        let metadata = assert_rejected(refused, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], resource, "{tenant_id} {client_id}");
    }
    for resource in ["client", "tenant"] {
        world.suspend(resource, true);
        let refused = start(&world, world.request()).await;
        let metadata = assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
        assert_eq!(
            (metadata["resource"].as_str(), metadata["state"].as_str()),
            (resource, "SUSPENDED")
        );
        world.suspend(resource, false);
    }
    world.registry().set_unavailable(true);
    let refused = start(&world, world.request()).await.unwrap_err();
    assert!(refused.get_details_retry_info().is_some());
    assert_rejected::<()>(Err(refused), Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_repeated_start_returns_the_same_setup_after_later_changes() {
    let world = World::start().await;
    let request = pb::StartSetupRequest {
        scopes: ["contacts.write", "contacts.read"].map(String::from).to_vec(),
        request_id: request_id(),
        ..world.request()
    };
    let first = start(&world, request.clone()).await.unwrap();
    world.suspend("client", true);
    assert_eq!(start(&world, request.clone()).await.unwrap(), first);
    // What was answered is not asked for again.
    world.registry().set_unavailable(true);
    assert_eq!(start(&world, request.clone()).await.unwrap(), first);
    // The order of scopes means nothing, nor does a repeated one.
    let mut same = request.clone();
    same.scopes.reverse();
    same.scopes.extend_from_within(..1);
    assert_eq!(start(&world, same).await.unwrap(), first);
    let other = pb::StartSetupRequest {
        state: "other".into(),
        ..request.clone()
    };
    assert_rejected(
        start(&world, other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    world.clock().advance(11 * MINUTE);
    assert_rejected(
        start(&world, request).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    assert_eq!(world.audit_events("setup.start").await.len(), 1);
}
