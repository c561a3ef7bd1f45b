//! The authorization endpoint (RFC 6749 §3.1): checks a partner's request, and shows the form where a Tenant Admin
//! signs in to decide it.
//!
//! Until the redirect URI is known to be the client's, an error is a page; from then on it goes to the client
//! at that URI (RFC 6749 §4.1.2.1).

use accord::text::id::{ClientId, TenantId};
use axum::{
    extract::RawQuery,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    context::PageContext,
    error::PageError,
    setups::{Undecided, sign_in_form},
};
use crate::{
    error::Error,
    http::{
        error::{HttpError, plain},
        form::Form,
        token::{resource, scopes},
    },
    model::setup::{AuthorizationRequest, is_code_challenge, is_state, response_url, state_of},
};

/// A link that was cut, or in which `&` became `&amp;`.
const INCOMPLETE: PageError = PageError::new(
    StatusCode::BAD_REQUEST,
    "This link does not work",
    "A part of it is missing. Nothing was shared. Go back to the integration that sent you here, and start again there.",
);
const UNKNOWN_CLIENT: PageError = PageError::new(
    StatusCode::BAD_REQUEST,
    "This link does not work",
    "The integration that sent you here is not known to this organisation. Nothing was shared with it.",
);
const UNKNOWN_REDIRECT_URI: PageError = PageError::new(
    StatusCode::BAD_REQUEST,
    "This link does not work",
    "The integration that sent you here asked for the answer at an address that is not registered for \
     it. Nothing was shared with it. Its provider has to correct the address.",
);

/// `GET /{tenant}/oauth2/authorize`: shows the form where a Tenant Admin signs in. Stores nothing before that.
pub(super) async fn authorize(
    mut page: PageContext,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    let query = query.unwrap_or_default();
    let form = Form::parse(query.as_bytes())?;
    let state = state_of(&query);
    if ["client_id", "redirect_uri"]
        .iter()
        .any(|name| form.get(name).is_none())
    {
        return Err(INCOMPLETE);
    }
    let client_id = once(&form, "client_id").and_then(|text| ClientId::parse(text).ok());
    let client_id = client_id.ok_or(UNKNOWN_CLIENT)?;
    let redirect_uri = once(&form, "redirect_uri").ok_or(UNKNOWN_REDIRECT_URI)?;
    let tenant_id = page.tenant.tenant_id.clone();
    let parties = page.call.tenant_and_client(&tenant_id, &client_id, redirect_uri);
    let parties = parties.await.map_err(|error| match error {
        Error::NotFound("client") => UNKNOWN_CLIENT,
        Error::Invalid(_) => UNKNOWN_REDIRECT_URI,
        error => error.into(),
    })?;
    let checked: Result<Undecided, HttpError> = async {
        let request = read(&form, &state, tenant_id, client_id)?;
        Ok(Undecided::request(&page, request, parties).await?)
    }
    .await;
    match checked {
        Ok(undecided) => Ok(page.html(StatusCode::OK, &sign_in_form(&page, &undecided, None))),
        Err(error) => {
            // The codes are those of RFC 6749 §4.1.2.1.
            let code = match error.code {
                "not_found" => "unauthorized_client",
                code => code,
            };
            let parameters = [("error", code), ("error_description", &plain(&error.description))];
            let url = response_url(redirect_uri, &state, &page.tenant.issuer, &parameters);
            Ok(see_other(&url?))
        }
    }
}

/// Returns the value of a parameter that occurs once.
fn once<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    form.get(name).filter(|_| !form.repeats(name))
}

/// Reads the rest of the request, or the error for the client.
fn read(
    form: &Form,
    state: &str,
    tenant_id: TenantId,
    client_id: ClientId,
) -> Result<AuthorizationRequest, HttpError> {
    let invalid = |description: &str| Err(HttpError::invalid_request(description));
    if form.repeats_other_than(&["resource"]) {
        return invalid("a parameter is repeated");
    }
    let rejected = |code, description: &str| Err(HttpError::new(StatusCode::BAD_REQUEST, code, description));
    if form.get("request").is_some() {
        return rejected("request_not_supported", "request is not supported");
    }
    if form.get("request_uri").is_some() {
        return rejected("request_uri_not_supported", "request_uri is not supported");
    }
    if !is_state(state) {
        return invalid("state must have at most 4096 bytes");
    }
    match form.get("response_type") {
        Some("code") => {}
        Some(_) => return rejected("unsupported_response_type", "response_type must be code"),
        None => return invalid("response_type is missing"),
    }
    if form.get("response_mode").is_some_and(|mode| mode != "query") {
        return invalid("response_mode must be query");
    }
    if form.get("code_challenge_method") != Some("S256") {
        return invalid("code_challenge_method must be S256");
    }
    if !is_code_challenge(form.text("code_challenge")) {
        return invalid("code_challenge must be 43 base64url characters");
    }
    Ok(AuthorizationRequest {
        tenant_id,
        client_id,
        redirect_uri: form.text("redirect_uri").to_owned(),
        scopes: scopes(form.text("scope"))?,
        state_parameter: state.to_owned(),
        code_challenge: form.text("code_challenge").to_owned(),
        resource: resource(form)?,
    })
}

/// Sends the browser on. The URL may hold what the client sent, percent-encoded.
fn see_other(url: &str) -> Response {
    let Ok(mut location) = HeaderValue::from_str(url) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    location.set_sensitive(true);
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}
