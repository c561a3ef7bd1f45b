//! Clients whose keys are at a URL of their own (RFC 7591 §2): token-service fetches them over https, from an address that the
//! deployment allows.

use std::{env, path::PathBuf, process::Command, time::Duration};

use accord::{
    registry::v1::ClientProfile,
    testing::{
        certificates::{KeyKind, Pair, Subject},
        https::{HttpsServer, ok},
    },
    text::jwk::certificate::public_key,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use token_service::config::Settings;

use super::{CREDENTIALS, TOKEN, by_assertion, post};
use crate::{
    http::{
        MTLS_HOST, Request,
        keys::{ClientKey, key_set},
    },
    world::World,
};

/// Tells the process of such a test where the authorities of public certificates are.
const DIRECTORY: &str = "ACCORD_TEST_AUTHORITIES";

/// Runs a test of this file in a process of its own, which trusts other authorities than the machine's.
fn run_alone(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    let alone = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{test}"), "--ignored"])
        .env("SSL_CERT_FILE", directory.path().join("authorities.pem"))
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && output.contains("1 passed"), "{output}");
}

/// A partner's server of keys that this process trusts. `None` outside of such a process.
async fn key_server(keys: &str) -> Option<HttpsServer> {
    let directory = PathBuf::from(env::var_os(DIRECTORY)?);
    let server = HttpsServer::start("keys.partner.example", ok(keys), false).await;
    server.authority.write(&directory, "authorities.pem");
    Some(server)
}

fn url(server: &HttpsServer) -> String {
    format!("https://localhost:{}/jwks.json", server.address.port())
}

fn allows_loopback(settings: &mut Settings) {
    settings.jwks_allowed_networks = "127.0.0.1/32".into();
}

/// Lets the world's client, which has a grant, authenticate by its keys at this server.
async fn register(world: &World, server: &HttpsServer, change: impl FnOnce(&mut ClientProfile)) {
    world.first_tokens().await;
    let jwks_uri = url(server);
    world.change_client(|client| {
        client.jwks_uri = jwks_uri;
        client.json_web_key_set = String::new();
        change(client);
    });
    world.harness().cache.catch_up_or_log().await;
}

#[test]
fn the_keys_at_a_jwks_uri_are_followed() {
    run_alone("alone_keys_are_rotated");
}

#[ignore = "started by another test"]
#[tokio::test]
async fn alone_keys_are_rotated() {
    let [old, new, unknown] = ["old", "new", "unknown"].map(|kid| ClientKey::generate("ES256", kid));
    let Some(server) = key_server(&key_set(&[&old])).await else {
        return;
    };
    let method = |client: &mut ClientProfile| client.token_endpoint_auth_method = "private_key_jwt".into();
    let world = World::start_with(allows_loopback).await;
    register(&world, &server, method).await;
    let status_by = async |world: &World, key: &ClientKey| {
        let answer = post(world, &by_assertion(&key.assertion(world))).await;
        assert!(
            answer.status == 200 || answer.json()["error"] == "invalid_client",
            "{answer:?}"
        );
        answer.status
    };
    assert_eq!(status_by(&world, &old).await, 200);
    assert_eq!(status_by(&world, &old).await, 200);
    assert_eq!(server.connections(), 1, "fetched once");

    // The partner adds a key, and uses it within a minute.
    server.set_answer(ok(&key_set(&[&old, &new])));
    assert_eq!(status_by(&world, &new).await, 401);
    assert_eq!(status_by(&world, &old).await, 200);
    assert_eq!(server.connections(), 1, "at most once a minute");
    world.clock().advance(Duration::from_secs(60));
    assert_eq!(status_by(&world, &new).await, 200);
    assert_eq!(server.connections(), 2, "an unknown name fetches again");
    for _ in 0..3 {
        assert_eq!(status_by(&world, &unknown).await, 401);
    }
    assert_eq!(server.connections(), 2, "whatever names callers make up");
    assert_eq!(status_by(&world, &old).await, 200);

    // It removes the old one.
    server.set_answer(ok(&key_set(&[&new])));
    world.clock().advance(Duration::from_secs(15 * 60));
    assert_eq!(status_by(&world, &old).await, 401);
    assert_eq!(status_by(&world, &new).await, 200);
    assert_eq!(server.connections(), 3);

    // Where the address is not allowed, nothing connects to it.
    let world = World::start().await;
    register(&world, &server, method).await;
    assert_eq!(status_by(&world, &new).await, 401);
    assert_eq!(server.connections(), 3);
}

/// Failed elsewhere: a certificate that was renewed at the URL locked its client out.
#[test]
fn a_certificate_that_is_renewed_at_a_jwks_uri_authenticates() {
    run_alone("alone_a_certificate_is_renewed");
}

#[ignore = "started by another test"]
#[tokio::test]
async fn alone_a_certificate_is_renewed() {
    let [old, new] = [(); 2].map(|()| Pair::self_signed(&Subject::default(), KeyKind::P256));
    let set = |pair: &Pair| {
        let mut key = public_key(&pair.der()).unwrap();
        key["x5c"] = json!([STANDARD.encode(pair.der())]);
        json!({ "keys": [key] }).to_string()
    };
    let Some(server) = key_server(&set(&old)).await else {
        return;
    };
    let (world, _authorities) = World::start_with_tls(&["auth.example", MTLS_HOST], |settings| {
        settings.mtls_base_url = format!("https://{MTLS_HOST}");
        allows_loopback(settings);
    })
    .await;
    register(&world, &server, |client| {
        client.token_endpoint_auth_method = "self_signed_tls_client_auth".into();
    })
    .await;
    let status_by = async |pair: &Pair| {
        let fields = [CREDENTIALS, ("client_id", &*world.client_id)];
        let request = Request::post(TOKEN).certificate(pair).form(&fields);
        request.send(&world).await.status
    };
    assert_eq!(status_by(&old).await, 200);
    assert_eq!(status_by(&new).await, 401);
    server.set_answer(ok(&set(&new)));
    world.clock().advance(Duration::from_secs(60));
    assert_eq!(status_by(&new).await, 200);
    assert_eq!(status_by(&old).await, 401);
    assert_eq!(server.connections(), 2);
}
