//! A client's credentials in an HTTP request: exactly one of `client_secret_basic`, `client_secret_post`
//! (RFC 6749 §2.3.1), `private_key_jwt` (RFC 7523 §2.2), and the certificate alone (RFC 8705 §2).

use std::sync::Arc;

use accord::{
    rpc::tls::peer::ClientCertificate,
    text::{BASE64_ANY_PADDING, id::WorkloadId},
};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderValue, header, request::Parts},
};
use base64::Engine;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{HttpState, error::HttpError, form::Form};
use crate::{
    model::client::SecretLocation,
    oauth::client_authentication::{ASSERTION_TYPE, ClientCredential, Credentials},
};

/// The error description for a request with more than one kind of credentials.
pub(super) const ONE_METHOD: &str = "the client must use one authentication method only";

/// What a request says of its client beside its body.
pub(super) struct ClientParts {
    pub(super) headers: HeaderMap,
    /// The certificate that the client presented, on the connection or to the gateway.
    pub(super) certificate: Option<ClientCertificate>,
}

impl FromRequestParts<Arc<HttpState>> for ClientParts {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, http: &Arc<HttpState>) -> Result<Self, HttpError> {
        let certificates = &http.oauth.mutual_tls.certificates;
        let certificate = certificates.find(&parts.extensions, &parts.headers)?;
        Ok(Self {
            headers: parts.headers.clone(),
            certificate,
        })
    }
}

/// Reads the credentials of a request.
pub(super) fn credentials(parts: &ClientParts, form: &Form) -> Result<Credentials, HttpError> {
    let ClientParts { headers, certificate } = parts;
    let invalid = |description: &str| Err(HttpError::invalid_request(description));
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    if authorizations.next().is_some() {
        return invalid("Authorization is repeated");
    }
    let client_id = form.text("client_id").to_owned();
    let (secret, assertion) = (form.get("client_secret"), form.get("client_assertion"));
    let credential = match (authorization, secret, assertion) {
        (Some(authorization), None, None) => {
            let (named, credential) = basic(authorization);
            let is_readable = !matches!(credential, ClientCredential::Missing(_));
            if is_readable && !client_id.is_empty() && client_id != named {
                return invalid("client_id differs from that in Authorization");
            }
            return Ok(Credentials::new(named, Some(credential), certificate.clone()));
        }
        (None, Some(secret), None) => {
            let secret = Zeroizing::new(secret.to_owned());
            Some(ClientCredential::Secret(SecretLocation::Form, secret))
        }
        (None, None, Some(jwt)) => {
            if form.get("client_assertion_type") != Some(ASSERTION_TYPE) {
                return invalid("client_assertion_type must be the URN for JWTs (RFC 7523)");
            }
            Some(ClientCredential::Assertion(Zeroizing::new(jwt.to_owned())))
        }
        (None, None, None) => None,
        _ => return invalid(ONE_METHOD),
    };
    Ok(Credentials::new(client_id, credential, certificate.clone()))
}

/// Reads the credentials of an `Authorization: Basic` header, whose parts are form-encoded.
fn basic(authorization: &HeaderValue) -> (String, ClientCredential) {
    let read = || {
        let pair = basic_pair(authorization)?;
        let (client_id, secret) = pair.split_once(':')?;
        let credential = ClientCredential::Secret(SecretLocation::Header, form_decoded(secret)?);
        Some((form_decoded(client_id)?.to_string(), credential))
    };
    let unreadable = ClientCredential::Missing("Authorization contains no valid Basic credentials");
    read().unwrap_or((String::new(), unreadable))
}

/// Decodes an `Authorization: Basic` header. Returns `None` for any other header.
fn basic_pair(authorization: &HeaderValue) -> Option<Zeroizing<String>> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = Zeroizing::new(BASE64_ANY_PADDING.decode(encoded.trim()).ok()?);
    let pair = std::str::from_utf8(&decoded).ok()?;
    Some(Zeroizing::new(pair.to_owned()))
}

/// The token of a workload in an HTTP request. No `Debug`.
pub(super) struct WorkloadToken {
    /// The workload's id in Basic credentials; `None` for a bearer token.
    pub(super) workload_id: Option<String>,
    pub(super) token: Zeroizing<String>,
}

/// Reads a bearer token, or Basic credentials of a workload's id and token. Returns `None` for all other requests. Does
/// not form-decode the id, so that a gateway that matches the header's bytes sees the same id.
pub(super) fn workload_token(headers: &HeaderMap) -> Option<WorkloadToken> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(authorization), None) = (authorizations.next(), authorizations.next()) else {
        return None;
    };
    let (scheme, token) = authorization.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(WorkloadToken {
            workload_id: None,
            token: Zeroizing::new(token.trim().to_owned()),
        });
    }
    let pair = basic_pair(authorization)?;
    let (workload_id, token) = pair.split_once(':')?;
    WorkloadId::parse(workload_id).is_ok().then(|| WorkloadToken {
        workload_id: Some(workload_id.to_owned()),
        token: Zeroizing::new(token.to_owned()),
    })
}

/// Decodes a form-encoded value. Returns `None` if it contains a delimiter, `&` or `=`.
fn form_decoded(encoded: &str) -> Option<Zeroizing<String>> {
    if encoded.contains(['&', '=']) {
        return None;
    }
    let pair = form_urlencoded::parse(encoded.as_bytes()).next();
    Some(Zeroizing::new(
        pair.map(|(value, _)| value.into_owned()).unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::engine::general_purpose;

    use super::*;

    fn with_basic(text: &str) -> HeaderMap {
        let value = format!("Basic {}", general_purpose::STANDARD.encode(text));
        header(&value)
    }

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    fn secret(headers: &HeaderMap, form: &str) -> Result<(String, String), &'static str> {
        let parts = ClientParts {
            headers: headers.clone(),
            certificate: None,
        };
        match credentials(&parts, &Form::parse(form.as_bytes()).unwrap()) {
            Ok(Credentials {
                client_id,
                credential: ClientCredential::Secret(_, secret),
                ..
            }) => Ok((client_id, secret.to_string())),
            Ok(Credentials {
                credential: ClientCredential::Assertion(_),
                ..
            }) => Err("assertion"),
            Ok(_) => Err("missing"),
            Err(error) => Err(error.code),
        }
    }

    #[test]
    fn basic_credentials_are_form_decoded() {
        let read = |text: &str| secret(&with_basic(text), "");
        let of = |id: &str, secret: &str| Ok((id.to_owned(), secret.to_owned()));
        assert_eq!(read("cli:acs"), of("cli", "acs"));
        assert_eq!(read("cli:a+b%3A%26c"), of("cli", "a b:&c"));
        assert_eq!(read("cli:a:b"), of("cli", "a:b"));
        assert_eq!(secret(&header("bAsIc Y2xpOmFjcw"), ""), of("cli", "acs"));
        for broken in [
            "Basic",
            "Basic ",
            "Basic !!!",
            "Basic Y2xp",
            "Bearer Y2xpOmFjcw==",
            "Basic /w==",
        ] {
            assert_eq!(secret(&header(broken), ""), Err("missing"), "{broken}");
        }
        assert_eq!(read("cli:a&b"), Err("missing"));
    }

    #[test]
    fn a_request_uses_one_authentication_method() {
        let none = HeaderMap::new();
        assert_eq!(
            secret(&none, "client_id=c&client_secret=s"),
            Ok(("c".into(), "s".into()))
        );
        assert_eq!(secret(&none, "client_id=c"), Err("missing"));
        let basic = with_basic("c:s");
        assert_eq!(secret(&basic, "client_id=c"), Ok(("c".into(), "s".into())));
        assert_eq!(secret(&basic, "client_id=d"), Err("invalid_request"));
        assert_eq!(secret(&basic, "client_secret=s"), Err("invalid_request"));
        assert_eq!(
            secret(&none, "client_secret=s&client_assertion=j"),
            Err("invalid_request")
        );
        assert_eq!(
            secret(&none, "client_assertion=j&client_assertion_type=x"),
            Err("invalid_request")
        );
        let assertion = format!("client_assertion=j&client_assertion_type={ASSERTION_TYPE}");
        assert_eq!(secret(&none, &assertion), Err("assertion"));
        let mut twice = with_basic("c:s");
        twice.append(header::AUTHORIZATION, "Basic Yzpz".parse().unwrap());
        assert_eq!(secret(&twice, ""), Err("invalid_request"));
    }
}
