//! The layer around an axum router.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::{Extension, Router, body::Body, routing::get};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tower::ServiceExt;

use super::*;
use crate::verify::testing::{Authority, Signer, claims, tenant};

const REALM: &str = r#"Bearer realm="https://api.firm.example/v1""#;

async fn contacts(Extension(caller): Extension<AccessTokenClaims>, headers: HeaderMap) -> String {
    format!("{} {:?}", caller.sub, headers[header::AUTHORIZATION])
}

struct Stage {
    signer: Signer,
    authority: Authority,
    checker: Checker,
}

impl Stage {
    async fn set() -> Self {
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

async fn ask(protect: Protect, path: &str, authorization: &[&str]) -> Response<Body> {
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

async fn assert_refused(response: Response<Body>, status: StatusCode, challenge: &str) {
    let challenge = HeaderValue::from_str(challenge).unwrap();
    let challenges: Vec<_> = response
        .headers()
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .collect();
    assert_eq!((response.status(), challenges), (status, vec![&challenge]));
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(text(response).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_good_token_reaches_the_handler_with_its_claims() {
    let stage = Stage::set().await;
    let good = stage.signer.sign(&claims());
    for protect in [
        stage.protect(),
        stage.protect().require_scope("b").require_scope("a"),
    ] {
        let answer = ask(protect, "/firm/contacts", &[&format!("bearer {good}")]).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key(header::CACHE_CONTROL));
        assert_eq!(text(answer).await, "usr_1 Sensitive");
    }
}

#[tokio::test(start_paused = true)]
async fn each_refusal_says_why_as_rfc_6750_has_it() {
    let stage = Stage::set().await;
    let good = format!("Bearer {}", stage.signer.sign(&claims()));
    let get = async |authorization: &[&str]| ask(stage.protect(), "/firm/contacts", authorization).await;

    assert_refused(get(&[]).await, StatusCode::UNAUTHORIZED, REALM).await;
    assert_refused(get(&["Basic YTpi"]).await, StatusCode::UNAUTHORIZED, REALM).await;
    let invalid_request = format!("{REALM}, error=\"invalid_request\"");
    for malformed in [
        &["Bearer"][..],
        &["Bearer a b"],
        &[&good, &good],
        &["Basic YTpi", &good],
    ] {
        assert_refused(get(malformed).await, StatusCode::BAD_REQUEST, &invalid_request).await;
    }
    let invalid_token = format!("{REALM}, error=\"invalid_token\"");
    let foreign = stage.signer.sign(&AccessTokenClaims {
        tenant_id: "firm2".into(),
        ..claims()
    });
    for bad in ["Bearer abc", &format!("Bearer {foreign}")] {
        assert_refused(get(&[bad]).await, StatusCode::UNAUTHORIZED, &invalid_token).await;
    }

    let needs = stage.protect().require_scope("a").require_scope("contacts.read");
    let lacking = ask(needs, "/firm/contacts", &[&good]).await;
    let insufficient = format!("{REALM}, error=\"insufficient_scope\", scope=\"a contacts.read\"");
    assert_refused(lacking, StatusCode::FORBIDDEN, &insufficient).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_known_is_503_for_a_good_token_only() {
    let stage = Stage::set().await;
    stage.authority.set_down(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let good = format!("Bearer {}", stage.signer.sign(&claims()));
    let answer = ask(stage.protect(), "/firm/contacts", &[&good]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()[header::RETRY_AFTER], "1");
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    assert!(!answer.headers().contains_key(header::WWW_AUTHENTICATE));
    let bad = ask(stage.protect(), "/firm/contacts", &["Bearer abc"]).await;
    assert_eq!(bad.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn several_tenants_are_told_apart_by_the_request() {
    let stage = Stage::set().await;
    let tenants = [
        tenant(),
        Tenant {
            tenant_id: "other".into(),
            ..tenant()
        },
    ];
    let tenants = tenants.map(Arc::new);
    let protect = Protect::tenants(stage.checker.clone(), move |parts| {
        let id = parts.uri.path().split('/').nth(1)?;
        tenants.iter().find(|tenant| tenant.tenant_id == id).cloned()
    });
    let good = format!("Bearer {}", stage.signer.sign(&claims()));
    for (path, status) in [
        ("/firm/contacts", StatusCode::OK),
        ("/other/contacts", StatusCode::UNAUTHORIZED),
        ("/nobody/contacts", StatusCode::UNAUTHORIZED),
    ] {
        let answer = ask(protect.clone(), path, &[&good]).await;
        assert_eq!(answer.status(), status, "{path}");
    }
    let without = ask(protect, "/nobody/contacts", &[]).await;
    assert_refused(without, StatusCode::UNAUTHORIZED, r#"Bearer realm="Cloud API""#).await;
}

#[tokio::test(start_paused = true)]
async fn debug_shows_what_is_required_and_no_token() {
    let stage = Stage::set().await;
    let protect = stage.protect().require_scope("a");
    let shown = format!("{protect:?} {:?}", protect.layer(()));
    assert!(shown.contains("\"a\"") && !shown.contains("acw_"), "{shown}");
}
