//! Signing in to look after a tenant's integrations, and signing out.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    PageError, html,
    view::{Asking, SignInPage},
    visit::Visit,
};
use crate::{
    error::Error,
    http::{Gateway, error::HttpError, form::Posted},
};

/// `GET /{tenant}/sign-in`.
pub(super) async fn show(
    State(gateway): State<Arc<Gateway>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let visit = Visit::of(&gateway, &tenant, &headers).await?;
    if visit.session().await?.is_some() {
        return Ok((visit.jar.clone(), Redirect::to(&visit.path("integrations"))).into_response());
    }
    let form = Form {
        action: visit.path("sign-in"),
        ..Form::default()
    };
    Ok(form.show(&visit))
}

/// `POST /{tenant}/sign-in`.
pub(super) async fn sign_in(
    State(gateway): State<Arc<Gateway>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let mut visit = Visit::of(&gateway, &tenant, &headers).await?;
    visit.check_csrf(&form)?;
    match visit.sign_in(None, &form).await {
        Ok(()) => Ok((visit.jar.clone(), Redirect::to(&visit.path("integrations"))).into_response()),
        Err(error) => {
            let form = Form {
                action: visit.path("sign-in"),
                ..Form::default()
            };
            form.refuse(&visit, error)
        }
    }
}

/// `POST /{tenant}/sign-out`: ends the session here and for anybody who has its token.
pub(super) async fn sign_out(
    State(gateway): State<Arc<Gateway>>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Posted(form): Posted,
) -> Result<Response, PageError> {
    let mut visit = Visit::of(&gateway, &tenant, &headers).await?;
    visit.check_csrf(&form)?;
    visit.end_session().await?;
    let form = Form {
        action: visit.path("sign-in"),
        notice: Some("You are signed out."),
        ..Form::default()
    };
    Ok(form.show(&visit))
}

/// The sign-in form, in one of its uses.
#[derive(Default)]
pub(super) struct Form {
    /// Where it is sent to.
    pub(super) action: String,
    /// Who waits for a decision.
    pub(super) client: Option<Asking>,
    /// What to know first.
    pub(super) notice: Option<&'static str>,
}

impl Form {
    /// The empty form.
    pub(super) fn show(self, visit: &Visit) -> Response {
        self.page(visit, StatusCode::OK, None)
    }

    /// The form again, after an attempt that failed.
    pub(super) fn refuse(self, visit: &Visit, error: Error) -> Result<Response, PageError> {
        match error {
            Error::SignInFailed => {
                let told = "Account name and password do not match an administrator of this organisation.";
                Ok(self.page(visit, StatusCode::FORBIDDEN, Some(told)))
            }
            error @ Error::TooManySignIns { .. } => {
                let mut limit = HttpError::from(error).into_response();
                let told = "Too many attempts are under way. Wait a moment, then try again.";
                let mut page = self.page(visit, StatusCode::TOO_MANY_REQUESTS, Some(told));
                if let Some(seconds) = limit.headers_mut().remove(header::RETRY_AFTER) {
                    page.headers_mut().insert(header::RETRY_AFTER, seconds);
                }
                Ok(page)
            }
            error => Err(error.into()),
        }
    }

    fn page(self, visit: &Visit, status: StatusCode, error: Option<&str>) -> Response {
        let page = SignInPage {
            frame: visit.frame(false),
            action: self.action,
            csrf: visit.csrf(),
            client: self.client,
            error: error.map(str::to_owned),
            notice: self.notice.map(str::to_owned),
        };
        (visit.jar.clone(), html(status, &page)).into_response()
    }
}
