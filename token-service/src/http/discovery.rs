//! Public documents: keys, metadata, health.

use std::sync::{Arc, atomic::Ordering};

use accord::text::id::TenantId;
use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{HttpState, error::HttpError};
use crate::{error::Error, model::signing_key::ALGORITHM, oauth::metadata};

/// How long caches may store public documents. A key is published before its first use, and a verifier fetches
/// again for an unknown key.
const CACHE_CONTROL: &str = "public, max-age=300";

/// `GET /healthz`: 200 while this server can serve, else 503.
pub(super) async fn healthz(State(http): State<Arc<HttpState>>) -> Response {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    if http.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, no_store, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, no_store, "not ready\n").into_response()
    }
}

/// `GET /{tenant}/jwks.json`: the public keys (RFC 7517 §5).
pub(super) async fn jwks(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
) -> Result<Response, HttpError> {
    http.oauth.cache.tenant(&tenant_id).await?;
    let keys = http.oauth.cache.keys().await?.value;
    let keys: Vec<_> = keys
        .published_at(http.oauth.store.now())
        .map(|key| {
            json!({"kty": "OKP", "crv": "Ed25519", "x": key.x(), "kid": key.kid, "use": "sig", "alg": ALGORITHM})
        })
        .collect();
    Ok(public(Json(json!({ "keys": keys }))))
}

/// The metadata document, the same at each of its paths (RFC 8414 §3, and the suffixed forms that many clients
/// try first).
pub(super) async fn metadata(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
) -> Result<Response, HttpError> {
    let document = metadata::of_tenant(&http.oauth, &tenant_id).await?;
    Ok(public(Json(document)))
}

/// The tenant of the path; 404 for anything that is no tenant id.
pub(super) struct Tenant(pub(super) TenantId);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(tenant_id(&text)?)),
            Err(_) => Err(Error::NotFound("tenant").into()),
        }
    }
}

pub(super) fn tenant_id(text: &str) -> Result<TenantId, Error> {
    TenantId::parse(text).map_err(|_| Error::NotFound("tenant"))
}

fn public(document: impl IntoResponse) -> Response {
    let headers = [
        (header::CACHE_CONTROL, CACHE_CONTROL),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, document).into_response()
}
