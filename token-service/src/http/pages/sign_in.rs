//! Signs in to look after a tenant's integrations, and signs out.

use axum::{
    http::{StatusCode, header},
    response::Response,
};

use super::{
    context::{PageContext, PageForm},
    error::PageError,
    view::SignInPage,
};
use crate::{error::Error, http::error::HttpError, model::client::Profile};

/// The error of an account name that is no active user's.
pub(super) const UNKNOWN_USER: &str = "No active user of this organisation has this account name.";

/// `GET /{tenant}/sign-in`.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    if page.session().await?.is_some() {
        return Ok(page.redirect("integrations"));
    }
    Ok(page.html(StatusCode::OK, &form(&page, "sign-in", None)))
}

/// `POST /{tenant}/sign-in`.
pub(super) async fn sign_in(PageForm { mut page, form: sent }: PageForm) -> Result<Response, PageError> {
    match page.sign_in(None, &sent).await {
        Ok(()) => Ok(page.redirect("integrations")),
        Err(error) => failed(&page, form(&page, "sign-in", None), error),
    }
}

/// `POST /{tenant}/sign-out`: ends the session here and for everybody who has its token.
pub(super) async fn sign_out(PageForm { mut page, .. }: PageForm) -> Result<Response, PageError> {
    page.end_session().await?;
    let view = SignInPage {
        notice: Some("You are signed out.".to_owned()),
        ..form(&page, "sign-in", None)
    };
    Ok(page.html(StatusCode::OK, &view))
}

/// Returns the empty sign-in form, which is posted to this path of the tenant's pages. `client` waits for a decision.
pub(super) fn form(page: &PageContext, path: &str, client: Option<Profile>) -> SignInPage {
    SignInPage {
        frame: page.frame(false),
        action: page.path(path),
        csrf: page.csrf(),
        client,
        error: None,
        notice: None,
    }
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
pub(super) fn again(
    page: &PageContext,
    form: SignInPage,
    error: Error,
    done: &str,
) -> Result<Response, PageError> {
    match error {
        Error::AdminSessionInvalid | Error::AdminSessionMismatch | Error::SignInTooOld => {
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
