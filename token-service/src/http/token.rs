//! The endpoints that clients call: token (RFC 6749 §3.2), introspection (RFC 7662, with the signed responses of
//! RFC 9701) and revocation (RFC 7009).

use std::{collections::HashSet, sync::Arc};

use accord::{
    dpop,
    rpc::auth::unauthenticated,
    text::{
        id::{ScopeName, TenantId},
        opaque::RefreshToken,
    },
    verify::MAX_TOKEN_BYTES,
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use headers_accept::Accept;
use mediatype::{MediaType, names};
use serde::Serialize;
use tonic::Status;
use zeroize::Zeroizing;

use super::{
    HttpState,
    client::{ClientParts, ONE_METHOD, WorkloadToken, credentials, workload_token},
    discovery::Tenant,
    error::{HttpError, NO_STORE, add_dpop_nonce},
    form::Form,
};
use crate::{
    error::{Error, Result},
    model::{client::MAX_SCOPES, tenant::is_same_url},
    oauth::{
        client_authentication::authenticate_and_spend,
        dpop::rejected,
        introspection::{self, MEDIA_TYPE, Requester},
        issuance::{self, CodeRequest, GrantRequest, Request},
        revocation,
    },
};

/// The RPC that a workload must be allowed to call, to introspect here.
const INTROSPECT: &str = "/accord.token.v1.TokenService/IntrospectToken";

/// `POST /{tenant}/oauth2/token`.
pub(super) async fn token(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    parts: ClientParts,
    form: Form,
) -> Result<Response, HttpError> {
    let request = request(tenant_id, &parts, &form);
    let request = request.inspect_err(|error| {
        issuance::count_rejected(form.text("grant_type"), error.reason());
    })?;
    let issued = issuance::issue(&http.oauth, &request).await?;
    let response = TokenResponse {
        access_token: &issued.access_token,
        token_type: issued.token_type,
        expires_in: issued.expires_in,
        scope: &issued.scope,
        grant_id: &issued.grant_id,
        refresh_token: issued.refresh_token.as_ref().map(RefreshToken::expose),
    };
    let mut response = (NO_STORE, Json(response)).into_response();
    add_dpop_nonce(response.headers_mut(), issued.dpop_nonce.as_deref());
    Ok(response)
}

fn request(tenant_id: TenantId, parts: &ClientParts, form: &Form) -> Result<Request, HttpError> {
    Ok(Request {
        tenant_id,
        credentials: credentials(parts, form)?,
        grant: grant(form)?,
        scopes: scopes(form.text("scope"))?,
        resource: resource(form)?,
        dpop_proof: dpop_proof(&parts.headers)?,
    })
}

/// Reads the DPoP proof (RFC 9449 §4.3 number 1).
pub(super) fn dpop_proof(headers: &HeaderMap) -> Result<Option<String>> {
    let proof = dpop::from_headers(headers).map_err(rejected)?;
    Ok(proof.map(str::to_owned))
}

/// Reads the grant. Rejects a request that lacks a parameter before its code or refresh token is used.
fn grant(form: &Form) -> Result<GrantRequest, HttpError> {
    let secret = |name: &'static str| required(form, name).map(|value| Zeroizing::new(value.to_owned()));
    match required(form, "grant_type")? {
        "authorization_code" => Ok(GrantRequest::AuthorizationCode(CodeRequest {
            code: secret("code")?,
            redirect_uri: required(form, "redirect_uri")?.to_owned(),
            code_verifier: secret("code_verifier")?,
        })),
        "refresh_token" => Ok(GrantRequest::RefreshToken(secret("refresh_token")?)),
        "client_credentials" => Ok(GrantRequest::ClientCredentials),
        _ => Err(Error::UnsupportedGrantType.into()),
    }
}

/// Reads scopes separated by single spaces (RFC 6749 §3.3), without duplicates. An empty text has none.
pub(super) fn scopes(text: &str) -> Result<Vec<ScopeName>> {
    let names = text.split(' ').filter(|_| !text.is_empty());
    // Repeated ones count too: this runs before the client is authenticated.
    if names.clone().nth(MAX_SCOPES).is_some() {
        return Err(Error::InvalidScope);
    }
    let scopes = names.map(ScopeName::parse).collect::<Result<Vec<_>, _>>();
    let mut scopes = scopes.map_err(|_| Error::MalformedScope)?;
    let mut seen = HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    Ok(scopes)
}

/// Reads the resource (RFC 8707 §2); empty if there is none. Rejects several different ones, because a token is for
/// one API.
pub(super) fn resource(form: &Form) -> Result<String> {
    let first = form.text("resource");
    let is_one = form.all("resource").all(|other| is_same_url(other, first));
    is_one.then(|| first.to_owned()).ok_or(Error::InvalidTarget)
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

/// `POST /{tenant}/oauth2/introspect`: shows a client only its own tokens, and an internal service all of the tenant's.
///
/// RFC 7662 has no parameters for what came with a token, and libraries send none: an internal service that lets Accord check the
/// binding of tokens calls over gRPC.
pub(super) async fn introspect(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    parts: ClientParts,
    form: Form,
) -> Result<Response, HttpError> {
    let token = required(&form, "token")?;
    let (requester, requester_id) = requester(&http, &tenant_id, &parts, &form).await?;
    let introspected = introspection::introspect(&http.oauth, &requester, &tenant_id, token, None).await?;
    if wants_jwt(&parts.headers) {
        let jwt = introspection::sign(&http.oauth, &tenant_id, &requester_id, &introspected).await?;
        let media_type = [(header::CONTENT_TYPE, MEDIA_TYPE)];
        return Ok((NO_STORE, media_type, jwt.to_string()).into_response());
    }
    Ok((NO_STORE, Json(introspected)).into_response())
}

/// Returns the party that introspects, and its id: an internal service by its workload token, else a client.
async fn requester(
    http: &HttpState,
    tenant_id: &TenantId,
    parts: &ClientParts,
    form: &Form,
) -> Result<(Requester, String), HttpError> {
    let Some(WorkloadToken { workload_id, token }) = workload_token(&parts.headers) else {
        let credentials = credentials(parts, form)?;
        let client_id = authenticate_and_spend(&http.oauth, tenant_id, &credentials).await?;
        let requester_id = client_id.to_string();
        return Ok((Requester::Client(client_id), requester_id));
    };
    if ["client_secret", "client_assertion"]
        .iter()
        .any(|name| form.get(name).is_some())
    {
        return Err(HttpError::invalid_request(ONE_METHOD));
    }
    let is_basic = workload_id.is_some();
    // The challenge is for the scheme that was used (RFC 6749 §5.2).
    let rejected = |status: Status| match HttpError::from(status) {
        error if is_basic && error.status == StatusCode::UNAUTHORIZED => HttpError {
            code: "invalid_client",
            ..error
        },
        error => error,
    };
    let caller = http.authorizer.authorize_token(INTROSPECT, &token).await;
    let caller = caller.map_err(rejected)?;
    if workload_id.is_some_and(|named| named != caller.id()) {
        return Err(rejected(unauthenticated()));
    }
    Ok((Requester::Workload, caller.id().to_owned()))
}

/// Returns whether the caller prefers a signed JWT (RFC 9701 §4) to JSON (RFC 9110 §12.5.1).
fn wants_jwt(headers: &HeaderMap) -> bool {
    let json = MediaType::new(names::APPLICATION, names::JSON);
    let Ok(jwt) = MediaType::parse(MEDIA_TYPE) else {
        return false;
    };
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<_> = accepted.filter_map(|value| value.to_str().ok()).collect();
    // An absent or unreadable header accepts everything, so the response is JSON.
    let accepted = accepted.join(",").parse::<Accept>();
    accepted.is_ok_and(|accepted| accepted.negotiate(&[json, jwt.clone()]) == Some(&jwt))
}

/// `POST /{tenant}/oauth2/revoke`: returns 200 for unknown tokens too (RFC 7009 §2.2).
pub(super) async fn revoke(
    State(http): State<Arc<HttpState>>,
    Tenant(tenant_id): Tenant,
    parts: ClientParts,
    form: Form,
) -> Result<Response, HttpError> {
    let token = required(&form, "token")?;
    let credentials = credentials(&parts, &form)?;
    let client_id = authenticate_and_spend(&http.oauth, &tenant_id, &credentials).await?;
    revocation::revoke(&http.oauth, &client_id, &tenant_id, token).await?;
    Ok((NO_STORE, StatusCode::OK).into_response())
}

/// Returns the value of a parameter. Rejects a request without it, and a value that is too long.
pub(super) fn required<'a>(form: &'a Form, name: &str) -> Result<&'a str, HttpError> {
    match form.get(name) {
        Some(value) if value.len() <= MAX_TOKEN_BYTES => Ok(value),
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
            let error = scopes(bad).unwrap_err().to_string();
            assert!(error.contains("single spaces"), "{bad:?}: {error}");
        }
        let longest = ["a"; MAX_SCOPES].join(" ");
        let longer = format!("{longest} a");
        assert_eq!((names(&longest), names(&longer)), (Some("a".into()), None));
    }

    #[test]
    fn a_signed_response_is_preferred_by_the_rules_of_accept() {
        let wants =
            |accept: &str| wants_jwt(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        for jwt in [
            "application/token-introspection+jwt",
            "application/token-introspection+jwt;q=0.001",
            "application/json;q=0.5, application/token-introspection+JWT; q=1",
            "application/token-introspection+jwt, application/json",
            "application/token-introspection+jwt, */*;q=0.8",
            "application/token-introspection+jwt, application/json;q=0, */*",
            "application/*, application/json;q=0",
        ] {
            assert!(wants(jwt), "{jwt}");
        }
        for json in [
            "",
            "application/json",
            "application/*",
            "*/*",
            "text/html",
            "application/token-introspection+jwt;q=0",
            "application/token-introspection+jwt;Q=0.000, */*",
            "application/json, application/token-introspection+jwt;q=0.5",
            "text/html, image/gif, *; q=.2, */*; q=.2",
            "application/token-introspection+jwtx",
            "application/token-introspection",
        ] {
            assert!(!wants(json), "{json}");
        }
        assert!(!wants_jwt(&HeaderMap::new()));
    }
}
