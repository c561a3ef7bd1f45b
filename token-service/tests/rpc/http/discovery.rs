//! Public documents: the same wherever they are found, for any site's script to read; and nothing else is.

use accord::token::v1 as pb;
use serde_json::Value;

use super::{Answer, Request, authorize::Query, browser::Browser};
use crate::{
    harness::{assert_violations, ok},
    world::World,
};

const METADATA: [&str; 3] = [
    "/.well-known/oauth-authorization-server/{}",
    "/{}/.well-known/oauth-authorization-server",
    "/{}/.well-known/openid-configuration",
];
const JWKS: &str = "/{}/jwks.json";

async fn get(world: &World, path: &str, tenant: &str) -> Answer {
    Request::get(path.replace("{}", tenant)).send(world).await
}

/// Asserts a public document that caches may store.
#[track_caller]
fn assert_public(answer: &Answer) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("set-cookie"), None);
}

/// Asserts an error that no cache stores, and that scripts of every site can read.
#[track_caller]
fn assert_public_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.text("error").as_str()), (status, code));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn the_metadata_is_one_document_in_three_places() {
    let world = World::start().await;
    let mut documents = Vec::new();
    for path in METADATA {
        let answer = get(&world, path, "acme").await;
        assert_public(&answer);
        documents.push(answer.body);
    }
    documents.dedup();
    assert_eq!(documents.len(), 1);
    let document: Value = serde_json::from_str(&documents[0]).unwrap();
    assert_eq!(document["issuer"], world.issuer);
    assert_eq!(
        document["code_challenge_methods_supported"],
        serde_json::json!(["S256"])
    );
    assert_eq!(document["authorization_response_iss_parameter_supported"], true);
    assert_eq!(document["request_uri_parameter_supported"], false);
    // Strict parsers of OpenID Discovery require these, and RS256 among the algorithms.
    for (name, values) in [
        ("response_types_supported", "code"),
        ("subject_types_supported", "public"),
        ("id_token_signing_alg_values_supported", "RS256"),
        ("scopes_supported", "offline_access"),
    ] {
        assert_eq!(document[name], serde_json::json!([values]), "{name}");
    }
    for endpoint in ["token", "introspection", "revocation"] {
        let algorithms = &document[format!("{endpoint}_endpoint_auth_signing_alg_values_supported")];
        let expected = serde_json::json!(["ES256", "EdDSA", "Ed25519", "PS256", "RS256"]);
        assert_eq!(*algorithms, expected);
    }
    // Whatever it names lies under the issuer, and is there.
    for (name, value) in document.as_object().unwrap() {
        if let Some(path) = value.as_str().filter(|_| name != "issuer") {
            let path = path.strip_prefix(&world.issuer).unwrap();
            let answer = Request::get(format!("/acme{path}")).send(&world).await;
            assert_ne!(answer.status, 404, "{name}");
        }
    }
    let other = get(&world, METADATA[0], "globex").await.json();
    assert_eq!(other["issuer"], "https://auth.example/globex");
    assert!(!other.to_string().contains("acme"));
}

#[tokio::test]
async fn the_keys_are_public_ones() {
    let world = World::start().await;
    world.first_tokens().await;
    let answer = get(&world, JWKS, "acme").await;
    assert_public(&answer);
    let keys = answer.json()["keys"].clone();
    assert!(!keys.as_array().unwrap().is_empty());
    let members = |key: &Value| {
        let mut members: Vec<_> = key.as_object().unwrap().keys().cloned().collect();
        members.sort();
        members.join(" ")
    };
    for key in keys.as_array().unwrap() {
        assert_eq!(members(key), "alg crv kid kty use x", "nothing private");
    }
    // A key of another algorithm waits for its first use.
    let mut operator = world.signing_key_service();
    for (algorithm, expected) in [
        ("ES256", "alg crv kid kty use x y"),
        ("RS256", "alg e kid kty n use"),
        ("PS256", "alg e kid kty n use"),
        ("Ed25519", "alg crv kid kty use x"),
    ] {
        let request = pb::RotateSigningKeyRequest {
            algorithm: algorithm.into(),
            ..Default::default()
        };
        let waits = ok(operator.rotate_signing_key(request).await)
            .signing_key
            .unwrap();
        let keys = get(&world, JWKS, "acme").await.json()["keys"].clone();
        let key = keys
            .as_array()
            .unwrap()
            .iter()
            .find(|key| key["kid"] == *waits.kid);
        let key = key.unwrap_or_else(|| panic!("{algorithm} in {keys}"));
        assert_eq!(members(key), expected, "{algorithm}");
        assert_eq!(
            (waits.state(), &key["alg"]),
            (pb::SigningKeyState::Next, &waits.algorithm.into())
        );
    }
    let unknown = pb::RotateSigningKeyRequest {
        algorithm: "HS256".into(),
        ..Default::default()
    };
    assert_violations(operator.rotate_signing_key(unknown).await, &["algorithm"]);
    let metadata = get(&world, METADATA[0], "acme").await.json();
    let answering = &metadata["introspection_signing_alg_values_supported"];
    assert_eq!(
        *answering,
        serde_json::json!(["ES256", "EdDSA", "PS256", "RS256"])
    );
}

#[tokio::test]
async fn a_tenant_that_is_unknown_has_no_documents() {
    let world = World::start().await;
    for path in METADATA.into_iter().chain([JWKS]) {
        for tenant in [
            "nobody-known",
            "ACME",
            "a",
            "acme%00",
            "%ff",
            "%2e%2e",
            "%3Cscript%3E",
        ] {
            let answer = get(&world, path, tenant).await;
            assert_public_error(&answer, 404, "not_found");
            assert!(!answer.body.contains("<script"));
        }
    }
    // A suspended one keeps its own: its old tokens' signatures are still to be checked.
    world.suspend("tenant", true);
    for path in METADATA.into_iter().chain([JWKS]) {
        assert_public(&get(&world, path, "acme").await);
    }
    world.registry().set_unavailable(true);
    for path in METADATA.into_iter().chain([JWKS]) {
        let answer = get(&world, path, "globex").await;
        assert_public_error(&answer, 503, "temporarily_unavailable");
    }
}

#[tokio::test]
async fn nothing_but_public_documents_is_open_to_other_sites_scripts() {
    let world = World::start().await;
    let query = Query::of(&world).encoded();
    let setup = Browser::new(&world).open_setup().await;
    let setup = &*setup;
    let claim = format!("/claim/{}", world.registry().add_delivery(Default::default()));
    let enrolment = format!("/acme/enrol/{}", world.registry().add_enrolment(&world.admin_id));
    let authorize = format!("/acme/oauth2/authorize?{query}");
    let public: Vec<_> = METADATA
        .into_iter()
        .chain([JWKS])
        .map(|path| path.replace("{}", "acme"))
        .chain(["/openapi.json".into()])
        .collect();
    let closed = [
        "/acme/oauth2/token",
        "/acme/oauth2/introspect",
        "/acme/oauth2/revoke",
        &authorize,
        setup,
        "/acme/sign-in",
        "/acme/sign-out",
        "/acme/integrations",
        &claim,
        &enrolment,
        "/healthz",
        "/accord.css",
        "/nothing/at/all",
    ];
    for method in ["GET", "HEAD", "POST", "OPTIONS"] {
        for path in closed {
            let answer = asked_by_a_script(&world, method, path).await;
            let allowed = answer
                .headers
                .keys()
                .find(|name| name.as_str().starts_with("access-control-"));
            assert_eq!(allowed, None, "{method} {path}");
        }
    }
    for path in &public {
        let answer = asked_by_a_script(&world, "GET", path).await;
        assert_public(&answer);
        let preflight = asked_by_a_script(&world, "OPTIONS", path).await;
        assert_eq!(
            (preflight.status, preflight.header("allow")),
            (204, Some("GET,HEAD"))
        );
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET, HEAD"),
            ("access-control-allow-headers", "*"),
            ("access-control-max-age", "86400"),
        ] {
            assert_eq!(preflight.header(name), Some(value), "{path}");
        }
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
        for method in ["POST", "PUT", "DELETE"] {
            let answer = asked_by_a_script(&world, method, path).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        }
    }
}

/// The response that a script on another site's page gets.
async fn asked_by_a_script(world: &World, method: &str, path: &str) -> Answer {
    Request::new(method, path)
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization")
        .send(world)
        .await
}
