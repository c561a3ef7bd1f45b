//! The layer around an axum router.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::{Extension, Router, body::Body, routing::get};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tower::ServiceExt;

use super::*;
use crate::verify::testing::{Authority, Signer, claims, tenant};

const REALM: &str = r#"Bearer realm="https://api.firm.example/v1", resource_metadata="https://api.firm.example/.well-known/oauth-protected-resource/v1""#;

async fn contacts(Extension(caller): Extension<AccessTokenClaims>, headers: HeaderMap) -> String {
    format!("{} {:?}", caller.sub, headers[header::AUTHORIZATION])
}

struct Setup {
    signer: Signer,
    authority: Authority,
    checker: Checker,
}

impl Setup {
    async fn new() -> Self {
        let signer = Signer::new("k1");
        let authority = Authority::new(&signer);
        let checker = authority.checker().start().unwrap();
        checker.ready().await;
        Self {
            signer,
            authority,
            checker,
        }
    }

    fn protect(&self) -> Protect {
        Protect::tenant(self.checker.clone(), tenant())
    }
}

async fn call(protect: Protect, path: &str, authorization: &[&str]) -> Response<Body> {
    let app = Router::new()
        .route("/{tenant}/contacts", get(contacts))
        .layer(protect);
    let mut request = Request::get(path);
    for value in authorization {
        request = request.header(header::AUTHORIZATION, *value);
    }
    app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn assert_rejected(response: Response<Body>, status: StatusCode, challenge: &str) {
    let mut expected = vec![HeaderValue::from_str(challenge).unwrap()];
    if !challenge.contains("error=") {
        // Without a token, either scheme would be right.
        let dpop = challenge.replacen("Bearer", "DPoP", 1);
        expected.push(HeaderValue::from_str(&format!("{dpop}, algs=\"ES256 EdDSA Ed25519 PS256\"")).unwrap());
    }
    let challenges: Vec<_> = response
        .headers()
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .cloned()
        .collect();
    assert_eq!((response.status(), challenges), (status, expected));
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(text(response).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_valid_token_reaches_the_handler_with_its_claims() {
    let setup = Setup::new().await;
    let good = setup.signer.sign(&claims());
    for protect in [
        setup.protect(),
        setup.protect().require_scope("b").require_scope("a"),
    ] {
        let response = call(protect, "/firm/contacts", &[&format!("bearer {good}")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(!response.headers().contains_key(header::CACHE_CONTROL));
        assert_eq!(text(response).await, "usr_1 Sensitive");
    }
}

#[tokio::test(start_paused = true)]
async fn rejections_are_those_of_rfc_6750() {
    let setup = Setup::new().await;
    let good = format!("Bearer {}", setup.signer.sign(&claims()));
    let get = async |authorization: &[&str]| call(setup.protect(), "/firm/contacts", authorization).await;

    assert_rejected(get(&[]).await, StatusCode::UNAUTHORIZED, REALM).await;
    assert_rejected(get(&["Basic YTpi"]).await, StatusCode::UNAUTHORIZED, REALM).await;
    let invalid_request = format!("{REALM}, error=\"invalid_request\"");
    for malformed in [
        &["Bearer"][..],
        &["Bearer a b"],
        &[&good, &good],
        &["Basic YTpi", &good],
    ] {
        assert_rejected(get(malformed).await, StatusCode::BAD_REQUEST, &invalid_request).await;
    }
    let invalid_token = format!("{REALM}, error=\"invalid_token\"");
    let foreign = setup.signer.sign(&AccessTokenClaims {
        tenant_id: "firm2".into(),
        ..claims()
    });
    for bad in ["Bearer abc", &format!("Bearer {foreign}")] {
        assert_rejected(get(&[bad]).await, StatusCode::UNAUTHORIZED, &invalid_token).await;
    }

    let protect = setup.protect().require_scope("a").require_scope("contacts.read");
    let lacking = call(protect, "/firm/contacts", &[&good]).await;
    let insufficient = format!("{REALM}, error=\"insufficient_scope\", scope=\"a contacts.read\"");
    assert_rejected(lacking, StatusCode::FORBIDDEN, &insufficient).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_only_a_well_formed_token_gets_503() {
    let setup = Setup::new().await;
    setup.authority.set_down(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let good = format!("Bearer {}", setup.signer.sign(&claims()));
    let response = call(setup.protect(), "/firm/contacts", &[&good]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE));
    let bad = call(setup.protect(), "/firm/contacts", &["Bearer abc"]).await;
    assert_eq!(bad.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn the_request_selects_the_tenant() {
    let setup = Setup::new().await;
    let tenants = [
        tenant(),
        Tenant {
            tenant_id: "other".into(),
            ..tenant()
        },
    ];
    let tenants = tenants.map(Arc::new);
    let protect = Protect::tenants(setup.checker.clone(), move |parts| {
        let id = parts.uri.path().split('/').nth(1)?;
        tenants.iter().find(|tenant| tenant.tenant_id == id).cloned()
    });
    let good = format!("Bearer {}", setup.signer.sign(&claims()));
    for (path, status) in [
        ("/firm/contacts", StatusCode::OK),
        ("/other/contacts", StatusCode::UNAUTHORIZED),
        ("/nobody/contacts", StatusCode::UNAUTHORIZED),
    ] {
        let response = call(protect.clone(), path, &[&good]).await;
        assert_eq!(response.status(), status, "{path}");
    }
    let without = call(protect, "/nobody/contacts", &[]).await;
    assert_rejected(without, StatusCode::UNAUTHORIZED, r#"Bearer realm="Cloud API""#).await;
}

#[tokio::test(start_paused = true)]
async fn the_metadata_of_the_resource_needs_no_token() {
    let setup = Setup::new().await;
    let protect = setup.protect().require_scope("a").require_scope("b");
    for path in [
        "/.well-known/oauth-protected-resource/v1",
        "/.well-known/oauth-protected-resource",
    ] {
        let response = call(protect.clone(), path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        let document: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
        let expected = serde_json::json!({
            "resource": tenant().audience,
            "authorization_servers": [tenant().issuer],
            "bearer_methods_supported": ["header"],
            "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "Ed25519", "PS256"],
            "scopes_supported": ["a", "b"],
        });
        assert_eq!(document, expected);
    }
    for path in [
        "/.well-known/oauth-protected-resource/v2",
        "/.well-known/oauth-protected-resource/v1/",
        "/.well-known/oauth-protected-resource/",
    ] {
        let response = call(protect.clone(), path, &[]).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
    for path in [
        "/.well-known/oauth-protected-resources",
        "/v1/.well-known/oauth-protected-resource",
    ] {
        let response = call(protect.clone(), path, &[]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    for (method, status) in [("OPTIONS", 204), ("HEAD", 200), ("POST", 405), ("DELETE", 405)] {
        let app = Router::new().route("/x", get(|| async {})).layer(protect.clone());
        let request = Request::builder()
            .method(method)
            .uri("/.well-known/oauth-protected-resource/v1")
            .header("access-control-request-headers", "mcp-protocol-version");
        let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{method}");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_HEADERS], "*");
    }
}

#[tokio::test(start_paused = true)]
async fn the_path_of_the_metadata_selects_the_tenant() {
    let setup = Setup::new().await;
    let tenants = ["firm", "other"].map(|id| {
        Arc::new(Tenant {
            tenant_id: id.into(),
            issuer: format!("https://accord.example/{id}"),
            audience: format!("https://api.example/{id}"),
        })
    });
    let protect = Protect::tenants(setup.checker.clone(), move |parts| {
        let id = parts.uri.path().split('/').nth(1)?;
        tenants.iter().find(|tenant| tenant.tenant_id == id).cloned()
    });
    let response = call(
        protect.clone(),
        "/.well-known/oauth-protected-resource/other",
        &[],
    )
    .await;
    let document: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(
        document["authorization_servers"][0],
        "https://accord.example/other"
    );
    let without_tenant = call(protect.clone(), "/.well-known/oauth-protected-resource", &[]).await;
    assert_eq!(without_tenant.status(), StatusCode::NOT_FOUND);
    let unauthorized = call(protect, "/other/contacts", &[]).await;
    let challenge = unauthorized.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
    let url = "https://api.example/.well-known/oauth-protected-resource/other";
    assert!(
        challenge.contains(&format!("resource_metadata=\"{url}\"")),
        "{challenge}"
    );
}

#[tokio::test(start_paused = true)]
async fn debug_shows_the_required_scopes_and_no_token() {
    let setup = Setup::new().await;
    let protect = setup.protect().require_scope("a");
    let shown = format!("{protect:?} {:?}", protect.layer(()));
    assert!(shown.contains("\"a\"") && !shown.contains("acw_"), "{shown}");
}
