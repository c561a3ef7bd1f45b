//! Errors as HTTP has them: a status, and RFC 6749 §5.2's two members.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tonic::{Code, Status};

use crate::error::Error;

/// An error of an HTTP route.
pub(super) struct HttpError(Error);

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        // The status is the one place where an error's text, and what is logged of it, is decided.
        let status = Status::from(self.0);
        let (code, error) = match status.code() {
            Code::NotFound | Code::InvalidArgument => (StatusCode::NOT_FOUND, "not_found"),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
        };
        let body = json!({"error": error, "error_description": status.message()});
        let mut response = (code, Json(body)).into_response();
        if code == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = accord::status::RETRY_UNAVAILABLE.as_secs();
            response
                .headers_mut()
                .insert(http::header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
