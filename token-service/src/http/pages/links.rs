//! One-time links: the enrolment of a Tenant Admin, and the delivery of a partner's credentials.
//!
//! `GET` changes nothing, since mail scanners open links: only a button does.

use std::sync::Arc;

use accord::text::opaque::TokenKind;
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use zeroize::Zeroizing;

use super::{
    context::{PageContext, PageForm},
    dates,
    error::PageError,
    view::{ClaimPage, ClaimedPage, Endpoint, EnrolledPage, EnrolmentPage, Frame, MessagePage, html},
};
use crate::{error::Error, http::HttpState, registry::links::link_token};

/// `GET /{tenant}/enrol/{token}`: the form to choose a password. Only sending it shows whether the link still
/// works.
pub(super) async fn enrolment(
    page: PageContext,
    Path((_, token)): Path<(String, String)>,
) -> Result<Response, PageError> {
    link_token(TokenKind::Enrolment, &token)?;
    Ok(enrolment_page(&page, &token, Vec::new()))
}

/// `POST /{tenant}/enrol/{token}`.
pub(super) async fn enrol(
    Path((_, token)): Path<(String, String)>,
    PageForm { page, form }: PageForm,
) -> Result<Response, PageError> {
    let enrolment_token = link_token(TokenKind::Enrolment, &token)?;
    let password = Zeroizing::new(form.text("password").to_owned());
    if password.as_str() != form.text("password_again") {
        let error = "The two passwords are not the same.".to_owned();
        return Ok(enrolment_page(&page, &token, vec![error]));
    }
    let registry = &page.http.consents.registry;
    match registry.complete_enrolment(&enrolment_token, password).await {
        Ok(tenant_id) => {
            let view = EnrolledPage {
                frame: page.frame(false),
                sign_in_url: format!("/{tenant_id}/sign-in"),
            };
            Ok(page.html(StatusCode::OK, &view))
        }
        Err(Error::PasswordRefused(reasons)) => {
            let errors = reasons.iter().map(|reason| format!("The password {reason}."));
            Ok(enrolment_page(&page, &token, errors.collect()))
        }
        Err(error) => Err(error.into()),
    }
}

fn enrolment_page(page: &PageContext, token: &str, errors: Vec<String>) -> Response {
    let status = if errors.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let view = EnrolmentPage {
        frame: page.frame(false),
        action: page.path(&format!("enrol/{token}")),
        csrf: page.csrf(),
        errors,
    };
    page.html(status, &view)
}

/// `GET /claim/{token}`: a button. Only pressing it shows whether the link still works.
pub(super) async fn claim(
    State(http): State<Arc<HttpState>>,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    let page = ClaimPage {
        frame: Frame::new(&http.product_name, ""),
        action: format!("/claim/{}", token.expose()),
    };
    Ok(html(StatusCode::OK, &page))
}

/// `POST /claim/{token}`: opens the link for anybody who has the token. It needs no CSRF token, because there is
/// no session that another site's form could misuse.
pub(super) async fn open_claim(
    State(http): State<Arc<HttpState>>,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    let bundle = match http.consents.registry.claim_delivery(&token).await {
        Ok(bundle) => bundle,
        Err(Error::LinkInvalid {
            opened_time: Some(opened_time),
        }) => return Ok(opened_before(&http, &opened_time)),
        Err(error) => return Err(error.into()),
    };
    let endpoints = bundle.endpoints.into_iter().map(|endpoint| Endpoint {
        tenant_id: endpoint.tenant_id,
        tenant_authority_url: endpoint.tenant_authority_url,
        cloud_api_url: endpoint.cloud_api_url,
    });
    let page = ClaimedPage {
        frame: Frame::new(&http.product_name, ""),
        client_id: bundle.client_id,
        client_secret: bundle.client_secret,
        endpoints: endpoints.collect(),
    };
    Ok(html(StatusCode::OK, &page))
}

fn opened_before(http: &HttpState, opened_time: &str) -> Response {
    let at = dates::minute_of(opened_time).unwrap_or_else(|| opened_time.to_owned());
    let page = MessagePage {
        frame: Frame::new(&http.product_name, ""),
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
