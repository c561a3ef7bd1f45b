//! One-time links: the enrolment of a Tenant Admin, and the delivery of a partner's credentials.
//!
//! `GET` changes nothing, since mail scanners open links: only a button does. Each form has a field for a release code: the
//! page does not know whether the link needs one.

use std::sync::Arc;

use accord::text::{
    opaque::{OpaqueToken, TokenKind},
    release_code::ReleaseCode,
};
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
    Ok(page.html(StatusCode::OK, &form(&page, Problems::default())))
}

/// `POST /{tenant}/enrol/{token}`. A second press of the button gets the first one's answer for a minute.
pub(super) async fn enrol(PageForm { page, form: sent }: PageForm) -> Result<Response, PageError> {
    let token = enrolment_token(&page).await?;
    let password = Zeroizing::new(sent.text("password").to_owned());
    let mut problems = Problems::default();
    if password.as_str() != sent.text("password_again") {
        problems
            .password
            .push("The two passwords are not the same.".to_owned());
    }
    let Some(code) = release_code(&sent, &mut problems).filter(|_| problems.password.is_empty()) else {
        return Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &form(&page, problems)));
    };
    let (registry, request_id) = (&page.http.consents.registry, page.cookies.request_id(&token));
    let completing = registry.complete_enrolment(&token, code.as_ref(), password, request_id);
    match completing.await {
        Ok(tenant_id) => {
            let view = EnrolledPage {
                frame: page.frame(false),
                sign_in_url: format!("/{tenant_id}/sign-in"),
            };
            Ok(page.html(StatusCode::OK, &view))
        }
        Err(Error::PasswordRejected(reasons)) => {
            let errors = reasons.iter().map(|reason| format!("The password {reason}."));
            problems.password.extend(errors);
            Ok(page.html(StatusCode::UNPROCESSABLE_ENTITY, &form(&page, problems)))
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
    let problems = Problems {
        password: vec![STALE_FORM.to_owned()],
        ..Problems::default()
    };
    Ok(page.html(StatusCode::FORBIDDEN, &form(&page, problems)))
}

/// Returns the token of an enrolment link of this tenant.
async fn enrolment_token(page: &PageContext) -> Result<OpaqueToken, PageError> {
    let token = link_token(TokenKind::Enrolment, &page.resource)?;
    let registry = &page.http.consents.registry;
    let user = registry.find_user(&page.tenant.tenant_id, UserRef::Enrolment(&token));
    user.await?.ok_or(Error::NotFound("user"))?;
    Ok(token)
}

/// Parses the token in the path of a link.
fn link_token(kind: TokenKind, text: &str) -> Result<OpaqueToken, PageError> {
    OpaqueToken::parse(kind, text).map_err(|_| PageError::INCOMPLETE)
}

/// What is wrong with a form.
#[derive(Default)]
struct Problems {
    password: Vec<String>,
    release_code: Option<String>,
}

/// Reads the release code of a form; `Some(None)` if there is none. Adds the problem of a malformed one.
fn release_code(sent: &Form, problems: &mut Problems) -> Option<Option<ReleaseCode>> {
    match sent.text("release_code").trim() {
        "" => Some(None),
        text => match ReleaseCode::parse(text) {
            Ok(code) => Some(Some(code)),
            Err(problem) => {
                problems.release_code = Some(format!("The code {problem}."));
                None
            }
        },
    }
}

fn form(page: &PageContext, problems: Problems) -> EnrolmentPage {
    EnrolmentPage {
        frame: page.frame(false),
        action: page.path(&format!("enrol/{}", page.resource)),
        csrf: page.csrf(),
        errors: problems.password,
        release_code_error: problems.release_code,
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
    let page = claim_form(&http, &token, cookies.request_id(&token), None);
    Ok((cookies.jar, html(StatusCode::OK, &page)).into_response())
}

fn claim_form(http: &HttpState, token: &OpaqueToken, request_id: Uuid, error: Option<String>) -> ClaimPage {
    ClaimPage {
        frame: Frame::new(&http.product_name, ""),
        action: format!("/claim/{}", token.expose()),
        request_id: request_id.to_string(),
        release_code_error: error,
    }
}

/// `POST /claim/{token}`: opens the link for everybody who has the token and, if it needs one, its release code; and for a
/// minute again for the browser that opened it. It needs no CSRF token, because there is no session that another site's form could misuse.
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
    let mut problems = Problems::default();
    let Some(code) = release_code(&form, &mut problems) else {
        let page = claim_form(&http, &token, request_id, problems.release_code);
        return Ok((cookies.jar, html(StatusCode::UNPROCESSABLE_ENTITY, &page)).into_response());
    };
    let registry = &http.consents.registry;
    match registry.claim_delivery(&token, code.as_ref(), request_id).await {
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
