//! Clients with a registered method, and clients under the FAPI 2.0 Security Profile, from the moment at which they follow it.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use accord::{
    clock::Clock,
    registry::v1::SecurityProfile,
    rpc::run,
    testing::dpop::ProofKey,
    token::v1::{self as pb, issue_token_request::ClientAuthentication},
};
use serde_json::json;
use token_service::{
    error::Error,
    model::signing_key::Algorithm,
    oauth::signing_keys::{ensure, maintain},
};
use tonic::{Code, Status};

use crate::{
    harness::{assert_rejected, assert_violations, ok, request_id},
    http::keys::{ClientKey, key_set},
    world::World,
};

fn by_assertion(world: &World, assertion: String) -> pb::IssueTokenRequest {
    pb::IssueTokenRequest {
        client_authentication: Some(ClientAuthentication::ClientAssertion(assertion)),
        ..world.by_client_credentials()
    }
}

#[track_caller]
fn message<T>(answer: Result<T, Status>) -> String {
    let status = answer.map(drop).unwrap_err();
    let text = status.message().to_owned();
    assert_rejected::<()>(Err(status), Code::Unauthenticated, "INVALID_CLIENT");
    text
}

#[tokio::test]
async fn a_client_authenticates_by_its_registered_method_alone() {
    let world = World::start().await;
    world.active_grant().await;
    let key = ClientKey::of_client(&world, "ES256");
    let by_key = async || world.issue(by_assertion(&world, key.assertion(&world))).await;
    let by_secret = async || world.issue(world.by_client_credentials()).await;
    assert!(by_key().await.is_ok() && by_secret().await.is_ok());
    world.change_client(|client| client.token_endpoint_auth_method = "private_key_jwt".into());
    assert!(by_key().await.is_ok());
    assert!(message(by_secret().await).ends_with("must authenticate by private_key_jwt"));
    world.change_client(|client| client.token_endpoint_auth_method = "client_secret_post".into());
    assert!(by_secret().await.is_ok());
    assert!(message(by_key().await).ends_with("must authenticate by client_secret_post"));
    // Nobody else learns the method.
    let mut wrong = world.by_client_credentials();
    wrong.client_authentication = Some(ClientAuthentication::ClientSecret("acs_wrong".into()));
    world.change_client(|client| client.token_endpoint_auth_method = "private_key_jwt".into());
    assert_eq!(message(world.issue(wrong).await), "client authentication failed");
    // A right credential of the wrong kind is an event, a wrong one is not.
    let events = world.audit_events("client_credential.refuse").await;
    let why: Vec<_> = events.iter().map(|event| event.detail["why"].as_str()).collect();
    assert_eq!(why.len(), 2, "{why:?}");
    assert!(
        why.iter().all(|why| why.contains("must authenticate by")),
        "{why:?}"
    );
}

#[tokio::test]
async fn the_profile_holds_from_its_start_on() {
    let world = World::start().await;
    world.active_grant().await;
    let key = ClientKey::generate("PS256", "key-1");
    let old = ClientKey::generate("RS256", "key-2");
    let start = world.clock().now().plus(Duration::from_secs(60));
    world.change_client(|client| {
        client.json_web_key_set = key_set(&[&key, &old]);
        client.token_endpoint_auth_method = "private_key_jwt".into();
        client.security_profile = SecurityProfile::Fapi20.into();
        client.profile_start_time = Some(start.to_timestamp());
    });
    let with = async |key: &ClientKey, aud: serde_json::Value| {
        let assertion = key.assertion_with(&world, |_, claims| claims["aud"] = aud);
        world.issue(by_assertion(&world, assertion)).await
    };
    let one = || json!(world.issuer);
    let list = || json!([world.issuer]);
    // Until then nothing is different: secret, list and RS256 work, and nobody pushes anything.
    assert!(world.issue(world.by_client_credentials()).await.is_ok());
    assert!(with(&key, list()).await.is_ok() && with(&old, one()).await.is_ok());
    let before = world.setup().await;
    assert!(!before.bound_tokens);

    world.clock().set(start);
    let refused = message(world.issue(world.by_client_credentials()).await);
    assert!(
        refused.ends_with("must authenticate by private_key_jwt"),
        "{refused}"
    );
    assert!(message(with(&old, one()).await).contains("must be PS256, ES256 or EdDSA"));
    assert!(message(with(&key, list()).await).contains("one string"));
    // The client is who it says, but its tokens are bound.
    let unbound = with(&key, one()).await;
    let text = unbound.as_ref().unwrap_err().message().to_owned();
    assert_rejected(unbound, Code::InvalidArgument, "INVALID_DPOP_PROOF");
    assert!(
        text.contains("must be sent, or a client certificate presented"),
        "{text}"
    );
    let events = world.audit_events("token.refuse").await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].detail["error_reason"], "INVALID_DPOP_PROOF");
    let given = pb::StartSetupRequest {
        request_id: request_id(),
        ..world.request()
    };
    assert_violations(world.setups().start_setup(given).await, &["request_uri"]);
    // Nor is what was requested before without a push approved now.
    let session = world.sign_in(&before.setup_id).await;
    let approved = world
        .setups()
        .approve_setup(world.approval(&before.setup_id, &session))
        .await;
    assert_rejected(approved, Code::FailedPrecondition, "CLIENT_CHANGED");
}

#[tokio::test]
async fn a_refresh_token_is_kept_under_the_profile_and_rotates_after_it() {
    for world in World::start_on_all().await {
        let first = world.first_tokens().await.refresh_token;
        let (key, proof_key) = (ClientKey::generate("ES256", "key-1"), ProofKey::es256());
        world.change_client(|client| {
            client.json_web_key_set = key_set(&[&key]);
            client.token_endpoint_auth_method = "private_key_jwt".into();
            client.security_profile = SecurityProfile::Fapi20.into();
            client.profile_start_time = Some(world.clock().now().to_timestamp());
        });
        let url = format!("{}/oauth2/token", world.issuer);
        let renew = async |refresh_token: &str| {
            let request = pb::IssueTokenRequest {
                client_authentication: Some(ClientAuthentication::ClientAssertion(key.assertion(&world))),
                dpop_proof: proof_key.proof(&url, world.clock().now().as_secs()),
                ..world.by_refresh_token(refresh_token)
            };
            let renewed = world.issue(request).await?;
            assert!(world.is_active(&renewed.access_token).await);
            Ok::<_, Status>(renewed.refresh_token)
        };
        // Twice within the time in which a repeat is excused, and twice long after it.
        for pause in [0, 1, 3600, 24 * 3600] {
            world.clock().advance(Duration::from_secs(pause));
            assert_eq!(renew(&first).await.unwrap(), first);
        }
        assert!(world.audit_events("refresh_token.repeat").await.is_empty());

        world.change_client(|client| {
            client.security_profile = SecurityProfile::None.into();
            client.profile_start_time = None;
        });
        let second = renew(&first).await.unwrap();
        let third = renew(&second).await.unwrap();
        assert!(first != second && second != third);
        assert_rejected(renew(&first).await, Code::FailedPrecondition, "INVALID_GRANT");
        assert_eq!(world.audit_events("refresh_token.reuse").await.len(), 1);
        assert_rejected(renew(&third).await, Code::FailedPrecondition, "INVALID_GRANT");
    }
}

/// Rotates the signing key, by force.
async fn rotate(world: &World, algorithm: &str) -> Result<pb::SigningKey, Status> {
    rotate_with(world, algorithm, true).await
}

async fn rotate_with(world: &World, algorithm: &str, force: bool) -> Result<pb::SigningKey, Status> {
    let request = pb::RotateSigningKeyRequest {
        algorithm: algorithm.into(),
        force,
        ..Default::default()
    };
    let rotated = world.signing_key_service().rotate_signing_key(request).await?;
    Ok(rotated.into_inner().signing_key.unwrap())
}

async fn algorithms(world: &World) -> Vec<Algorithm> {
    world.harness().store.signing_algorithms().await.unwrap()
}

#[tokio::test]
async fn no_key_is_for_rs256_while_a_client_follows_the_profile() {
    let world = World::start().await;
    let oauth = world.harness().server.oauth();
    let period = Some(Duration::from_secs(90 * 24 * 3600));
    // The registry hears of RS256 before there is a key, and of its end.
    assert_eq!(rotate(&world, "RS256").await.unwrap().algorithm, "RS256");
    assert!(
        world
            .registry()
            .signing_algorithms()
            .contains(&"RS256".to_owned())
    );
    rotate(&world, "EdDSA").await.unwrap();
    maintain(oauth, period).await.unwrap();
    assert_eq!(world.registry().signing_algorithms(), ["EdDSA", "EdDSA"]);

    // Also before the profile begins.
    let start = world.clock().now().plus(Duration::from_secs(60));
    world.change_client(|client| {
        client.security_profile = SecurityProfile::Fapi20.into();
        client.profile_start_time = Some(start.to_timestamp());
    });
    for force in [true, false] {
        let request = pb::RotateSigningKeyRequest {
            algorithm: "RS256".into(),
            force,
            ..Default::default()
        };
        let refused = world.signing_key_service().rotate_signing_key(request).await;
        let text = refused.as_ref().unwrap_err().message().to_owned();
        assert!(text.ends_with("use PS256, ES256 or EdDSA"), "{text}");
        assert_rejected(refused, Code::FailedPrecondition, "WRONG_STATE");
    }
    assert_eq!(algorithms(&world).await, [Algorithm::EdDsa; 2]);
    assert!(rotate(&world, "PS256").await.is_ok());
    // Nobody can ask the registry.
    world.registry().set_unavailable(true);
    assert_rejected(rotate(&world, "RS256").await, Code::Unavailable, "UNAVAILABLE");
    assert!(rotate(&world, "ES256").await.is_ok());
    assert_eq!(algorithms(&world).await, [Algorithm::Es256; 2]);
}

#[tokio::test]
async fn the_schedule_and_the_start_make_no_key_for_rs256_beside_the_profile() {
    let world = World::start().await;
    let (oauth, registry) = (world.harness().server.oauth(), world.registry());
    rotate(&world, "RS256").await.unwrap();
    // A client that came between a report and its key.
    world.change_client(|client| {
        client.security_profile = SecurityProfile::Fapi20.into();
        client.profile_start_time = Some(world.clock().now().to_timestamp());
    });
    let period = Some(Duration::from_secs(3600));
    world.clock().advance(Duration::from_secs(2 * 3600));
    assert_eq!(maintain(oauth, period).await.unwrap(), None);
    registry.set_unavailable(true);
    assert_eq!(maintain(oauth, period).await.unwrap(), None);
    // An operator can always leave RS256, and then the schedule goes on, whatever the registry says.
    assert!(rotate_with(&world, "ES256", false).await.is_ok());
    assert_eq!(algorithms(&world).await, [Algorithm::Rs256, Algorithm::Es256]);
    world.clock().advance(Duration::from_secs(2 * 3600));
    assert!(maintain(oauth, period).await.unwrap().is_some());

    let store = &world.harness().store;
    let ensured = ensure(&oauth.registry, store, Algorithm::Rs256).await;
    assert!(ensured.is_ok(), "no key is missing");
    world.harness().edit("DELETE FROM signing_keys").await;
    let unanswered = ensure(&oauth.registry, store, Algorithm::Rs256).await;
    assert!(
        matches!(unanswered, Err(Error::RegistryUnavailable)),
        "{unanswered:?}"
    );
    registry.set_unavailable(false);
    let refused = ensure(&oauth.registry, store, Algorithm::Rs256).await;
    assert!(
        matches!(refused, Err(Error::ProfileForbidsRs256(_))),
        "{refused:?}"
    );
    assert!(algorithms(&world).await.is_empty());
    ensure(&oauth.registry, store, Algorithm::Ps256).await.unwrap();
    assert_eq!(algorithms(&world).await, [Algorithm::Ps256; 2]);
}

#[tokio::test]
async fn the_first_key_for_rs256_waits_for_the_registry_and_not_for_another_credential() {
    let world = World::start().await;
    let (harness, registry) = (world.harness(), world.registry());
    harness.edit("DELETE FROM signing_keys").await;
    let tries = AtomicUsize::new(0);
    let open = || {
        run::when_reachable("sqlite:", async || {
            tries.fetch_add(1, Relaxed);
            let opened = harness.open_again_with(Algorithm::Rs256).await;
            registry.set_unavailable(false);
            opened
        })
    };
    registry.reject_credential(true);
    let error = format!("{:#}", open().await.unwrap_err());
    assert!(
        error.starts_with("--registry-token-file: the registry rejects"),
        "{error}"
    );
    assert_eq!((tries.swap(0, Relaxed), algorithms(&world).await.len()), (1, 0));

    registry.reject_credential(false);
    registry.set_unavailable(true);
    open().await.unwrap();
    assert_eq!(tries.into_inner(), 2, "the registry starts later");
    assert_eq!(registry.signing_algorithms(), ["RS256"]);
    assert_eq!(algorithms(&world).await, [Algorithm::Rs256; 2]);
}

#[tokio::test]
async fn a_setup_shows_that_tokens_are_bound_and_where_they_are_requested() {
    let world = World::start().await;
    let open = world.setup().await;
    assert!(!open.bound_tokens && open.client_networks.is_empty());
    world.change_client(|client| {
        client.dpop_jkts = vec!["0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into()];
        client.allowed_networks = vec!["203.0.113.0/24".into()];
    });
    let setup = world.setup().await;
    assert!(setup.bound_tokens);
    assert_eq!(setup.client_networks, ["203.0.113.0/24"]);
    let request = pb::GetSetupRequest {
        setup_id: setup.setup_id.clone(),
    };
    let found = ok(world.setups().get_setup(request).await).setup;
    assert_eq!(found, Some(setup));
    let other_key = pb::StartSetupRequest {
        request_id: request_id(),
        dpop_jkt: "k".repeat(43),
        ..world.request()
    };
    assert_violations(world.setups().start_setup(other_key).await, &["dpop_jkt"]);
}
