//! Access tokens in requests, and the error responses of RFC 6750 §3 and RFC 9449 §7.1.

use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE},
};
use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::{Scheme, VerifyError};
use crate::dpop;

/// The `Retry-After` of [`Rejection::Unavailable`], in seconds.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("1");

/// The reason for which a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection<'a> {
    /// No bearer token: 401, without an error code (RFC 6750 §3.1).
    NoToken,
    /// A malformed or repeated `Authorization` header: 400.
    InvalidRequest,
    /// The token is invalid: 401.
    InvalidToken,
    /// The token is bound to a key, and was sent as bearer, or the reverse: 401.
    WrongScheme,
    /// The DPoP proof is missing or wrong: 401. Names the claim, or what else is wrong.
    InvalidProof(&'static str),
    /// The token lacks one of these scopes, separated by spaces: 403.
    InsufficientScope(&'a str),
    /// The token can't be checked now: 503.
    Unavailable,
}

impl From<VerifyError> for Rejection<'_> {
    fn from(error: VerifyError) -> Self {
        match error {
            _ if error.is_temporary() => Self::Unavailable,
            VerifyError::Scheme => Self::WrongScheme,
            VerifyError::Proof(what) => Self::InvalidProof(what),
            _ => Self::InvalidToken,
        }
    }
}

/// Returns the bearer token of the only `Authorization` header (RFC 6750 §2.1). The scheme may have any letter case
/// (RFC 9110 §11.1).
#[cfg(feature = "service")]
pub(crate) fn token(headers: &HeaderMap) -> Result<&str, Rejection<'static>> {
    match presented(headers)? {
        (Scheme::Bearer, token) => Ok(token),
        (Scheme::Dpop, _) => Err(Rejection::NoToken),
    }
}

/// Returns the access token of the only `Authorization` header, with its scheme.
pub(super) fn presented(headers: &HeaderMap) -> Result<(Scheme, &str), Rejection<'static>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Rejection::NoToken)?;
    if values.next().is_some() {
        return Err(Rejection::InvalidRequest);
    }
    let value = value.to_str().map_err(|_| Rejection::InvalidRequest)?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("Bearer") => Scheme::Bearer,
        _ if scheme.eq_ignore_ascii_case("DPoP") => Scheme::Dpop,
        _ => return Err(Rejection::NoToken),
    };
    // One space or more (RFC 9110 §11.4).
    let token = token.trim_start_matches(' ');
    is_b64token(token)
        .then_some((scheme, token))
        .ok_or(Rejection::InvalidRequest)
}

/// Returns the `authorization` header of a token, which must be visible ASCII. `Debug` of the header hides it.
pub(crate) fn header(token: &str) -> MetadataValue<Ascii> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = MetadataValue::try_from(text.as_str()).unwrap_or(MetadataValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Returns whether a text is a `b64token` (RFC 6750 §2.1).
fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(allowed)
}

impl Rejection<'_> {
    /// Returns the response, without a body. `realm` names the protected resource, and `metadata` is the URL of its
    /// metadata (RFC 9728 §5.1). `scheme` is that of the token. Without one, the challenges are those of both.
    pub(super) fn response<B: Default>(
        self,
        scheme: Option<Scheme>,
        realm: &str,
        metadata: Option<&str>,
    ) -> Response<B> {
        let (status, error) = match self {
            Self::WrongScheme => (StatusCode::UNAUTHORIZED, Some("invalid_token")),
            Self::InvalidProof(_) => (StatusCode::UNAUTHORIZED, Some("invalid_dpop_proof")),
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
        let schemes: &[Scheme] = match (self, scheme) {
            // What would be right for a bound token.
            (Self::WrongScheme | Self::InvalidProof(_), _) | (_, Some(Scheme::Dpop)) => &[Scheme::Dpop],
            (Self::NoToken, _) => &[Scheme::Bearer, Scheme::Dpop],
            _ => &[Scheme::Bearer],
        };
        for scheme in schemes {
            let challenge = self.challenge(*scheme, error, realm, metadata);
            let fallback = HeaderValue::from_static("Bearer");
            let challenge = HeaderValue::try_from(challenge).unwrap_or(fallback);
            headers.append(WWW_AUTHENTICATE, challenge);
        }
        response
    }

    fn challenge(self, scheme: Scheme, error: Option<&str>, realm: &str, metadata: Option<&str>) -> String {
        let name = match scheme {
            Scheme::Bearer => "Bearer",
            Scheme::Dpop => "DPoP",
        };
        let mut challenge = format!("{name} realm=\"{}\"", quoted(realm));
        if let Some(metadata) = metadata {
            challenge.push_str(&format!(", resource_metadata=\"{}\"", quoted(metadata)));
        }
        if let Some(error) = error {
            challenge.push_str(&format!(", error=\"{error}\""));
        }
        if let Self::InvalidProof(what) = self {
            challenge.push_str(&format!(
                ", error_description=\"the DPoP proof is wrong: {what}\""
            ));
        }
        if let Self::InsufficientScope(scope) = self {
            challenge.push_str(&format!(", scope=\"{}\"", quoted(scope)));
        }
        if scheme == Scheme::Dpop {
            // RFC 9449 §7.1.
            challenge.push_str(&format!(", algs=\"{}\"", dpop::ALGORITHMS.join(" ")));
        }
        challenge
    }
}

/// Removes the characters that a quoted string must escape. Neither realms nor scopes need them.
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
    fn other_schemes_are_no_bearer_token() {
        assert_eq!(token(&HeaderMap::new()), Err(Rejection::NoToken));
        for value in ["DPoP abc", "dpop abc", "DPOP  abc"] {
            let headers = headers(&[value.as_bytes()]);
            assert_eq!(presented(&headers), Ok((Scheme::Dpop, "abc")), "{value}");
            assert_eq!(token(&headers), Err(Rejection::NoToken), "{value}");
        }
        for value in ["Basic YTpi", "Bearerx abc", "DPoPx abc", "", "Beare"] {
            assert_eq!(
                token(&headers(&[value.as_bytes()])),
                Err(Rejection::NoToken),
                "{value}"
            );
        }
    }

    #[test]
    fn malformed_and_repeated_headers_are_rejected() {
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
                Err(Rejection::InvalidRequest),
                "{value:?}"
            );
        }
        for twice in [[b"Bearer abc", b"Bearer abc"], [b"Basic YTpi", b"Bearer abc"]] {
            let twice = twice.map(|value| value.as_slice());
            assert_eq!(token(&headers(&twice)), Err(Rejection::InvalidRequest));
        }
    }

    #[test]
    fn a_challenge_can_not_be_escaped_from() {
        let rejection = Rejection::InsufficientScope("a\", b=\"c\\\r\nx: y");
        let response: Response<()> = rejection.response(
            Some(Scheme::Bearer),
            "https://api.example/\"\u{e9}",
            Some("https://a/\"b"),
        );
        assert_eq!(
            response.headers()[WWW_AUTHENTICATE],
            r#"Bearer realm="https://api.example/", resource_metadata="https://a/b", error="insufficient_scope", scope="a, b=cx: y""#
        );
    }
}
