//! One-time links: a Tenant Admin's enrolment, and the credentials that wait for a partner.
//!
//! Looking at a link changes nothing, since mail scanners open links: only a button does.

use std::sync::Arc;

use accord::text::opaque::TokenKind;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use zeroize::Zeroizing;

use super::{
    PageError, frame, html, text,
    view::{ClaimPage, ClaimedPage, Endpoint, EnrolledPage, EnrolmentPage, MessagePage},
    visit::Visit,
};
use crate::{
    error::Error,
    http::{Gateway, form::Posted},
    registry::links::link_token,
};

/// `GET /{tenant}/enrol/{token}`: the form to choose a password. Whether the link still works shows when
/// the form is sent.
pub(super) async fn enrolment(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, token)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    link_token(TokenKind::Enrolment, &token)?;
    Ok(enrolment_page(&visit, &token, Vec::new()))
}

/// `POST /{tenant}/enrol/{token}`.
pub(super) async fn enrol(
    State(gateway): State<Arc<Gateway>>,
    Path((tenant, token)): Path<(String, String)>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    visit.check_csrf(&form)?;
    let enrolment_token = link_token(TokenKind::Enrolment, &token)?;
    let password = Zeroizing::new(form.text("password").to_owned());
    if password.as_str() != form.text("password_again") {
        let told = "The two passwords are not the same.".to_owned();
        return Ok(enrolment_page(&visit, &token, vec![told]));
    }
    let registry = &gateway.consents.registry;
    match registry.complete_enrolment(&enrolment_token, password).await {
        Ok(tenant_id) => {
            let page = EnrolledPage {
                frame: visit.frame(false),
                sign_in_url: format!("/{tenant_id}/sign-in"),
            };
            Ok((visit.jar.clone(), html(StatusCode::OK, &page)).into_response())
        }
        Err(Error::PasswordRefused(reasons)) => {
            let told = reasons.iter().map(|reason| format!("The password {reason}."));
            Ok(enrolment_page(&visit, &token, told.collect()))
        }
        Err(error) => Err(error.into()),
    }
}

fn enrolment_page(visit: &Visit, token: &str, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let page = EnrolmentPage {
        frame: visit.frame(false),
        action: visit.path(&format!("enrol/{token}")),
        csrf: visit.csrf(),
        errors,
    };
    (visit.jar.clone(), html(status, &page)).into_response()
}

/// `GET /claim/{token}`: a button, and nothing else. Whether the link still works shows when it is
/// pressed.
pub(super) async fn claim(
    State(gateway): State<Arc<Gateway>>,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    let page = ClaimPage {
        frame: frame(&gateway.product_name, String::new()),
        action: format!("/claim/{}", token.expose()),
    };
    Ok(html(StatusCode::OK, &page))
}

/// `POST /claim/{token}`: opens the link. Whoever has the token may: there is no session that a form of
/// another site could misuse.
pub(super) async fn open_claim(
    State(gateway): State<Arc<Gateway>>,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    let bundle = match gateway.consents.registry.claim_delivery(&token).await {
        Ok(bundle) => bundle,
        Err(Error::LinkInvalid {
            opened_time: Some(opened_time),
        }) => return Ok(opened_before(&gateway, &opened_time)),
        Err(error) => return Err(error.into()),
    };
    let endpoints = bundle.endpoints.into_iter().map(|endpoint| Endpoint {
        tenant_id: endpoint.tenant_id,
        tenant_authority_url: endpoint.tenant_authority_url,
        cloud_api_url: endpoint.cloud_api_url,
    });
    let page = ClaimedPage {
        frame: frame(&gateway.product_name, String::new()),
        client_id: bundle.client_id,
        client_secret: bundle.client_secret,
        endpoints: endpoints.collect(),
    };
    Ok(html(StatusCode::OK, &page))
}

fn opened_before(gateway: &Gateway, opened_time: &str) -> Response {
    let at = text::minute_of(opened_time).unwrap_or_else(|| opened_time.to_owned());
    let page = MessagePage {
        frame: frame(&gateway.product_name, String::new()),
        title: "This link was opened already".to_owned(),
        text: format!(
            "The credentials were shown on {at}. If that was not you, tell whoever sent you the link at \
             once: they can revoke these credentials and send new ones."
        ),
        detail: None,
        link: None,
    };
    html(StatusCode::GONE, &page)
}
