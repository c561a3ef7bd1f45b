//! Converts token requests and their results.

use accord::{
    clock::UnixMillis,
    dpop::DPOP_NONCE,
    rpc::tls::peer::ClientCertificate,
    text::{id::TenantId, uri::MAX_URL_BYTES, validation::Violations},
    token::v1::{
        self as pb,
        introspect_token_request::ClientAuthentication as IntrospectAuthentication,
        issue_token_request::{ClientAuthentication as IssueAuthentication, Grant},
        push_authorization_request_request::ClientAuthentication as PushAuthentication,
        revoke_token_request::ClientAuthentication as RevokeAuthentication,
    },
    verify::{MAX_TOKEN_BYTES, Scheme},
};
use tonic::Response;
use zeroize::Zeroizing;

use super::{address, present, scopes, setup::parameters};
use crate::{
    error::{Error, Result},
    model::{
        client::SecretLocation::Field,
        revocation::{Revocation, RevocationKind},
    },
    oauth::{
        binding::Binding,
        client_authentication::{ClientCredential, Credentials},
        issuance::{CodeRequest, GrantRequest, Issued, Request},
        pushed_request::{self, Pushed},
        revocation_feed::Page,
    },
};

/// The longest certificate of a caller, in bytes.
const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

accord::message_enum! { RevocationKind = pb::RevocationKind { Jti, Family, Grant, Client, Tenant, User, Kid } }

/// Converts the client authentication of each message that has one.
macro_rules! client_authentication {
    ($($authentication:ident),*) => {
        $(impl From<$authentication> for ClientCredential {
            fn from(authentication: $authentication) -> Self {
                match authentication {
                    $authentication::ClientSecret(secret) => Self::Secret(Field, Zeroizing::new(secret)),
                    $authentication::ClientAssertion(jwt) => Self::Assertion(Zeroizing::new(jwt)),
                }
            }
        })*
    };
}

client_authentication!(
    IssueAuthentication,
    PushAuthentication,
    IntrospectAuthentication,
    RevokeAuthentication
);

/// Returns the `grant_type` of RFC 6749; empty if the message has no grant.
pub fn grant_type(request: &pb::IssueTokenRequest) -> &'static str {
    match &request.grant {
        Some(Grant::AuthorizationCode(_)) => "authorization_code",
        Some(Grant::RefreshToken(_)) => "refresh_token",
        Some(Grant::ClientCredentials(_)) => "client_credentials",
        None => "",
    }
}

/// Reads an `IssueTokenRequest`.
///
/// # Errors
/// [`Error::Invalid`] with all violations, [`Error::UnsupportedGrantType`].
pub fn issue(request: pb::IssueTokenRequest, certificate: Option<ClientCertificate>) -> Result<Request> {
    let credential = request.client_authentication.map(ClientCredential::from);
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let scopes = scopes(&mut v, &request.scopes);
    if request.resource.len() > MAX_URL_BYTES {
        v.add("resource", format!("must have at most {MAX_URL_BYTES} bytes"));
    }
    let grant = request.grant.map(|grant| match grant {
        Grant::AuthorizationCode(grant) => {
            token(&mut v, "authorization_code.code", &grant.code);
            token(&mut v, "authorization_code.redirect_uri", &grant.redirect_uri);
            token(&mut v, "authorization_code.code_verifier", &grant.code_verifier);
            GrantRequest::AuthorizationCode(CodeRequest {
                code: Zeroizing::new(grant.code),
                redirect_uri: grant.redirect_uri,
                code_verifier: Zeroizing::new(grant.code_verifier),
            })
        }
        Grant::RefreshToken(grant) => {
            token(&mut v, "refresh_token.refresh_token", &grant.refresh_token);
            GrantRequest::RefreshToken(Zeroizing::new(grant.refresh_token))
        }
        Grant::ClientCredentials(_) => GrantRequest::ClientCredentials,
    });
    if !v.is_empty() {
        // On their own they have reasons of their own.
        if grant.is_none() {
            v.add(
                "grant",
                "must be authorization_code, refresh_token or client_credentials",
            );
        }
        if request.client_id.is_empty() && credential.is_none() {
            v.add("client_id", "must not be empty without a client assertion");
        }
    }
    let tenant_id = v.finish(|| tenant_id)?;
    Ok(Request {
        tenant_id,
        credentials: Credentials::new(request.client_id, credential, certificate),
        grant: grant.ok_or(Error::UnsupportedGrantType)?,
        scopes,
        resource: request.resource,
        dpop_proof: Some(request.dpop_proof).filter(|proof| !proof.is_empty()),
    })
}

/// Reads a `PushAuthorizationRequestRequest`.
///
/// # Errors
/// [`Error::Invalid`] with all violations.
pub fn push(
    request: pb::PushAuthorizationRequestRequest,
    certificate: Option<ClientCertificate>,
) -> Result<pushed_request::Request> {
    let credential = request.client_authentication.map(ClientCredential::from);
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let parameters = parameters(
        &mut v,
        pb::StartSetupRequest {
            redirect_uri: request.redirect_uri,
            scopes: request.scopes,
            state: request.state,
            code_challenge: request.code_challenge,
            resource: request.resource,
            dpop_jkt: request.dpop_jkt,
            ..Default::default()
        },
    );
    let tenant_id = v.finish(|| tenant_id)?;
    Ok(pushed_request::Request {
        tenant_id,
        credentials: Credentials::new(request.client_id, credential, certificate),
        parameters,
        dpop_proof: Some(request.dpop_proof).filter(|proof| !proof.is_empty()),
    })
}

/// Rejects an empty or oversized field.
fn token(v: &mut Violations, field: &str, value: &str) {
    if value.is_empty() {
        v.add(field, "must not be empty");
    } else if value.len() > MAX_TOKEN_BYTES {
        v.add(field, format!("must have at most {MAX_TOKEN_BYTES} bytes"));
    }
}

/// An introspection request. No `Debug`: it holds a token and credentials.
pub struct Introspect {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The token.
    pub token: Zeroizing<String>,
    /// The client's credentials; `None` for a workload.
    pub credentials: Option<Credentials>,
    /// What the workload reports of the call that brought the token, if anything.
    pub binding: Option<Binding>,
}

/// Reads an `IntrospectTokenRequest`. A workload was authenticated already: it must not send client credentials.
///
/// # Errors
/// [`Error::Invalid`] with all violations, [`Error::Unauthenticated`] when neither a workload nor a client calls.
pub fn introspect(
    request: pb::IntrospectTokenRequest,
    by_workload: bool,
    certificate: Option<ClientCertificate>,
) -> Result<Introspect> {
    let names_client = !request.client_id.is_empty() || request.client_authentication.is_some();
    let credential = request.client_authentication.map(ClientCredential::from);
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    token(&mut v, "token", &request.token);
    if by_workload && names_client {
        v.add("client_id", "must be empty when a workload calls");
    }
    if !by_workload && request.binding.is_some() {
        v.add("binding", "must be absent when a client calls");
    }
    let binding = request.binding.map(|message| binding(&mut v, message));
    let tenant_id = v.finish(|| tenant_id)?;
    let credentials = match (by_workload, names_client) {
        (true, _) => None,
        (false, true) => Some(Credentials::new(request.client_id, credential, certificate)),
        (false, false) => return Err(Error::Unauthenticated),
    };
    Ok(Introspect {
        tenant_id,
        token: Zeroizing::new(request.token),
        credentials,
        binding,
    })
}

/// Reads what a workload reports of a call.
fn binding(v: &mut Violations, message: pb::TokenBinding) -> Binding {
    let client_address = v.optional("binding.client_address", &message.client_address, address);
    let scheme = match message.scheme.to_ascii_lowercase().as_str() {
        "" => None,
        "bearer" => Some(Scheme::Bearer),
        "dpop" => Some(Scheme::Dpop),
        _ => v.check("binding.scheme", Err("must be Bearer, DPoP or empty")),
    };
    if !message.dpop_proof.is_empty() {
        present(v, "binding.method", &message.method);
        present(v, "binding.url", &message.url);
    }
    if message.client_certificate.len() > MAX_CERTIFICATE_BYTES {
        let rule = format!("must have at most {MAX_CERTIFICATE_BYTES} bytes");
        v.add("binding.client_certificate", rule);
    }
    Binding {
        dpop_proof: message.dpop_proof,
        method: message.method,
        url: message.url,
        client_certificate: message.client_certificate,
        client_address: client_address.flatten(),
        scheme,
    }
}

/// Reads a `RevokeTokenRequest`.
///
/// # Errors
/// [`Error::Invalid`] with all violations.
pub fn revoke(
    request: pb::RevokeTokenRequest,
    certificate: Option<ClientCertificate>,
) -> Result<(TenantId, Zeroizing<String>, Credentials)> {
    let credential = request.client_authentication.map(ClientCredential::from);
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    token(&mut v, "token", &request.token);
    let tenant_id = v.finish(|| tenant_id)?;
    let credentials = Credentials::new(request.client_id, credential, certificate);
    Ok((tenant_id, Zeroizing::new(request.token), credentials))
}

/// Writes the tokens of a client. The nonce for the client's next DPoP proof goes into the metadata; over HTTP it is a header.
pub fn issued(mut issued: Issued) -> Response<pb::IssueTokenResponse> {
    let refresh_token = issued.refresh_token.map(|token| token.expose().to_owned());
    let mut response = Response::new(pb::IssueTokenResponse {
        access_token: std::mem::take(&mut *issued.access_token),
        token_type: issued.token_type.to_owned(),
        expires_in: issued.expires_in,
        refresh_token: refresh_token.unwrap_or_default(),
        scope: issued.scope,
        grant_id: issued.grant_id,
    });
    add_dpop_nonce(&mut response, issued.dpop_nonce);
    response
}

/// Writes the response to a pushed request.
pub fn pushed(pushed: Pushed) -> Response<pb::PushAuthorizationRequestResponse> {
    let mut response = Response::new(pb::PushAuthorizationRequestResponse {
        request_uri: pushed.request_uri.to_string(),
        expires_in: pushed.expires_in,
    });
    add_dpop_nonce(&mut response, pushed.dpop_nonce);
    response
}

/// Adds the nonce for the client's next proof (RFC 9449 §8.2).
fn add_dpop_nonce<T>(response: &mut Response<T>, nonce: Option<String>) {
    if let Some(nonce) = nonce.and_then(|nonce| nonce.parse().ok()) {
        response.metadata_mut().as_mut().insert(DPOP_NONCE, nonce);
    }
}

/// Writes a page of revocations.
pub fn revocations(page: Page, now: UnixMillis) -> pb::ListRevocationsResponse {
    pb::ListRevocationsResponse {
        next_cursor: page.next.to_string(),
        epoch: page.next.epoch,
        snapshot: page.snapshot,
        more: page.more,
        read_time: Some(now.minus(page.age).to_timestamp()),
        age: page.age.try_into().ok(),
        revocations: page.revocations.into_iter().map(revocation).collect(),
    }
}

fn revocation(revocation: Revocation) -> pb::Revocation {
    pb::Revocation {
        kind: pb::RevocationKind::from(revocation.kind).into(),
        id: revocation.id,
        seq: revocation.seq,
    }
}
