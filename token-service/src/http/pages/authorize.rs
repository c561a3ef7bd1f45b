//! The authorization endpoint (RFC 6749 §3.1): takes a partner's request and sends the browser to the page
//! where a Tenant Admin decides.
//!
//! Until the redirect URI is known to be the client's, an error is a page; from then on it goes to the client
//! at that URI (RFC 6749 §4.1.2.1).

use std::sync::Arc;

use accord::{
    store::Creation,
    text::id::{ClientId, TenantId},
};
use axum::{
    extract::{Path, RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use zeroize::Zeroizing;

use super::{context::origin, error::PageError};
use crate::{
    consent::{Facts, setup},
    error::Error,
    http::{
        HttpState,
        discovery::tenant_id,
        error::{HttpError, plain},
        form::Form,
        token::{resource, scopes},
    },
    model::setup::{AuthorizationRequest, answer_url, is_code_challenge, is_state},
};

/// `GET /{tenant}/oauth2/authorize`.
pub(super) async fn authorize(
    State(http): State<Arc<HttpState>>,
    Path(tenant): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    let form = Form::parse(query.unwrap_or_default().as_bytes())?;
    let (tenant_id, client_id, redirect_uri) = parties(&tenant, &form)?;
    let consents = &http.consents;
    let mut facts = Facts::new(&consents.registry);
    let known = setup::parties(&mut facts, &tenant_id, &client_id, redirect_uri).await;
    let (tenant, _) = known.map_err(unknown_party)?;
    let state = form.text("state");
    let state = if is_state(state) && !form.repeats("state") {
        state
    } else {
        ""
    };
    let request = read(&form, tenant_id, client_id);
    let started = match request {
        Ok(request) => {
            let creation = Creation {
                origin: origin(),
                method: "authorize",
                request_id: None,
                content: Zeroizing::default(),
            };
            let started = setup::start(consents, &mut facts, &creation, request).await;
            started.map_err(|error| refusal(error.into()))
        }
        Err(error) => Err(error),
    };
    match started {
        Ok(setup) => Ok(see_other(&format!(
            "/{}/setups/{}",
            setup.tenant_id, setup.setup_id
        ))),
        Err((code, description)) => {
            let parameters = [("error", code), ("error_description", &*description)];
            let url = answer_url(redirect_uri, state, &tenant.issuer, &parameters)?;
            Ok(see_other(&url))
        }
    }
}

/// Reads the tenant, the client and the redirect URI. Each may occur once.
fn parties<'a>(tenant: &str, form: &'a Form) -> Result<(TenantId, ClientId, &'a str), PageError> {
    let tenant_id = tenant_id(tenant)?;
    let client_id = form
        .get("client_id")
        .filter(|_| !form.repeats("client_id"))
        .and_then(|text| ClientId::parse(text).ok());
    let redirect_uri = form.get("redirect_uri").filter(|_| !form.repeats("redirect_uri"));
    match (client_id, redirect_uri) {
        (Some(client_id), Some(redirect_uri)) => Ok((tenant_id, client_id, redirect_uri)),
        (None, _) => Err(unknown_client()),
        (_, None) => Err(unknown_redirect_uri()),
    }
}

/// The page for an error that must not go to the redirect URI, which may be a stranger's.
fn unknown_party(error: Error) -> PageError {
    match error {
        Error::NotFound("client") => unknown_client(),
        Error::Invalid(_) => unknown_redirect_uri(),
        error => error.into(),
    }
}

fn unknown_client() -> PageError {
    PageError::new(
        StatusCode::BAD_REQUEST,
        "This link does not work",
        "The integration that sent you here is not known to this organisation. Nothing was shared with it.",
    )
}

fn unknown_redirect_uri() -> PageError {
    PageError::new(
        StatusCode::BAD_REQUEST,
        "This link does not work",
        "The integration that sent you here asked for the answer at an address that is not registered for \
         it. Nothing was shared with it. Its provider has to correct the address.",
    )
}

/// Reads the rest of the request, or the error code and description for the client.
fn read(
    form: &Form,
    tenant_id: TenantId,
    client_id: ClientId,
) -> Result<AuthorizationRequest, (&'static str, String)> {
    let invalid = |description: &str| Err(("invalid_request", description.to_owned()));
    if form.repeats_other_than(&["resource"]) {
        return invalid("a parameter is repeated");
    }
    for (name, code) in [
        ("request", "request_not_supported"),
        ("request_uri", "request_uri_not_supported"),
    ] {
        if form.get(name).is_some() {
            return Err((code, format!("{name} is not supported")));
        }
    }
    if !is_state(form.text("state")) {
        return invalid("state must have at most 1024 characters, all of them printable ASCII");
    }
    match form.get("response_type") {
        Some("code") => {}
        Some(_) => {
            return Err((
                "unsupported_response_type",
                "response_type must be code".to_owned(),
            ));
        }
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
    let rejected = |error: Error| refusal(error.into());
    Ok(AuthorizationRequest {
        tenant_id,
        client_id,
        redirect_uri: form.text("redirect_uri").to_owned(),
        scopes: scopes(form.text("scope")).map_err(rejected)?,
        state_parameter: form.text("state").to_owned(),
        code_challenge: form.text("code_challenge").to_owned(),
        resource: resource(form).map_err(rejected)?,
    })
}

/// An error of the authorization endpoint, with the codes of RFC 6749 §4.1.2.1.
fn refusal(error: HttpError) -> (&'static str, String) {
    let code = match error.code {
        "not_found" => "unauthorized_client",
        code => code,
    };
    (code, plain(&error.description))
}

/// Sends the browser on. The URL may hold what the client sent, percent-encoded.
fn see_other(url: &str) -> Response {
    let Ok(mut location) = HeaderValue::from_str(url) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    location.set_sensitive(true);
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
