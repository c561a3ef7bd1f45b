//! A small protected resource in place of the Cloud API. It accepts requests with a bearer token that `accord::verify`
//! accepts, and runs them as the designated user.

use std::time::Duration;

use accord::{
    clock::SharedClock,
    verify::{AccessTokenClaims, Checker, Protect, Tenant},
};
use anyhow::Context;
use axum::{Extension, Json, Router, routing::get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::dev_file::DevFile;

/// How long token-service may take to return its keys and revocations.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Serves `GET /matters` (scope `matters.read`) and `GET /contacts` (scope `contacts.read`), below the path of the Cloud
/// API URL, for the environment's only tenant until `shutdown`.
///
/// # Errors
/// If token-service does not return its keys and revocations in time.
pub async fn serve(
    listener: TcpListener,
    target: &DevFile,
    clock: SharedClock,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = std::io::Result<()>> + use<>> {
    let token_service = format!("http://{}", target.token_grpc);
    let checker = Checker::builder(&token_service, &target.workload_token)?
        .clock(clock)
        .start()?;
    tokio::time::timeout(READY_WITHIN, checker.ready())
        .await
        .context("the authority's keys and revocations")?;
    let tenant = Tenant {
        tenant_id: target.tenant_id.clone(),
        issuer: target.tenant_authority_url.clone(),
        audience: target.cloud_api_url.clone(),
    };
    let base = Url::parse(&tenant.audience)?
        .path()
        .trim_end_matches('/')
        .to_owned();
    let protect = |scope| Protect::tenant(checker.clone(), tenant.clone()).require_scope(scope);
    let router = Router::new()
        .route(
            &format!("{base}/matters"),
            get(matters).layer(protect("matters.read")),
        )
        .route(
            &format!("{base}/contacts"),
            get(contacts).layer(protect("contacts.read")),
        );
    Ok(axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .into_future())
}

async fn matters(Extension(caller): Extension<AccessTokenClaims>) -> Json<Value> {
    let matters = json!([{"matter": "2026-0117", "title": "Lease of the Harbour Street office"}]);
    respond(&caller, "matters", matters)
}

async fn contacts(Extension(caller): Extension<AccessTokenClaims>) -> Json<Value> {
    let contacts = json!([
        {"name": "Harbour Street Estates", "email": "office@harbour-street.example"},
        {"name": "M. Okafor", "email": "m.okafor@okafor.example"},
    ]);
    respond(&caller, "contacts", contacts)
}

/// Returns `data` under `name`, with the tenant and the user that the request runs as.
fn respond(caller: &AccessTokenClaims, name: &str, data: Value) -> Json<Value> {
    Json(json!({"tenant": caller.tenant_id, "run_as": caller.sub, name: data}))
}
