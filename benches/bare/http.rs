//! The token endpoint in axum: a handler that reads the form, signs and answers.

use std::sync::Arc;

use anyhow::Result;
use axum::{
    Form, Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    routing::post,
    serve::ListenerExt,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::{EXPIRES_IN, SCOPE, Signer};

pub async fn serve(listener: TcpListener, signer: Arc<Signer>) -> Result<()> {
    let routes = Router::new()
        .route("/{tenant}/oauth2/token", post(token))
        .with_state(signer);
    let listener = listener.tap_io(|stream| {
        // Without this, small answers wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}

#[derive(Deserialize)]
struct TokenForm {
    grant_type: String,
}

#[derive(Serialize)]
struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
    scope: String,
    grant_id: String,
}

async fn token(
    State(signer): State<Arc<Signer>>,
    Path(tenant_id): Path<String>,
    Form(form): Form<TokenForm>,
) -> Result<([(HeaderName, &'static str); 2], Json<TokenResponse>), StatusCode> {
    if form.grant_type != "client_credentials" {
        return Err(StatusCode::BAD_REQUEST);
    }
    let signed = signer.issue(tenant_id, None, None);
    let issued = TokenResponse {
        access_token: signed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?,
        token_type: "Bearer",
        expires_in: EXPIRES_IN,
        scope: SCOPE.to_owned(),
        grant_id: signer.grant_id.clone(),
    };
    let no_store = [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
    Ok((no_store, Json(issued)))
}
