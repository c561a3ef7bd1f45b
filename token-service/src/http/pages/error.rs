//! Errors as pages: every error gets a title, a text that says what to do, and a status, in one table.
//! A handler returns a [`PageError`]; the layer around the pages renders it.

use std::borrow::Cow;

use accord::{
    error::v1::ErrorReason,
    rpc::{context, status::RETRY_SEALED},
};
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::view::{Frame, MessagePage, html};
use crate::{error::Error, http::error::HttpError};

/// An error that a person sees as a page.
#[derive(Clone, Debug)]
pub(super) struct PageError {
    status: StatusCode,
    title: &'static str,
    text: Cow<'static, str>,
    /// A reference to quote.
    detail: Option<String>,
    /// How long to wait before the next try, in seconds.
    retry_after: Option<u64>,
    /// Whether the page links to the next one: the address is a tenant's.
    offers_next_page: bool,
}

impl PageError {
    /// A form that was not sent from one of our pages in this browser and session.
    pub(super) const FOREIGN_FORM: Self = Self::new(
        StatusCode::FORBIDDEN,
        "This form has expired",
        "Nothing was changed. Go back, load the page again, and repeat what you wanted to do. If that does not \
         help, allow cookies for this address.",
    );
    /// A link of which a part is missing, or which something was added to.
    pub(super) const INCOMPLETE: Self = Self::new(
        StatusCode::NOT_FOUND,
        "The address is not complete",
        "A part of the link is missing, or a sign behind it was taken for a part of it. Copy the whole link, from \
         its first character to its last, into the address bar. It still works as before.",
    );
    /// The address of a form, opened without the form.
    pub(super) const NOTHING_TO_SHOW: Self = Self::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "There is nothing to show here",
        "This is where a form was sent to. Go back to the page that you came from, and load it again.",
    );
    pub(super) const NOT_FOUND: Self = Self::new(
        StatusCode::NOT_FOUND,
        "There is nothing here",
        "The address is not complete, or the page no longer exists.",
    );
    /// A setup or grant that this tenant does not have.
    pub(super) const MISSING: Self = Self::NOT_FOUND.with_next_page();

    pub(super) const fn new(status: StatusCode, title: &'static str, text: &'static str) -> Self {
        Self {
            status,
            title,
            text: Cow::Borrowed(text),
            detail: None,
            retry_after: None,
            offers_next_page: status.as_u16() != 404,
        }
    }

    const fn with_next_page(mut self) -> Self {
        self.offers_next_page = true;
        self
    }

    /// The error of a delivery that was opened before.
    pub(super) fn opened_before(at: &str) -> Self {
        let text = format!(
            "The credentials were shown on {at}. If that was not you, tell whoever sent you the link at \
             once: they can revoke these credentials and send new ones."
        );
        Self {
            text: text.into(),
            ..Self::new(StatusCode::GONE, "This link was opened already", "")
        }
    }

    /// The error of an enrolment that was used before.
    pub(super) fn enrolled_before(at: &str) -> Self {
        let text = format!(
            "A password was chosen with it on {at}. If that was you, sign in with it. If that was not you, tell \
             whoever sent you the link at once."
        );
        Self {
            text: text.into(),
            ..Self::new(StatusCode::GONE, "This link was used already", "")
        }
    }

    /// Renders the error. `next_page` is the page to go on from.
    pub(super) fn page(self, product_name: &str, next_page: Option<String>) -> Response {
        let page = MessagePage {
            frame: Frame::new(product_name, ""),
            title: self.title.to_owned(),
            text: self.text.into_owned(),
            detail: self.detail,
            next_page: next_page.filter(|_| self.offers_next_page),
        };
        let mut response = html(self.status, &page);
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<HttpError> for PageError {
    fn from(error: HttpError) -> Self {
        let status = error.status;
        let (title, text) = match status {
            StatusCode::NOT_FOUND => return Self::NOT_FOUND,
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => (
                "That did not work",
                "The request could not be understood. Go back, load the page again, and repeat what you \
                 wanted to do.",
            ),
            StatusCode::REQUEST_TIMEOUT => (
                "That took too long",
                "What you sent did not arrive in time. Nothing was changed. Go back, and send it again.",
            ),
            StatusCode::PAYLOAD_TOO_LARGE => ("That was too much", "What was sent is too large."),
            StatusCode::TOO_MANY_REQUESTS => (
                "Please wait a moment",
                "Too many attempts are under way. Try again in a little while.",
            ),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => (
                "Please try again in a moment",
                "A part of the service does not answer at the moment. Nothing was changed.",
            ),
            _ => (
                "Something went wrong",
                "This is our mistake, not yours. If it happens again, tell your provider the reference \
                 below.",
            ),
        };
        let is_internal = status == StatusCode::INTERNAL_SERVER_ERROR;
        Self {
            detail: is_internal.then_some(error.description),
            retry_after: error.retry_after,
            ..Self::new(status, title, text)
        }
    }
}

/// Notes the error for the audit record, too: every rejected call of a Tenant Admin ends here, unless its page is shown again.
impl From<Error> for PageError {
    fn from(error: Error) -> Self {
        note(&error);
        let (status, title, text) = match error {
            Error::ClientChanged => (
                StatusCode::CONFLICT,
                "The request has changed",
                "What this integration may ask for was changed after it sent you here. Go back to the \
                 integration and start again, so that you see what it asks for now.",
            ),
            Error::LinkInvalid(_) => (
                StatusCode::GONE,
                "The code is not right, or the link has ended",
                "If you were given a release code, go back and check it: without its code the link does not open, and \
                 five wrong codes end it. Otherwise it was used already, or its time is over: ask whoever sent it to \
                 you for a new one.",
            ),
            Error::WrongState { resource, state } => {
                let (title, text) = wrong_state(resource, state);
                (StatusCode::CONFLICT, title, text)
            }
            Error::NotYetSealed => {
                return Self {
                    retry_after: Some(RETRY_SEALED.as_secs()),
                    ..Self::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "The receipt is not ready yet",
                        "The consent is not in the sealed audit log yet, which takes up to a minute. Try again \
                         shortly.",
                    )
                };
            }
            Error::NotFound(resource) if resource != "tenant" => return Self::MISSING,
            error => return HttpError::from(error).into(),
        };
        Self::new(status, title, text)
    }
}

/// Notes that a call is rejected with this error, if the error judges the call.
pub(super) fn note(error: &Error) {
    match error.reason() {
        ErrorReason::Unavailable | ErrorReason::Internal | ErrorReason::ResourceExhausted => {}
        reason => context::note_rejection(reason),
    }
}

fn wrong_state(resource: &str, state: &str) -> (&'static str, &'static str) {
    match (resource, state) {
        ("setup", "APPROVED") => (
            "This request was approved already",
            "There is nothing more to decide. If the integration does not say that it is connected, start again \
             there. You find it under Connected integrations.",
        ),
        ("setup", "DENIED") => (
            "This request was denied already",
            "There is nothing more to decide. The integration can send you here again.",
        ),
        ("setup", _) => (
            "This request has expired",
            "It was not decided in time. Go back to the integration and start again.",
        ),
        ("tenant", _) => (
            "Access is suspended",
            "Integrations of this organisation are suspended at the moment.",
        ),
        ("client", _) => (
            "This integration is suspended",
            "It can't be given access at the moment.",
        ),
        _ => (
            "That is no longer possible",
            "This access has ended or changed in the meantime. Load the list of integrations again.",
        ),
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_upload_is_no_mistake_of_the_service() {
        let slow = HttpError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request", "");
        let text = PageError::from(slow).text;
        assert!(
            text.contains("Nothing was changed") && !text.contains("our mistake"),
            "{text}"
        );
    }
}
