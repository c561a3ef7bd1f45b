//! Errors of HTTP routes: a status and the members of RFC 6749 §5.2. [`code`] is the one table from reasons to
//! both.

use accord::{
    dpop::DPOP_NONCE,
    rpc::status::{ErrorReason, reason_of},
};
use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tonic::Status;
use tonic_types::StatusExt;

use crate::error::Error;

/// The headers of responses that no cache may store (RFC 6749 §5.1).
pub(super) const NO_STORE: [(header::HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];
/// The challenge that RFC 9110 §11.6.1 requires with a 401, for clients.
const CHALLENGE: HeaderValue = HeaderValue::from_static(r#"Basic realm="accord", charset="UTF-8""#);
/// The same for workloads (RFC 6750 §3).
const BEARER_CHALLENGE: HeaderValue =
    HeaderValue::from_static(r#"Bearer realm="accord", error="invalid_token""#);

/// An error of an HTTP route. It stays in the response's extensions, so that a page can replace the body.
#[derive(Clone, Debug)]
pub(super) struct HttpError {
    pub(super) status: StatusCode,
    /// The value of `error`.
    pub(super) code: &'static str,
    /// The value of `error_description`.
    pub(super) description: String,
    /// How long to wait before the next try, in seconds.
    pub(super) retry_after: Option<u64>,
    /// The nonce for the next DPoP proof.
    pub(super) dpop_nonce: Option<String>,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, code: &'static str, description: &str) -> Self {
        Self {
            status,
            code,
            description: description.to_owned(),
            retry_after: None,
            dpop_nonce: None,
        }
    }

    /// Returns the reason of an error of a token request, as metrics count it.
    pub(super) fn reason(&self) -> ErrorReason {
        let reasons = [
            ErrorReason::InvalidClient,
            ErrorReason::InvalidDpopProof,
            ErrorReason::InvalidScope,
            ErrorReason::InvalidTarget,
            ErrorReason::UnsupportedGrantType,
        ];
        let reason = reasons.into_iter().find(|reason| code(*reason).1 == self.code);
        reason.unwrap_or(ErrorReason::InvalidFields)
    }

    /// Returns the error for a client whose authorization request names what it may not know of: it has no right to that
    /// (RFC 6749 §4.1.2.1).
    pub(super) fn for_client(self) -> Self {
        match self.code {
            "not_found" => Self {
                status: StatusCode::BAD_REQUEST,
                code: "unauthorized_client",
                ..self
            },
            _ => self,
        }
    }

    /// 400 `invalid_request`.
    pub(super) fn invalid_request(description: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }
}

impl From<Error> for HttpError {
    fn from(error: Error) -> Self {
        Status::from(error).into()
    }
}

impl From<Status> for HttpError {
    /// Takes the description from the status, so that HTTP and gRPC show the same text.
    fn from(status: Status) -> Self {
        let reason = reason_of(&status).unwrap_or(ErrorReason::Internal);
        let (code, error) = code(reason);
        let details = status.get_error_details();
        let violations = details.bad_request().map(|bad| {
            let fields = bad.field_violations.iter();
            let fields = fields.map(|v| format!("{} {}", v.field, v.description));
            fields.collect::<Vec<_>>().join("; ")
        });
        let metadata = details.error_info().map(|info| &info.metadata);
        let dpop_nonce = metadata.and_then(|metadata| metadata.get("dpop_nonce")).cloned();
        let retry_after = details.retry_info().and_then(|info| info.retry_delay);
        Self {
            status: code,
            code: error,
            description: violations.unwrap_or_else(|| status.message().to_owned()),
            retry_after: retry_after.map(|delay| delay.as_secs().max(1)),
            dpop_nonce,
        }
    }
}

/// HTTP status and OAuth error code for a reason. Codes are those of RFC 6749 §5.2 and §4.1.2.1, and of
/// RFC 8707 §2.
fn code(reason: ErrorReason) -> (StatusCode, &'static str) {
    match reason {
        ErrorReason::InvalidFields => (StatusCode::BAD_REQUEST, "invalid_request"),
        ErrorReason::InvalidClient => (StatusCode::UNAUTHORIZED, "invalid_client"),
        ErrorReason::InvalidGrant => (StatusCode::BAD_REQUEST, "invalid_grant"),
        ErrorReason::InvalidScope => (StatusCode::BAD_REQUEST, "invalid_scope"),
        ErrorReason::InvalidTarget => (StatusCode::BAD_REQUEST, "invalid_target"),
        ErrorReason::UnsupportedGrantType => (StatusCode::BAD_REQUEST, "unsupported_grant_type"),
        ErrorReason::InvalidDpopProof => (StatusCode::BAD_REQUEST, "invalid_dpop_proof"),
        ErrorReason::UseDpopNonce => (StatusCode::BAD_REQUEST, "use_dpop_nonce"),
        // Without consent, or from elsewhere, the client may not use this grant type.
        ErrorReason::ConsentRequired | ErrorReason::WrongState | ErrorReason::NetworkNotAllowed => {
            (StatusCode::BAD_REQUEST, "unauthorized_client")
        }
        // A workload's token; RFC 6750 §3.1 has no code for a caller that may not call at all.
        ErrorReason::Unauthenticated | ErrorReason::AmbiguousCertificate => {
            (StatusCode::UNAUTHORIZED, "invalid_token")
        }
        ErrorReason::PermissionDenied => (StatusCode::FORBIDDEN, "access_denied"),
        ErrorReason::NotFound => (StatusCode::NOT_FOUND, "not_found"),
        ErrorReason::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        ErrorReason::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "temporarily_unavailable"),
        ErrorReason::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error"),
    }
}

/// Adds the nonce for the client's next proof (RFC 9449 §8), to answers and to errors.
pub(super) fn add_dpop_nonce(headers: &mut HeaderMap, nonce: Option<&str>) {
    if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
        headers.insert(DPOP_NONCE, nonce);
    }
}

/// Replaces the characters that RFC 6749 §5.2 forbids in `error_description`.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => '\'',
            ' '..='~' => c,
            _ => '?',
        })
        .collect()
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let body = json!({"error": self.code, "error_description": plain(&self.description)});
        let mut response = (self.status, NO_STORE, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            let is_bearer = self.code == "invalid_token";
            let challenge = if is_bearer { BEARER_CHALLENGE } else { CHALLENGE };
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        add_dpop_nonce(headers, self.dpop_nonce.as_deref());
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use accord::text::validation::Violations;

    use super::*;

    #[test]
    fn errors_map_to_status_and_oauth_code() {
        let cases = [
            (Error::InvalidClient(""), 401, "invalid_client"),
            (Error::WrongAuthMethod(String::new()), 401, "invalid_client"),
            (Error::UnsuitableSigningKey, 400, "unauthorized_client"),
            (Error::InvalidGrant, 400, "invalid_grant"),
            (Error::InvalidScope, 400, "invalid_scope"),
            (Error::InvalidTarget, 400, "invalid_target"),
            (Error::InvalidDpopProof(String::new()), 400, "invalid_dpop_proof"),
            (Error::UseDpopNonce(String::new()), 400, "use_dpop_nonce"),
            (Error::NetworkNotAllowed(None), 400, "unauthorized_client"),
            (Error::ConsentRequired(None), 400, "unauthorized_client"),
            (Error::UnsupportedGrantType, 400, "unsupported_grant_type"),
            (Error::Unauthenticated, 401, "invalid_token"),
            (Error::PermissionDenied, 403, "access_denied"),
            (Error::NotFound("tenant"), 404, "not_found"),
            (Error::RegistryUnavailable, 503, "temporarily_unavailable"),
            (Error::Signing, 500, "server_error"),
        ];
        for (error, status, code) in cases {
            let shown = format!("{error:?}");
            let error = HttpError::from(error);
            assert_eq!((error.status.as_u16(), error.code), (status, code), "{shown}");
        }
    }

    #[test]
    fn the_description_names_every_violation_and_nothing_internal() {
        let mut violations = Violations::default();
        violations.add("a", "must be \"x\"");
        violations.add("b", "müst be y");
        let error = HttpError::from(Error::from(violations));
        assert_eq!(plain(&error.description), "a must be 'x'; b m?st be y");
        let internal = HttpError::from(Error::RegistryAnswer("sector 7".into()));
        assert!(!internal.description.contains("sector"));
    }

    #[test]
    fn a_response_has_a_challenge_or_a_retry_time() {
        let response = HttpError::from(Error::InvalidClient("")).into_response();
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
        let response = HttpError::from(Error::RegistryUnavailable).into_response();
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
