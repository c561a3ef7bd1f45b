//! The bearer token of a request, and the refusals of RFC 6750 §3.

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::VerifyError;

/// When a client that could not be judged should come again, in seconds.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// Why a request is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal<'a> {
    /// It brings no bearer token: 401, without an error (RFC 6750 §3.1).
    NoToken,
    /// Its `Authorization` header is malformed or comes twice: 400.
    InvalidRequest,
    /// The token does not count: 401.
    InvalidToken,
    /// The token lacks one of these scopes, separated by spaces: 403.
    InsufficientScope(&'a str),
    /// What would be needed to judge it is not known: 503.
    Unavailable,
}

impl From<VerifyError> for Refusal<'_> {
    fn from(error: VerifyError) -> Self {
        if error.is_temporary() {
            Self::Unavailable
        } else {
            Self::InvalidToken
        }
    }
}

/// The bearer token of a request: of its one `Authorization` header (RFC 6750 §2.1), the scheme in any
/// letter case (RFC 9110 §11.1). No other place is looked at.
pub(super) fn token(headers: &HeaderMap) -> Result<&str, Refusal<'static>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Refusal::NoToken)?;
    if values.next().is_some() {
        return Err(Refusal::InvalidRequest);
    }
    let value = value.to_str().map_err(|_| Refusal::InvalidRequest)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("Bearer") {
        return Err(Refusal::NoToken);
    }
    // One space or more (RFC 9110 §11.4).
    let token = token.trim_start_matches(' ');
    if is_b64token(token) {
        Ok(token)
    } else {
        Err(Refusal::InvalidRequest)
    }
}

/// `b64token` of RFC 6750 §2.1.
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(allowed)
}

impl Refusal<'_> {
    /// The answer, without a body. `realm` names what is protected.
    pub(super) fn response<B: Default>(self, realm: &str) -> Response<B> {
        let (status, error) = match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, None),
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, Some("invalid_request")),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, Some("invalid_token")),
            Self::InsufficientScope(_) => (StatusCode::FORBIDDEN, Some("insufficient_scope")),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, None),
        };
        let mut response = Response::new(B::default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self == Self::Unavailable {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECS);
            return response;
        }
        let mut challenge = format!("Bearer realm=\"{}\"", quoted(realm));
        if let Some(error) = error {
            challenge.push_str(&format!(", error=\"{error}\""));
        }
        if let Self::InsufficientScope(scope) = self {
            challenge.push_str(&format!(", scope=\"{}\"", quoted(scope)));
        }
        let challenge = HeaderValue::try_from(challenge);
        headers.insert(
            WWW_AUTHENTICATE,
            challenge.unwrap_or(HeaderValue::from_static("Bearer")),
        );
        response
    }
}

/// What may stand between quotes as it is; neither realms nor scopes need anything else.
fn quoted(text: &str) -> String {
    let plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    text.chars().filter(plain).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let pairs = values
            .iter()
            .map(|value| (AUTHORIZATION, HeaderValue::from_bytes(value).unwrap()));
        pairs.collect()
    }

    #[test]
    fn a_token_comes_in_one_header() {
        for value in ["Bearer a.b-_~+/c==", "bearer a.b-_~+/c==", "BEARER  a.b-_~+/c=="] {
            assert_eq!(token(&headers(&[value.as_bytes()])), Ok("a.b-_~+/c=="), "{value}");
        }
    }

    #[test]
    fn what_is_no_bearer_token_is_none() {
        assert_eq!(token(&HeaderMap::new()), Err(Refusal::NoToken));
        for value in ["Basic YTpi", "Bearerx abc", "DPoP abc", "", "Beare"] {
            assert_eq!(
                token(&headers(&[value.as_bytes()])),
                Err(Refusal::NoToken),
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_malformed_or_repeated_is_refused_as_such() {
        let malformed: [&[u8]; 9] = [
            b"Bearer",
            b"Bearer ",
            b"Bearer a b",
            b"Bearer a,b",
            b"Bearer =",
            b"Bearer a=b",
            b"Bearer \"abc\"",
            b"Bearer abc ",
            b"Bearer \xff",
        ];
        for value in malformed {
            assert_eq!(
                token(&headers(&[value])),
                Err(Refusal::InvalidRequest),
                "{value:?}"
            );
        }
        for twice in [[b"Bearer abc", b"Bearer abc"], [b"Basic YTpi", b"Bearer abc"]] {
            let twice = twice.map(|value| value.as_slice());
            assert_eq!(token(&headers(&twice)), Err(Refusal::InvalidRequest));
        }
    }

    #[test]
    fn a_challenge_can_not_be_broken_out_of() {
        let refusal = Refusal::InsufficientScope("a\", b=\"c\\\r\nx: y");
        let response: Response<()> = refusal.response("https://api.example/\"\u{e9}");
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            r#"Bearer realm="https://api.example/", error="insufficient_scope", scope="a, b=cx: y""#
        );
    }
}
