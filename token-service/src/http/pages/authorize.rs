//! The authorization endpoint (RFC 6749 §3.1): checks a partner's request, and shows the form where a Tenant Admin
//! signs in to decide it.
//!
//! Until the redirect URI is known to be the client's, an error is a page; from then on it goes to the client
//! at that URI (RFC 6749 §4.1.2.1).

use accord::text::id::ClientId;
use axum::{
    extract::RawQuery,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    context::PageContext,
    error::PageError,
    setups::{PendingSetup, sign_in_form},
    view::{Leaving, LeavingPage},
};
use crate::{
    consent::signed_request::{OpenedRequests, SignedRequest},
    error::Error,
    http::{
        authorization_request::parameters,
        error::{HttpError, plain},
        form::Form,
    },
    model::{
        client::Client,
        setup::{
            request::{AuthorizationRequest, Parameters, state_of},
            response_url,
        },
        tenant::Tenant,
    },
};

/// The longest URL in the header of a redirect, in bytes: headers of 8 KiB in all are what proxies forward. The `state` of a client
/// may make it longer.
const MAX_LOCATION_BYTES: usize = 6 * 1024;

/// The cookie of the pushed requests that the browser has opened, so that a page can be reloaded when its `request_uri` has expired.
const OPENED: &str = "accord-opened";

/// The error for a link that was truncated, or in which `&` became `&amp;`.
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
/// A `request_uri` that is unknown, has expired, or was given to another client.
const UNKNOWN_REQUEST: PageError = PageError::new(
    StatusCode::BAD_REQUEST,
    "This link no longer works",
    "It has to be opened within 90 seconds. Nothing was shared. Go back to the integration that sent you here, and start \
     again there.",
);

/// `GET /{tenant}/oauth2/authorize`: shows the form where a Tenant Admin signs in. Stores nothing before that.
pub(super) async fn authorize(
    mut page: PageContext,
    RawQuery(query): RawQuery,
) -> Result<Response, PageError> {
    let query = query.unwrap_or_default();
    let form = Form::parse(query.as_bytes())?;
    if form.get("request_uri").is_some() {
        return pushed(page, &form).await;
    }
    let state = state_of(query.as_bytes());
    if ["client_id", "redirect_uri"]
        .iter()
        .any(|name| form.get(name).is_none())
    {
        return Err(INCOMPLETE);
    }
    let client_id = client_id(&form)?;
    let redirect_uri = once(&form, "redirect_uri").ok_or(UNKNOWN_REDIRECT_URI)?;
    let parties = parties(&mut page, &client_id, redirect_uri).await?;
    let partner_name = parties.1.display.partner_name.clone();
    let checked: Result<PendingSetup, HttpError> = async {
        if form.repeats_other_than(&["resource"]) {
            return Err(HttpError::invalid_request("a parameter is repeated"));
        }
        let request = AuthorizationRequest {
            tenant_id: page.tenant.tenant_id.clone(),
            client_id,
            parameters: parameters(&form, state.clone())?,
            pushed: false,
        };
        let signed = SignedRequest::new(&page.http.consents.store, request);
        Ok(PendingSetup::request(&page, signed, parties).await?)
    }
    .await;
    answer(&page, checked, (redirect_uri, &state), partner_name)
}

/// Opens a pushed request (RFC 9126 §4). Ignores all other parameters of the query, `state` included. Changes nothing: a request
/// can be opened again until it is decided.
async fn pushed(mut page: PageContext, form: &Form) -> Result<Response, PageError> {
    let client_id = client_id(form)?;
    let request_uri = once(form, "request_uri").ok_or(UNKNOWN_REQUEST)?;
    let tenant_id = page.tenant.tenant_id.clone();
    let mut browser = OpenedRequests::new(page.cookies.get(OPENED));
    let opened = page
        .call
        .find_pushed_request(&tenant_id, &client_id, request_uri, &browser);
    let (pushed, again_until) = opened.await?.ok_or(UNKNOWN_REQUEST)?;
    let Parameters {
        redirect_uri,
        state_parameter,
        ..
    } = pushed.request.parameters.clone();
    let parties = parties(&mut page, &client_id, &redirect_uri).await?;
    let partner_name = parties.1.display.partner_name.clone();
    let expires_at = match again_until {
        Some(end) => end,
        None => {
            let end = browser.add(&page.http.consents.store, &pushed.setup_id).await?;
            // Only now: otherwise the last answer of two tabs would drop what the other one has added.
            page.cookies.set(OPENED, browser.into_text());
            end
        }
    };
    let signed = SignedRequest {
        setup_id: pushed.setup_id,
        request: pushed.request,
        expires_at,
    };
    let checked = PendingSetup::request(&page, signed, parties).await;
    answer(
        &page,
        checked.map_err(Into::into),
        (&redirect_uri, &state_parameter),
        partner_name,
    )
}

/// Shows the form to sign in, or sends the browser back to the client with an error (RFC 6749 §4.1.2.1): by a redirect, and by a
/// page if the URL is too long for a header.
fn answer(
    page: &PageContext,
    checked: Result<PendingSetup, HttpError>,
    (redirect_uri, state): (&str, &str),
    partner_name: String,
) -> Result<Response, PageError> {
    match checked {
        Ok(pending) => Ok(page.html(StatusCode::OK, &sign_in_form(page, &pending, None))),
        Err(error) => {
            let error = error.for_client();
            let parameters = [
                ("error", error.code),
                ("error_description", &plain(&error.description)),
            ];
            let url = response_url(redirect_uri, state, &page.tenant.issuer, &parameters)?;
            if url.len() <= MAX_LOCATION_BYTES {
                return Ok(see_other(&url));
            }
            let view = LeavingPage {
                frame: page.frame(false),
                url: url.to_string(),
                partner_name,
                too_late: false,
                outcome: Leaving::Rejected,
                ends_on: None,
            };
            Ok(page.html(StatusCode::OK, &view))
        }
    }
}

/// Reads the client and the tenant, and requires that the redirect URI is the client's.
async fn parties(
    page: &mut PageContext,
    client_id: &ClientId,
    redirect_uri: &str,
) -> Result<(Tenant, Client), PageError> {
    let tenant_id = page.tenant.tenant_id.clone();
    let parties = page.call.tenant_and_client(&tenant_id, client_id, redirect_uri);
    parties.await.map_err(|error| match error {
        Error::NotFound("client") => UNKNOWN_CLIENT,
        Error::Invalid(_) => UNKNOWN_REDIRECT_URI,
        error => error.into(),
    })
}

fn client_id(form: &Form) -> Result<ClientId, PageError> {
    let client_id = once(form, "client_id").and_then(|text| ClientId::parse(text).ok());
    client_id.ok_or(UNKNOWN_CLIENT)
}

/// Returns the value of a parameter that occurs once.
fn once<'a>(form: &'a Form, name: &str) -> Option<&'a str> {
    form.get(name).filter(|_| !form.repeats(name))
}

/// Sends the browser on. The URL may hold what the client sent, percent-encoded.
fn see_other(url: &str) -> Response {
    let Ok(mut location) = HeaderValue::from_str(url) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    location.set_sensitive(true);
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}
