//! Signs in to look after a tenant's integrations, and signs out.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    context::{PageContext, PageForm},
    error::PageError,
    view::SignInPage,
};
use crate::{error::Error, http::error::HttpError, model::client::Profile};

/// `GET /{tenant}/sign-in`.
pub(super) async fn show(mut page: PageContext) -> Result<Response, PageError> {
    if page.session().await?.is_some() {
        return Ok(page.redirect("integrations"));
    }
    Ok(SignInForm::of_integrations(&page).show(&page))
}

/// `POST /{tenant}/sign-in`.
pub(super) async fn sign_in(PageForm { mut page, form }: PageForm) -> Result<Response, PageError> {
    match page.sign_in(None, &form).await {
        Ok(()) => Ok(page.redirect("integrations")),
        Err(error) => SignInForm::of_integrations(&page).fail(&page, error),
    }
}

/// `POST /{tenant}/sign-out`: ends the session here and for anybody who has its token.
pub(super) async fn sign_out(PageForm { mut page, .. }: PageForm) -> Result<Response, PageError> {
    page.end_session().await?;
    let form = SignInForm {
        notice: Some("You are signed out."),
        ..SignInForm::of_integrations(&page)
    };
    Ok(form.show(&page))
}

/// The sign-in form, in one of its uses.
pub(super) struct SignInForm {
    /// Where it is posted.
    pub(super) action: String,
    /// The client that waits for a decision.
    pub(super) client: Option<Profile>,
    /// A notice above the form.
    pub(super) notice: Option<&'static str>,
}

impl SignInForm {
    /// The form to look after integrations.
    pub(super) fn of_integrations(page: &PageContext) -> Self {
        Self {
            action: page.path("sign-in"),
            client: None,
            notice: None,
        }
    }

    /// Shows the empty form.
    pub(super) fn show(self, page: &PageContext) -> Response {
        self.html(page, StatusCode::OK, None)
    }

    /// Shows the form again after a failed attempt.
    pub(super) fn fail(self, page: &PageContext, error: Error) -> Result<Response, PageError> {
        match error {
            Error::SignInFailed => {
                let text = "Account name and password do not match a Tenant Admin of this organisation.";
                Ok(self.html(page, StatusCode::FORBIDDEN, Some(text)))
            }
            error @ Error::TooManySignIns { .. } => {
                let mut limit = HttpError::from(error).into_response();
                let text = "Too many attempts are under way. Wait a moment, then try again.";
                let mut response = self.html(page, StatusCode::TOO_MANY_REQUESTS, Some(text));
                if let Some(seconds) = limit.headers_mut().remove(header::RETRY_AFTER) {
                    response.headers_mut().insert(header::RETRY_AFTER, seconds);
                }
                Ok(response)
            }
            error => Err(error.into()),
        }
    }

    fn html(self, page: &PageContext, status: StatusCode, error: Option<&str>) -> Response {
        let view = SignInPage {
            frame: page.frame(false),
            action: self.action,
            csrf: page.csrf(),
            client: self.client,
            error: error.map(str::to_owned),
            notice: self.notice.map(str::to_owned),
        };
        page.html(status, &view)
    }
}
