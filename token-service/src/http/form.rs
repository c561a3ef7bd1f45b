//! Parameters of OAuth 2.0 and of forms: `application/x-www-form-urlencoded`, in a query or a body.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, rejection::BytesRejection},
    http::{StatusCode, header},
};
use tokio::time::timeout;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::error::HttpError;

/// How long a client may take to send a body: less than a call may take. Its deadline would blame the service.
const BODY_TIME: Duration = Duration::from_secs(20);
/// The most parameters of a request: a consent form with a hundred scopes.
const MAX_PARAMETERS: usize = 120;

/// Parameters. No `Debug`: some are secret. A parameter without a value counts as absent (RFC 6749 §3.1).
#[derive(Default)]
pub(super) struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    /// Reads parameters, repeated ones included.
    ///
    /// # Errors
    /// 400 `invalid_request` for more than 120 parameters.
    pub(super) fn parse(encoded: &[u8]) -> Result<Self, HttpError> {
        let pairs = form_urlencoded::parse(encoded)
            .map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())));
        let pairs = pairs.filter(|(_, value)| !value.is_empty());
        let form = Self(pairs.take(MAX_PARAMETERS + 1).collect());
        if form.0.len() > MAX_PARAMETERS {
            return Err(HttpError::invalid_request("there are too many parameters"));
        }
        Ok(form)
    }

    /// Reads a form from a body, repeated parameters included.
    ///
    /// # Errors
    /// As [`Self::body`] and [`Self::parse`].
    pub(super) async fn read(request: Request) -> Result<Self, HttpError> {
        Self::parse(&Self::body(request).await?)
    }

    /// Reads the form of a request to an OAuth endpoint, in which nothing but `resource` is repeated.
    ///
    /// # Errors
    /// 400 `invalid_request`.
    pub(super) fn of_endpoint(encoded: &[u8]) -> Result<Self, HttpError> {
        let form = Self::parse(encoded)?;
        // RFC 8707 §2 allows several `resource` parameters; the issuance rejects them.
        if form.repeats_other_than(&["resource"]) {
            return Err(HttpError::invalid_request("a parameter is repeated"));
        }
        Ok(form)
    }

    /// Reads the body that holds a form.
    ///
    /// # Errors
    /// 415 for another content type or a content coding; 413 for an oversized body; 408 for one that does not end in time.
    pub(super) async fn body(request: Request) -> Result<Bytes, HttpError> {
        let rule = if !is_form(&request) {
            Some("the content type must be application/x-www-form-urlencoded")
        } else if is_coded(&request) {
            Some("the body must have no content coding")
        } else {
            None
        };
        if let Some(rule) = rule {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(HttpError::new(status, "invalid_request", rule));
        }
        let body = timeout(BODY_TIME, Bytes::from_request(request, &()));
        let Ok(body) = body.await else {
            let status = StatusCode::REQUEST_TIMEOUT;
            return Err(HttpError::new(
                status,
                "invalid_request",
                "the body did not come in time",
            ));
        };
        body.map_err(unreadable)
    }

    /// The value of a parameter; the first, if it is repeated.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| known == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter; empty if it is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(known, _)| known == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// Whether a parameter occurs more than once.
    pub(super) fn repeats(&self, name: &str) -> bool {
        self.all(name).nth(1).is_some()
    }

    /// Whether any parameter but these occurs more than once, which RFC 6749 §3.1 and §3.2 forbid.
    pub(super) fn repeats_other_than(&self, allowed: &[&str]) -> bool {
        let mut names = self.0.iter().map(|(name, _)| name.as_str());
        names.any(|name| !allowed.contains(&name) && self.repeats(name))
    }
}

/// The body of a request to an OAuth endpoint.
impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = HttpError;

    async fn from_request(request: Request, _: &S) -> Result<Self, HttpError> {
        Self::of_endpoint(&Self::body(request).await?)
    }
}

fn is_form(request: &Request) -> bool {
    let mut content_types = request.headers().get_all(header::CONTENT_TYPE).iter();
    let (Some(content_type), None) = (content_types.next(), content_types.next()) else {
        return false;
    };
    let content_type = content_type.to_str().unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Returns whether the body has a content coding other than `identity` (RFC 9110 §8.4).
fn is_coded(request: &Request) -> bool {
    let mut codings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn unreadable(rejection: BytesRejection) -> HttpError {
    match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            HttpError::new(status, "invalid_request", "the body is too large")
        }
        _ => HttpError::invalid_request("the body can't be read"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_rejected_in_time() {
        let pieces = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::post("/acme/oauth2/token")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(axum::body::Body::from_stream(pieces))
            .unwrap();
        let error = Form::body(request).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (408, "invalid_request"));
    }

    #[test]
    fn parameters_are_decoded_and_repetitions_seen() {
        let form = Form::parse(b"a=1+%2B&b=&c=x&c=y&%64=%C3%A9").unwrap();
        assert_eq!(form.get("a"), Some("1 +"));
        assert_eq!(form.get("b"), None);
        assert_eq!(form.all("c").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(form.text("d"), "é");
        assert!(form.repeats("c") && !form.repeats("a"));
        assert!(form.repeats_other_than(&["a"]));
        assert!(!form.repeats_other_than(&["c"]));
        assert!(!Form::parse(b"a=&a=1").unwrap().repeats("a"));
        let many = |count: usize| Form::parse("a=1&".repeat(count).as_bytes()).is_ok();
        assert!(many(MAX_PARAMETERS) && !many(MAX_PARAMETERS + 1));
    }
}
