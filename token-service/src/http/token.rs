//! The endpoints that clients call: token (RFC 6749 §3.2), introspection (RFC 7662, signed by RFC 9701) and
//! revocation (RFC 7009).

use std::{collections::HashSet, sync::Arc};

use accord::text::{
    id::{ClientId, ScopeName, TenantId},
    opaque::RefreshToken,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{HttpState, client::credentials, discovery::Tenant, error::HttpError, form::Form};
use crate::{
    error::{Error, Result},
    oauth::{
        client_authentication::authenticate,
        introspection::{self, MEDIA_TYPE, Requester},
        issuance::{self, CodeRequest, GrantRequest, Request},
        revocation,
    },
};

/// The most scopes of a request.
const MAX_SCOPES: usize = 100;
/// The longest value of a parameter, in bytes.
const MAX_VALUE_BYTES: usize = 16 * 1024;
/// The headers of responses that no cache may store (RFC 6749 §5.1).
const NO_STORE: [(header::HeaderName, &str); 2] =
    [(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")];

/// `POST /{tenant}/oauth2/token`.
pub(super) async fn token(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, HttpError> {
    let request = Request {
        tenant_id,
        credentials: credentials(&headers, &form)?,
        grant: grant(&form)?,
        scopes: scopes(form.text("scope"))?,
        resource: resource(&form)?,
    };
    let issued = issuance::issue(&http.oauth, &request).await?;
    let response = TokenResponse {
        access_token: &issued.access_token,
        token_type: "Bearer",
        expires_in: issued.expires_in,
        scope: &issued.scope,
        grant_id: &issued.grant_id,
        refresh_token: issued.refresh_token.as_ref().map(RefreshToken::expose),
    };
    Ok((NO_STORE, Json(response)).into_response())
}

/// Reads the grant. Accepts a code without a verifier or redirect URI: the issuance rejects it and uses the code up.
fn grant(form: &Form) -> Result<GrantRequest, HttpError> {
    let secret = |name: &'static str| required(form, name).map(|value| Zeroizing::new(value.to_owned()));
    match required(form, "grant_type")? {
        "authorization_code" => Ok(GrantRequest::AuthorizationCode(CodeRequest {
            code: secret("code")?,
            redirect_uri: form.text("redirect_uri").to_owned(),
            code_verifier: Zeroizing::new(form.text("code_verifier").to_owned()),
        })),
        "refresh_token" => Ok(GrantRequest::RefreshToken(secret("refresh_token")?)),
        "client_credentials" => Ok(GrantRequest::ClientCredentials),
        _ => Err(Error::UnsupportedGrantType.into()),
    }
}

/// Reads scopes separated by single spaces (RFC 6749 §3.3), without duplicates; none for an empty text.
pub(super) fn scopes(text: &str) -> Result<Vec<ScopeName>> {
    let names = text.split(' ').filter(|_| !text.is_empty());
    let scopes = names.map(ScopeName::parse).collect::<Result<Vec<_>, _>>();
    let mut scopes = scopes.map_err(|_| Error::InvalidScope)?;
    let mut seen = HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    if scopes.len() > MAX_SCOPES {
        return Err(Error::InvalidScope);
    }
    Ok(scopes)
}

/// Reads the resource (RFC 8707 §2); empty if there is none. A token is for one API, so several resources are an
/// invalid target.
pub(super) fn resource(form: &Form) -> Result<String> {
    if form.repeats("resource") {
        return Err(Error::InvalidTarget);
    }
    Ok(form.text("resource").to_owned())
}

/// The response of RFC 6749 §5.1. No `Debug`: it holds tokens.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u32,
    scope: &'a str,
    grant_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
}

/// `POST /{tenant}/oauth2/introspect`: shows a client only its own tokens.
pub(super) async fn introspect(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, HttpError> {
    let client_id = authenticated_client(&http, &tenant_id, &headers, &form).await?;
    let token = required(&form, "token")?;
    let requester = Requester::Client(client_id.clone());
    let introspected = introspection::introspect(&http.oauth, &requester, &tenant_id, token).await?;
    if wants_jwt(&headers) {
        let jwt = introspection::sign(&http.oauth, &tenant_id, &client_id, &introspected).await?;
        let media_type = [(header::CONTENT_TYPE, MEDIA_TYPE)];
        return Ok((NO_STORE, media_type, jwt.to_string()).into_response());
    }
    Ok((NO_STORE, Json(introspected)).into_response())
}

/// Returns whether the client accepts a signed JWT (RFC 9701 §4).
fn wants_jwt(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let media_type = range.split(';').next().unwrap_or_default();
        media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE)
    })
}

/// `POST /{tenant}/oauth2/revoke`: returns 200 for unknown tokens too (RFC 7009 §2.2).
pub(super) async fn revoke(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, HttpError> {
    let client_id = authenticated_client(&http, &tenant_id, &headers, &form).await?;
    let token = required(&form, "token")?;
    revocation::revoke(&http.oauth, &client_id, &tenant_id, token).await?;
    Ok((NO_STORE, StatusCode::OK).into_response())
}

async fn authenticated_client(
    http: &HttpState,
    tenant_id: &TenantId,
    headers: &HeaderMap,
    form: &Form,
) -> Result<ClientId, HttpError> {
    let credentials = credentials(headers, form)?;
    let authenticated = authenticate(&http.oauth, tenant_id, &credentials).await?;
    Ok(authenticated.client.value.client_id.clone())
}

/// Returns the value of a parameter. Rejects a request without it, and a value that is too long.
fn required<'a>(form: &'a Form, name: &str) -> Result<&'a str, HttpError> {
    match form.get(name) {
        Some(value) if value.len() <= MAX_VALUE_BYTES => Ok(value),
        Some(_) => Err(HttpError::invalid_request(&format!("{name} is too long"))),
        None => Err(HttpError::invalid_request(&format!("{name} is missing"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::text::id::join_scopes;

    use super::*;

    #[test]
    fn scopes_are_separated_by_single_spaces() {
        let names = |text| scopes(text).map(|scopes| join_scopes(&scopes)).ok();
        assert_eq!(names(""), Some(String::new()));
        assert_eq!(names("a.read b a.read"), Some("a.read b".into()));
        for bad in [" a", "a ", "a  b", "a\tb", "\"a\"", "é"] {
            assert_eq!(names(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_signed_response_needs_its_media_type_in_accept() {
        let wants =
            |accept: &str| wants_jwt(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        assert!(wants("application/token-introspection+jwt"));
        assert!(wants(
            "application/json;q=0.5, application/token-introspection+JWT; q=1"
        ));
        assert!(!wants("application/json"));
        assert!(!wants("*/*"));
    }
}
