//! The endpoint for pushed authorization requests (RFC 9126 §2).

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    HttpState,
    authorization_request::parameters,
    client::{ClientParts, credentials},
    discovery::Tenant,
    error::{HttpError, NO_STORE, add_dpop_nonce},
    form::Form,
    token::{dpop_proof, required},
};
use crate::{model::setup::request::state_of, oauth::pushed_request};

/// The response of RFC 9126 §2.2. No `Debug`: whoever has the URI can open the page in the client's name.
#[derive(Serialize)]
struct PushResponse<'a> {
    request_uri: &'a str,
    expires_in: u32,
}

/// `POST /{tenant}/oauth2/par`.
pub(super) async fn push(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    parts: ClientParts,
    request: Request,
) -> Result<Response, HttpError> {
    let body = Form::body(request).await?;
    let form = Form::of_endpoint(&body)?;
    // RFC 9126 §2.1.
    if form.get("request_uri").is_some() {
        return Err(HttpError::invalid_request("request_uri can't be pushed"));
    }
    required(&form, "redirect_uri")?;
    let request = pushed_request::Request {
        tenant_id,
        credentials: credentials(&parts, &form)?,
        parameters: parameters(&form, state_of(&body))?,
        dpop_proof: dpop_proof(&parts.headers)?,
    };
    let pushed = pushed_request::push(&http.oauth, request).await;
    // The client may not request the consent of this tenant (RFC 6749 §4.1.2.1).
    let pushed = pushed.map_err(|error| HttpError::from(error).for_client())?;
    let response = PushResponse {
        request_uri: &pushed.request_uri,
        expires_in: pushed.expires_in,
    };
    let mut response = (StatusCode::CREATED, NO_STORE, Json(response)).into_response();
    add_dpop_nonce(response.headers_mut(), pushed.dpop_nonce.as_deref());
    Ok(response)
}
