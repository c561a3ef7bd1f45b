//! Introspection with what an internal service knows of the call that brought the token: proof, certificate and address.

use std::time::Duration;

use accord::{
    clock::Clock,
    testing::dpop::ProofKey,
    text::opaque::sha256,
    token::v1 as pb,
    verify::{AccessTokenClaims, Confirmation, key_id},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::{
    harness::{assert_rejected, assert_violations, ok},
    world::World,
};

const URL: &str = "https://api.example/acme/contacts";

/// A token like those that the world issues, bound to a key.
async fn bound(world: &World, cnf: Option<Confirmation>) -> String {
    let issued = world.first_tokens().await.access_token;
    let payload = issued.split('.').nth(1).unwrap();
    let mut claims: AccessTokenClaims =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    claims.cnf = cnf;
    world.forge(&key_id(&issued).unwrap(), &claims).await
}

/// A proof for a GET of [`URL`] with this token.
fn proof(world: &World, key: &ProofKey, token: &str, change: impl FnOnce(&mut Value)) -> String {
    key.altered(URL, world.clock().now().as_secs(), |_, claims| {
        claims["htm"] = json!("GET");
        claims["ath"] = json!(URL_SAFE_NO_PAD.encode(sha256(token.as_bytes())));
        change(claims);
    })
}

fn with_proof(proof: &str) -> pb::TokenBinding {
    pb::TokenBinding {
        dpop_proof: proof.into(),
        method: "GET".into(),
        url: URL.into(),
        ..Default::default()
    }
}

fn asking(token: &str, binding: pb::TokenBinding) -> pb::IntrospectTokenRequest {
    pb::IntrospectTokenRequest {
        tenant_id: "acme".into(),
        token: token.into(),
        binding: Some(binding),
        ..Default::default()
    }
}

/// Returns whether the token is active for a call with this binding. An inactive one has no other field.
async fn is_active(world: &World, token: &str, binding: pb::TokenBinding) -> bool {
    let answer = ok(world
        .internal_tokens()
        .introspect_token(asking(token, binding))
        .await);
    let active = answer.active.unwrap();
    let inactive = pb::IntrospectTokenResponse {
        active: Some(false),
        ..Default::default()
    };
    assert!(active || answer == inactive, "{answer:?}");
    active
}

#[tokio::test]
async fn a_token_of_a_dpop_key_is_active_with_a_proof_of_it_and_once() {
    let world = World::start().await;
    let key = ProofKey::es256();
    let token = bound(&world, Some(Confirmation::Jkt(key.jkt()))).await;
    let other = ProofKey::ed25519();
    for (what, wrong) in [
        ("nothing", pb::TokenBinding::default()),
        (
            "a certificate",
            pb::TokenBinding {
                client_certificate: b"any".to_vec(),
                ..Default::default()
            },
        ),
        ("garbage", with_proof("a.b.c")),
        ("another key", with_proof(&proof(&world, &other, &token, |_| {}))),
        (
            "another token",
            with_proof(&proof(&world, &key, "another token", |_| {})),
        ),
        (
            "no ath",
            with_proof(&proof(&world, &key, &token, |claims| claims["ath"] = Value::Null)),
        ),
        (
            "another method",
            with_proof(&proof(&world, &key, &token, |claims| {
                claims["htm"] = json!("POST")
            })),
        ),
        (
            "another URL",
            with_proof(&proof(&world, &key, &token, |claims| {
                claims["htu"] = json!("https://api.example/acme");
            })),
        ),
        (
            "a minute late",
            with_proof(&proof(&world, &key, &token, |claims| {
                claims["iat"] = json!(world.clock().now().as_secs() - 61);
            })),
        ),
    ] {
        assert!(!is_active(&world, &token, wrong).await, "{what}");
    }
    let good = with_proof(&proof(&world, &key, &token, |_| {}));
    assert!(is_active(&world, &token, good.clone()).await);
    assert!(!is_active(&world, &token, good).await, "a proof counts once");
    let next = with_proof(&proof(&world, &key, &token, |_| {}));
    assert!(is_active(&world, &token, next).await);
    let events = world.audit_events("token_use.refuse").await;
    let why = events.iter().map(|event| event.detail["why"].as_str());
    let used = why.filter(|why| *why == "used proof").count();
    assert_eq!(
        (events.len(), used),
        (10, 1),
        "each attempt is an event: {events:?}"
    );
    assert!(events.iter().all(|event| event.client_id == world.client_id));
    assert!(world.audit_events("call.reject").await.is_empty());
    // A workload that tells nothing compares the key itself.
    assert!(world.is_active(&token).await);
}

#[tokio::test]
async fn a_proof_is_not_spent_on_a_token_that_is_not_active() {
    let world = World::start().await;
    let key = ProofKey::es256();
    let token = bound(&world, Some(Confirmation::Jkt(key.jkt()))).await;
    let good = with_proof(&proof(&world, &key, &token, |_| {}));
    world.suspend("client", true);
    assert!(!is_active(&world, &token, good).await);
    world.suspend("client", false);
    let token = bound(&world, Some(Confirmation::Jkt(key.jkt()))).await;
    let good = with_proof(&proof(&world, &key, &token, |_| {}));
    let elsewhere = pb::TokenBinding {
        client_address: "198.51.100.9".into(),
        ..good.clone()
    };
    world.change_client(|client| client.allowed_networks = vec!["203.0.113.0/24".into()]);
    assert!(!is_active(&world, &token, elsewhere).await);
    let inside = pb::TokenBinding {
        client_address: "203.0.113.7".into(),
        ..good
    };
    assert!(is_active(&world, &token, inside).await);
}

#[tokio::test]
async fn without_room_for_a_proof_nobody_knows_whether_the_token_may_be_used() {
    let world = World::start().await;
    let key = ProofKey::es256();
    let token = bound(&world, Some(Confirmation::Jkt(key.jkt()))).await;
    let binding = || with_proof(&proof(&world, &key, &token, |_| {}));
    world.fill_proofs(&format!("{} at a resource", world.client_id));
    let answer = world
        .internal_tokens()
        .introspect_token(asking(&token, binding()))
        .await;
    assert_rejected(answer, Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    world.clock().advance(Duration::from_secs(80));
    assert!(is_active(&world, &token, binding()).await);
}

#[tokio::test]
async fn a_refresh_token_is_no_credential_for_an_api() {
    let world = World::start().await;
    let refresh_token = world.first_tokens().await.refresh_token;
    assert!(world.is_active(&refresh_token).await);
    for binding in [pb::TokenBinding::default(), with_proof("a.b.c")] {
        assert!(!is_active(&world, &refresh_token, binding).await);
    }
}

#[tokio::test]
async fn a_token_of_a_certificate_is_active_on_its_connection() {
    let world = World::start().await;
    let thumbprint = URL_SAFE_NO_PAD.encode(sha256(b"a certificate"));
    let token = bound(&world, Some(Confirmation::Certificate(thumbprint))).await;
    let on = |certificate: &[u8]| pb::TokenBinding {
        client_certificate: certificate.to_vec(),
        ..Default::default()
    };
    assert!(is_active(&world, &token, on(b"a certificate")).await);
    for other in [&b""[..], b"another certificate"] {
        assert!(!is_active(&world, &token, on(other)).await);
    }
    let events = world.audit_events("token_use.refuse").await;
    let why: Vec<_> = events.iter().map(|event| event.detail["why"].as_str()).collect();
    assert_eq!(why, ["certificate"; 2]);
    let key = ProofKey::es256();
    let mut both = with_proof(&proof(&world, &key, &token, |_| {}));
    both.client_certificate = b"a certificate".to_vec();
    assert!(!is_active(&world, &token, both).await);
}

#[tokio::test]
async fn a_token_comes_in_the_scheme_of_its_key() {
    let world = World::start().await;
    let key = ProofKey::es256();
    let is_active = async |token: &str, scheme: &str, has_proof: bool| {
        let binding = match has_proof {
            true => with_proof(&proof(&world, &key, token, |_| {})),
            false => pb::TokenBinding::default(),
        };
        let scheme = scheme.into();
        is_active(&world, token, pb::TokenBinding { scheme, ..binding }).await
    };
    let unbound = world.first_tokens().await.access_token;
    for (scheme, expected) in [("", true), ("BEARER", true), ("DPoP", false)] {
        assert_eq!(is_active(&unbound, scheme, false).await, expected, "{scheme}");
    }
    // Whoever tells the scheme says that the proof was for something else.
    assert!(is_active(&unbound, "Bearer", true).await);
    // Supersedes the consent of the other token.
    let token = bound(&world, Some(Confirmation::Jkt(key.jkt()))).await;
    for (scheme, expected) in [
        ("", true),
        ("DPoP", true),
        ("dpop", true),
        ("DPOP", true),
        ("Bearer", false),
        ("bearer", false),
    ] {
        assert_eq!(is_active(&token, scheme, true).await, expected, "{scheme}");
        assert!(!is_active(&token, scheme, false).await, "{scheme}");
    }
}

#[tokio::test]
async fn an_unbound_token_comes_without_a_proof() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let key = ProofKey::es256();
    let sent = with_proof(&proof(&world, &key, &tokens.access_token, |_| {}));
    assert!(!is_active(&world, &tokens.access_token, sent).await);
    let without = pb::TokenBinding {
        client_certificate: b"any".to_vec(),
        ..Default::default()
    };
    assert!(is_active(&world, &tokens.access_token, without).await);
}

#[tokio::test]
async fn the_networks_of_client_and_consent_count_if_the_address_is_told() {
    let world = World::start().await;
    let approved = world
        .approved(&world.client, |approval| {
            approval.allowed_networks = vec!["127.0.0.0/8".into(), "203.0.113.0/28".into()];
        })
        .await;
    let issued = world
        .issue(world.by_code(&approved.authorization_code))
        .await
        .unwrap();
    let token = issued.access_token;
    let from = |address: &str| pb::TokenBinding {
        client_address: address.into(),
        ..Default::default()
    };
    for (address, expected) in [
        ("203.0.113.7", true),
        ("::ffff:203.0.113.7", true),
        ("203.0.113.99", false),
        ("2001:db8::1", false),
        ("", true),
    ] {
        assert_eq!(
            is_active(&world, &token, from(address)).await,
            expected,
            "{address}"
        );
    }
    let events = world.audit_events("token_use.refuse").await;
    let addresses = events.iter().map(|event| event.detail["client_address"].as_str());
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["2001:db8::1", "203.0.113.99"]);
    assert!(
        events
            .iter()
            .all(|event| event.detail["error_reason"] == "NETWORK_NOT_ALLOWED")
    );
    world.change_client(|client| client.allowed_networks = vec!["127.0.0.0/8".into()]);
    assert!(!is_active(&world, &token, from("203.0.113.7")).await);
    assert!(is_active(&world, &token, from("127.0.0.1")).await);
}

#[tokio::test]
async fn a_binding_is_for_workloads_and_well_formed() {
    let world = World::start().await;
    let token = world.first_tokens().await.access_token;
    let wrong = pb::TokenBinding {
        dpop_proof: "a.b.c".into(),
        client_certificate: vec![0; 16 * 1024 + 1],
        client_address: "203.0.113.0/24".into(),
        scheme: "Basic".into(),
        ..Default::default()
    };
    let refused: Result<_, Status> = world
        .internal_tokens()
        .introspect_token(asking(&token, wrong))
        .await;
    let fields = [
        "binding.client_address",
        "binding.scheme",
        "binding.method",
        "binding.url",
        "binding.client_certificate",
    ];
    assert_violations(refused, &fields);
    let by_client = pb::IntrospectTokenRequest {
        binding: Some(pb::TokenBinding::default()),
        ..world.client.introspecting(&token)
    };
    let refused = world.tokens().introspect_token(by_client).await;
    assert_violations(refused, &["binding"]);
    let nobody = world
        .tokens()
        .introspect_token(asking(&token, pb::TokenBinding::default()))
        .await;
    assert_rejected(nobody, Code::InvalidArgument, "INVALID_FIELDS");
}
