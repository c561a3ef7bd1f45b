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
    view::{ClaimPage, ClaimedPage, EnrolledPage, EnrolmentPage, Frame, html},
};
use crate::{error::Error, http::HttpState, registry::links::link_token};

/// `GET /{tenant}/enrol/{token}`: the form to choose a password. Only sending it shows whether the link still
/// works.
pub(super) async fn enrolment(page: PageContext) -> Result<Response, PageError> {
    link_token(TokenKind::Enrolment, &page.resource)?;
    Ok(page.html(StatusCode::OK, &form(&page, Vec::new())))
}

/// `POST /{tenant}/enrol/{token}`.
pub(super) async fn enrol(PageForm { page, form: sent }: PageForm) -> Result<Response, PageError> {
    let enrolment_token = link_token(TokenKind::Enrolment, &page.resource)?;
    let password = Zeroizing::new(sent.text("password").to_owned());
    if password.as_str() != sent.text("password_again") {
        let error = "The two passwords are not the same.".to_owned();
        return Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &form(&page, vec![error])));
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
            Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &form(&page, errors.collect())))
        }
        Err(error) => Err(error.into()),
    }
}

fn form(page: &PageContext, errors: Vec<String>) -> EnrolmentPage {
    EnrolmentPage {
        frame: page.frame(false),
        action: page.path(&format!("enrol/{}", page.resource)),
        csrf: page.csrf(),
        errors,
    }
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

/// `POST /claim/{token}`: opens the link for everybody who has the token. It needs no CSRF token, because there is
/// no session that another site's form could misuse.
pub(super) async fn open_claim(
    State(http): State<Arc<HttpState>>,
    Path(token): Path<String>,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    match http.consents.registry.claim_delivery(&token).await {
        Ok(bundle) => {
            let frame = Frame::new(&http.product_name, "");
            Ok(html(StatusCode::OK, &ClaimedPage { frame, bundle }))
        }
        Err(Error::LinkInvalid(Some(opened_time))) => {
            let at = dates::minute_of(&opened_time).unwrap_or(opened_time);
            Err(PageError::opened_before(&at))
        }
        Err(error) => Err(error.into()),
    }
}
