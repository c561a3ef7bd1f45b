//! The limit of the token endpoint: an axum handler that reads the form, signs and answers.

use std::sync::Arc;

use anyhow::Context;
use axum::{
    Form, Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    routing::post,
    serve::ListenerExt,
};
use serde::{Deserialize, Serialize};

use super::{
    listen,
    signer::{EXPIRES_IN, Signer},
};
use crate::child;

/// In a child: signs.
#[tokio::main]
pub async fn sign() -> anyhow::Result<()> {
    let subject = child::hear()?.context("no configuration")?;
    let signer = Arc::new(Signer::new(subject)?);
    let routes = Router::new()
        .route("/{tenant}/oauth2/token", post(token))
        .with_state(signer);
    let listener = listen().await?.tap_io(|stream| {
        // Without this, small answers wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}

#[derive(Deserialize)]
struct Wanted {
    grant_type: String,
}

#[derive(Serialize)]
struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
    scope: String,
    grant_id: String,
}

async fn token(
    State(signer): State<Arc<Signer>>,
    Path(tenant_id): Path<String>,
    Form(form): Form<Wanted>,
) -> Result<([(HeaderName, &'static str); 2], Json<Issued>), StatusCode> {
    if form.grant_type != "client_credentials" {
        return Err(StatusCode::BAD_REQUEST);
    }
    let signed = signer.issue(tenant_id, None);
    let issued = Issued {
        access_token: signed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?,
        token_type: "Bearer",
        expires_in: EXPIRES_IN,
        scope: signer.scope().to_owned(),
        grant_id: signer.grant_id().to_owned(),
    };
    let no_store = [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
    Ok((no_store, Json(issued)))
}
