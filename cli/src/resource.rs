//! A small protected resource, as the Cloud API would be one: it takes a request if the bearer token
//! verifies against the authority's published keys, and runs it as the designated user.

use std::sync::Arc;

use accord::{
    clock::SharedClock,
    verify::{AccessTokenClaims, Expected, KeySet},
};
use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What the resource expects of every token.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The tenant.
    pub tenant_id: String,
    /// The Tenant Authority URL.
    pub issuer: String,
    /// The tenant's Cloud API URL.
    pub audience: String,
}

#[derive(Debug)]
struct Resource {
    tenant: Tenant,
    keys: KeySet,
    clock: SharedClock,
}

/// Serves `GET /matters` (scope `matters.read`) for one tenant until `shutdown`, with the keys that
/// the authority publishes now.
///
/// # Errors
/// When the keys can't be fetched.
pub async fn serve(
    listener: TcpListener,
    tenant: Tenant,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>>> {
    let url = format!("{}/jwks.json", tenant.issuer);
    let document = reqwest::get(&url).await?.error_for_status()?.bytes().await?;
    let keys = KeySet::from_json(&document).with_context(|| format!("the key set at {url}"))?;
    let resource = Arc::new(Resource { tenant, keys, clock });
    let router = Router::new().route("/matters", get(matters)).with_state(resource);
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .into_future())
}

async fn matters(State(resource): State<Arc<Resource>>, headers: HeaderMap) -> Response {
    let claims = match resource.authorize(&headers, "matters.read") {
        Ok(claims) => claims,
        Err((status, challenge)) => {
            return (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
        }
    };
    Json(json!({
        "tenant": claims.tenant_id,
        "run_as": claims.sub,
        "matters": [{"matter": "2026-0117", "title": "Lease of the Harbour Street office"}],
    }))
    .into_response()
}

/// A status and the challenge that goes with it (RFC 6750 §3).
type Refusal = (StatusCode, &'static str);

impl Resource {
    /// The claims of the request's bearer token, or the refusal of RFC 6750 §3.1.
    fn authorize(&self, headers: &HeaderMap, scope: &str) -> Result<AccessTokenClaims, Refusal> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or((StatusCode::UNAUTHORIZED, "Bearer"))?;
        let expected = Expected {
            issuer: &self.tenant.issuer,
            audience: &self.tenant.audience,
            tenant_id: &self.tenant.tenant_id,
        };
        let claims = self
            .keys
            .verify(token, &expected, self.clock.now().as_secs())
            .map_err(|_| (StatusCode::UNAUTHORIZED, "Bearer error=\"invalid_token\""))?;
        if claims.scope.split(' ').any(|granted| granted == scope) {
            Ok(claims)
        } else {
            Err((StatusCode::FORBIDDEN, "Bearer error=\"insufficient_scope\""))
        }
    }
}
