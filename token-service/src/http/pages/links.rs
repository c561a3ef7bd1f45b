//! One-time links: the enrolment of a Tenant Admin, and the delivery of a partner's credentials.
//!
//! `GET` changes nothing, since mail scanners open links: only a button does.

use std::sync::Arc;

use accord::text::opaque::{OpaqueToken, TokenKind};
use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    context::{PageContext, PageForm},
    cookies::{Cookies, is_secure_host},
    dates,
    error::PageError,
    sign_in::STALE_FORM,
    view::{ClaimPage, ClaimedPage, EnrolledPage, EnrolmentPage, Frame, html},
};
use crate::{
    error::Error,
    http::{HttpState, form::Form},
    registry::UserRef,
};

/// `GET /{tenant}/enrol/{token}`: the form to choose a password. Only sending it shows whether the link still
/// works.
pub(super) async fn enrolment(page: PageContext) -> Result<Response, PageError> {
    enrolment_token(&page).await?;
    Ok(page.html(StatusCode::OK, &form(&page, Vec::new())))
}

/// `POST /{tenant}/enrol/{token}`. A second press of the button gets the first one's answer for a minute.
pub(super) async fn enrol(PageForm { page, form: sent }: PageForm) -> Result<Response, PageError> {
    let token = enrolment_token(&page).await?;
    let password = Zeroizing::new(sent.text("password").to_owned());
    if password.as_str() != sent.text("password_again") {
        let error = "The two passwords are not the same.".to_owned();
        return Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &form(&page, vec![error])));
    }
    let (registry, request_id) = (&page.http.consents.registry, page.cookies.request_id(&token));
    match registry.complete_enrolment(&token, password, request_id).await {
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
        Err(Error::LinkInvalid(Some(used_time))) => {
            let at = dates::minute_of(&used_time).unwrap_or(used_time);
            Err(PageError::enrolled_before(&at))
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows the form again whose CSRF token is not valid. Passwords don't come back.
pub(super) async fn enrol_again(PageForm { page, .. }: PageForm) -> Result<Response, PageError> {
    enrolment_token(&page).await?;
    Ok(page.html(StatusCode::FORBIDDEN, &form(&page, vec![STALE_FORM.to_owned()])))
}

/// Returns the token of an enrolment link of this tenant.
async fn enrolment_token(page: &PageContext) -> Result<OpaqueToken, PageError> {
    let token = link_token(TokenKind::Enrolment, &page.resource)?;
    let registry = &page.http.consents.registry;
    registry
        .user(&page.tenant.tenant_id, UserRef::Enrolment(&token))
        .await?;
    Ok(token)
}

/// Parses the token in the path of a link.
fn link_token(kind: TokenKind, text: &str) -> Result<OpaqueToken, PageError> {
    OpaqueToken::parse(kind, text).map_err(|_| PageError::INCOMPLETE)
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
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    let cookies = Cookies::read(&headers, is_secure_host(&headers), &*http.consents.store.random);
    let page = ClaimPage {
        frame: Frame::new(&http.product_name, ""),
        action: format!("/claim/{}", token.expose()),
        request_id: cookies.request_id(&token).to_string(),
    };
    Ok((cookies.jar, html(StatusCode::OK, &page)).into_response())
}

/// `POST /claim/{token}`: opens the link for everybody who has the token, and for a minute again for the browser that
/// opened it. It needs no CSRF token, because there is no session that another site's form could misuse.
pub(super) async fn open_claim(
    State(http): State<Arc<HttpState>>,
    Path(token): Path<String>,
    request: Request,
) -> Result<Response, PageError> {
    let token = link_token(TokenKind::Claim, &token)?;
    let headers = request.headers();
    let cookies = Cookies::read(headers, is_secure_host(headers), &*http.consents.store.random);
    // A browser without cookies sends the id that the form gave it.
    let form = Form::read(request).await.unwrap_or_default();
    let sent = Uuid::try_parse(form.text("request_id")).ok();
    let sent = sent.filter(|id| !cookies.had_seed && id.get_version_num() == 4);
    let request_id = sent.unwrap_or_else(|| cookies.request_id(&token));
    match http.consents.registry.claim_delivery(&token, request_id).await {
        Ok(bundle) => {
            let frame = Frame::new(&http.product_name, "");
            let page = html(StatusCode::OK, &ClaimedPage { frame, bundle });
            Ok((cookies.jar, page).into_response())
        }
        Err(Error::LinkInvalid(Some(opened_time))) => {
            let at = dates::minute_of(&opened_time).unwrap_or(opened_time);
            Err(PageError::opened_before(&at))
        }
        Err(error) => Err(error.into()),
    }
}
