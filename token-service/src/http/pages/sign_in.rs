//! The form to sign in, which several pages show, and signing out.

use axum::{
    http::{StatusCode, header},
    response::Response,
};

use super::{
    context::{PageContext, PageForm},
    error::{PageError, note},
    view::SignInPage,
};
use crate::{
    error::Error,
    http::{error::HttpError, form::Form},
};

/// The error of an account name that is no active user's.
pub(super) const UNKNOWN_USER: &str = "No active user of this organisation has this account name.";

/// The notice of a form whose CSRF token is not valid, which comes back with what was typed.
pub(super) const STALE_FORM: &str = "This page had waited too long, or you signed in or out in another tab. Nothing \
                                     was changed. Check what you entered, and send it once more. If this page comes \
                                     back, allow cookies for this address.";

/// `GET /{tenant}/sign-in`.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    if page.session().await?.is_some() {
        return Ok(page.redirect("integrations"));
    }
    Ok(page.html(StatusCode::OK, &form(&page, "sign-in", None)))
}

/// `POST /{tenant}/sign-out`: ends the session here and for everybody who has its token.
pub(super) async fn sign_out(PageForm { mut page, .. }: PageForm) -> Result<Response, PageError> {
    page.end_session().await?;
    Ok(signed_out(&page, StatusCode::OK))
}

/// Answers a sign-out whose CSRF token is not valid. After a first click there is no session any more.
pub(super) async fn sign_out_again(PageForm { mut page, .. }: PageForm) -> Result<Response, PageError> {
    if page.session().await?.is_some() {
        return Err(PageError::FOREIGN_FORM);
    }
    Ok(signed_out(&page, StatusCode::FORBIDDEN))
}

fn signed_out(page: &PageContext, status: StatusCode) -> Response {
    let view = SignInPage {
        notice: Some("You are signed out.".to_owned()),
        ..form(page, "sign-in", None)
    };
    page.html(status, &view)
}

/// Returns the sign-in form, which is posted to this path of the tenant's pages. `sent` is the form as it was sent.
pub(super) fn form(page: &PageContext, path: &str, sent: Option<&Form>) -> SignInPage {
    // Only the sign-in form has a password; in another form `account_name` is another user's.
    let sent = sent.filter(|form| form.get("password").is_some());
    SignInPage {
        frame: page.frame(false),
        action: page.path(path),
        csrf: page.csrf(),
        account_name: sent
            .map(|form| form.text("account_name").to_owned())
            .unwrap_or_default(),
        entered: Vec::new(),
        client: None,
        error: None,
        notice: None,
    }
}

/// Shows the sign-in form in place of a form whose CSRF token is not valid.
pub(super) fn stale(page: &PageContext, form: SignInPage) -> Response {
    let view = SignInPage {
        notice: Some(STALE_FORM.to_owned()),
        ..form
    };
    page.html(StatusCode::FORBIDDEN, &view)
}

/// Shows the sign-in form again after a failed attempt.
pub(super) fn failed(page: &PageContext, form: SignInPage, error: Error) -> Result<Response, PageError> {
    let (status, text) = match &error {
        Error::SignInFailed => (
            StatusCode::FORBIDDEN,
            "Account name and password do not match a Tenant Admin of this organisation.",
        ),
        Error::TooManySignIns(_) => (
            StatusCode::TOO_MANY_REQUESTS,
            "Too many attempts are under way. Wait a moment, then try again.",
        ),
        _ => return Err(error.into()),
    };
    let view = SignInPage {
        error: Some(text.to_owned()),
        ..form
    };
    let mut response = page.html(status, &view);
    if let Some(seconds) = HttpError::from(error).retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Ok(response)
}

/// Shows the sign-in form when an action failed because of the session. `done` is what the action would have done.
pub(super) fn again_after(
    page: &PageContext,
    form: SignInPage,
    error: Error,
    done: &str,
) -> Result<Response, PageError> {
    match error {
        Error::AdminSessionInvalid | Error::AdminSessionMismatch | Error::SignInTooOld => {
            note(&error);
            let notice = format!("For safety, please sign in once more. Nothing was {done} yet.");
            let view = SignInPage {
                notice: Some(notice),
                ..form
            };
            Ok(page.html(StatusCode::OK, &view))
        }
        error => Err(error.into()),
    }
}
