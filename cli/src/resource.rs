//! A small protected resource, as the Cloud API would be one: it takes a request if the bearer token
//! verifies against the authority's published keys, and runs it as the designated user.

use std::{sync::Arc, time::Duration};

use accord::{
    clock::{SharedClock, UnixMillis},
    verify::{AccessTokenClaims, Expected, KeySet, VerifyError},
};
use anyhow::Context;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::RwLock};
use tokio_util::sync::CancellationToken;
use url::Url;

/// What the resource expects of every token.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The tenant.
    pub tenant_id: String,
    /// The Tenant Authority URL.
    pub issuer: String,
    /// The tenant's Cloud API URL.
    pub audience: String,
    /// Where the authority's public keys are.
    pub jwks_url: String,
}

/// Keys are fetched anew for a token of an unknown key, and not more often than this.
const REFETCH_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Resource {
    tenant: Tenant,
    keys: RwLock<Keys>,
    clock: SharedClock,
}

#[derive(Debug)]
struct Keys {
    set: KeySet,
    fetched_at: UnixMillis,
}

/// Serves `GET /matters` (scope `matters.read`) and `GET /contacts` (scope `contacts.read`), below the
/// path of the Cloud API URL, for one tenant until `shutdown`.
///
/// # Errors
/// When the keys can't be fetched.
pub async fn serve(
    listener: TcpListener,
    tenant: Tenant,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>>> {
    let base = Url::parse(&tenant.audience)?
        .path()
        .trim_end_matches('/')
        .to_owned();
    let keys = RwLock::new(Keys {
        set: fetch(&tenant.jwks_url).await?,
        fetched_at: clock.now(),
    });
    let resource = Arc::new(Resource { tenant, keys, clock });
    let router = Router::new()
        .route(&format!("{base}/matters"), get(matters))
        .route(&format!("{base}/contacts"), get(contacts))
        .with_state(resource);
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .into_future())
}

async fn fetch(url: &str) -> anyhow::Result<KeySet> {
    let document = reqwest::get(url).await?.error_for_status()?.bytes().await?;
    KeySet::from_json(&document).with_context(|| format!("the key set at {url}"))
}

async fn matters(State(resource): State<Arc<Resource>>, headers: HeaderMap) -> Response {
    let matters = json!([{"matter": "2026-0117", "title": "Lease of the Harbour Street office"}]);
    resource
        .answer(&headers, "matters.read", "matters", matters)
        .await
}

async fn contacts(State(resource): State<Arc<Resource>>, headers: HeaderMap) -> Response {
    let contacts = json!([
        {"name": "Harbour Street Estates", "email": "office@harbour-street.example"},
        {"name": "M. Okafor", "email": "m.okafor@okafor.example"},
    ]);
    resource
        .answer(&headers, "contacts.read", "contacts", contacts)
        .await
}

/// A status and the challenge that goes with it (RFC 6750 §3).
type Refusal = (StatusCode, &'static str);

impl Resource {
    /// `data` under `name` for a token of this scope, with the user that the request runs as.
    async fn answer(&self, headers: &HeaderMap, scope: &str, name: &str, data: Value) -> Response {
        match self.authorize(headers, scope).await {
            Ok(claims) => {
                Json(json!({"tenant": claims.tenant_id, "run_as": claims.sub, name: data})).into_response()
            }
            Err((status, challenge)) => (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response(),
        }
    }

    /// The claims of the request's bearer token, or the refusal of RFC 6750 §3.1.
    async fn authorize(&self, headers: &HeaderMap, scope: &str) -> Result<AccessTokenClaims, Refusal> {
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
            .verify(token, &expected)
            .await
            .map_err(|_| (StatusCode::UNAUTHORIZED, "Bearer error=\"invalid_token\""))?;
        if claims.scope.split(' ').any(|granted| granted == scope) {
            Ok(claims)
        } else {
            Err((StatusCode::FORBIDDEN, "Bearer error=\"insufficient_scope\""))
        }
    }

    async fn verify(&self, token: &str, expected: &Expected<'_>) -> Result<AccessTokenClaims, VerifyError> {
        let now = self.clock.now();
        let (verified, fetched_at) = {
            let keys = self.keys.read().await;
            (keys.set.verify(token, expected, now.as_secs()), keys.fetched_at)
        };
        match verified {
            // The authority may have a new key since.
            Err(VerifyError::UnknownKey) if now.since(fetched_at) >= REFETCH_AFTER => {
                let set = fetch(&self.tenant.jwks_url)
                    .await
                    .map_err(|_| VerifyError::UnknownKey)?;
                let verified = set.verify(token, expected, now.as_secs());
                *self.keys.write().await = Keys { set, fetched_at: now };
                verified
            }
            verified => verified,
        }
    }
}
