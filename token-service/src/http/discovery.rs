//! Public documents: keys, metadata, the description of the OAuth endpoints, health.

use std::sync::Arc;

use accord::text::id::TenantId;
use axum::{
    Json,
    extract::{FromRequestParts, Path, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{HttpState, error::HttpError};
use crate::{
    error::{Error, Result},
    oauth::metadata,
};

/// The `Cache-Control` of public documents. A signing key is published for longer than this before its first use, so a
/// cached JWKS contains every key in use.
const CACHE_CONTROL: &str = "public, max-age=300";

/// `GET /healthz`: 200 while this server can serve, else 503.
pub(super) async fn healthz(State(http): State<Arc<HttpState>>) -> Response {
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    if http.readiness.problem().is_none() {
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
    Ok(public(Json(metadata::json_web_key_set(&http.oauth).await?)))
}

/// The metadata: the same document at the path of RFC 8414 §3, and at the suffixed paths that many clients try first.
pub(super) async fn metadata(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
) -> Result<Response, HttpError> {
    Ok(public(Json(metadata::of_tenant(&http.oauth, &tenant_id).await?)))
}

/// `GET /openapi.json`: one description for all tenants (OpenAPI 3.1), written by hand and tested against the
/// endpoints. The content type is `application/json`: `application/openapi+json` is not registered yet
/// (draft-ietf-httpapi-rest-api-mediatypes), and browsers download unknown types instead of showing them.
pub(super) async fn openapi() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, CACHE_CONTROL),
    ];
    (headers, include_str!("../../openapi.json")).into_response()
}

/// The tenant of the path. Rejects a malformed tenant id with 404; does not check that the tenant exists.
pub(super) struct Tenant(pub(super) TenantId);

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, HttpError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|_| Error::NotFound("tenant"))?;
        Ok(Self(tenant_id(&text)?))
    }
}

pub(super) fn tenant_id(text: &str) -> Result<TenantId> {
    TenantId::parse(text).map_err(|_| Error::NotFound("tenant"))
}

fn public(document: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, CACHE_CONTROL)], document).into_response()
}

/// Adds CORS headers: scripts of every site may read the public documents and their errors, and may send any request
/// header except `Authorization` (Fetch Standard §3.2).
pub(super) async fn share_with_scripts(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        let headers = [
            (header::ALLOW, "GET,HEAD"),
            (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
            (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        ];
        (StatusCode::NO_CONTENT, headers).into_response()
    } else {
        next.run(request).await
    };
    let any = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

#[cfg(test)]
mod tests {
    use super::CACHE_CONTROL;
    use crate::model::signing_key::JWKS_MAX_AGE;

    #[test]
    fn a_new_key_waits_as_long_as_caches_keep_the_jwks() {
        assert_eq!(
            CACHE_CONTROL,
            format!("public, max-age={}", JWKS_MAX_AGE.as_secs())
        );
    }
}
