//! Tokens between messages and the nouns.

use std::collections::HashSet;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ScopeName, TenantId},
        validation::{Violations, list_field},
    },
    token::v1::{
        self as pb,
        introspect_token_request::ClientAuthentication as IntrospectProof,
        issue_token_request::{ClientAuthentication as IssueProof, Grant},
        revoke_token_request::ClientAuthentication as RevokeProof,
    },
};
use zeroize::Zeroizing;

use crate::{
    error::Error,
    model::revocation::{Revocation, RevocationKind},
    oauth::{
        client_authentication::{Credentials, Proof},
        introspection::Active,
        issuance::{GrantRequest, Issued, Request},
        metadata::Metadata,
        revocation_feed::Page,
    },
};

/// The most scopes that a request may name.
const MAX_SCOPES: usize = 100;
/// The longest token that is taken, in bytes.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The credentials of a message that must prove its client.
fn credentials(client_id: String, proof: Option<Proof>) -> Result<Credentials, Error> {
    let proof = proof.ok_or(Error::InvalidClient)?;
    Ok(Credentials { client_id, proof })
}

/// Reads an `IssueTokenRequest`.
///
/// # Errors
/// [`Error::Invalid`] with all violations, [`Error::UnsupportedGrantType`], [`Error::InvalidClient`].
pub fn issue(request: pb::IssueTokenRequest) -> Result<Request, Error> {
    let proof = request.client_authentication.map(|proof| match proof {
        IssueProof::ClientSecret(secret) => Proof::Secret(Zeroizing::new(secret)),
        IssueProof::ClientAssertion(jwt) => Proof::Assertion(Zeroizing::new(jwt)),
    });
    let credentials = credentials(request.client_id, proof);
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    let scopes = scopes(&mut v, &request.scopes);
    if request.resource.len() > accord::text::validation::MAX_URL_BYTES {
        v.add("resource", "must have at most 2048 bytes");
    }
    let grant = match request.grant {
        Some(Grant::AuthorizationCode(grant)) => {
            present(&mut v, "authorization_code.code", &grant.code);
            present(&mut v, "authorization_code.redirect_uri", &grant.redirect_uri);
            present(&mut v, "authorization_code.code_verifier", &grant.code_verifier);
            Some(GrantRequest::AuthorizationCode {
                code: Zeroizing::new(grant.code),
                redirect_uri: grant.redirect_uri,
                code_verifier: Zeroizing::new(grant.code_verifier),
            })
        }
        Some(Grant::RefreshToken(grant)) => {
            present(&mut v, "refresh_token.refresh_token", &grant.refresh_token);
            Some(GrantRequest::RefreshToken(Zeroizing::new(grant.refresh_token)))
        }
        Some(Grant::ClientCredentials(_)) => Some(GrantRequest::ClientCredentials),
        None => None,
    };
    let (Some(tenant_id), true) = (tenant_id, v.is_empty()) else {
        return Err(v.into());
    };
    Ok(Request {
        tenant_id,
        credentials: credentials?,
        grant: grant.ok_or(Error::UnsupportedGrantType)?,
        scopes,
        resource: request.resource,
    })
}

fn scopes(v: &mut Violations, names: &[String]) -> Vec<ScopeName> {
    if names.len() > MAX_SCOPES {
        v.add("scopes", "must have at most 100 elements");
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut scopes = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let field = list_field("scopes", index);
        let Some(name) = v.check(&field, ScopeName::parse(name)) else {
            continue;
        };
        if seen.insert(name.clone()) {
            scopes.push(name);
        } else {
            v.add(field, "must be different from those before it");
        }
    }
    scopes
}

fn present(v: &mut Violations, field: &str, value: &str) {
    if value.is_empty() {
        v.add(field, "must not be empty");
    } else if value.len() > MAX_TOKEN_BYTES {
        v.add(field, "must have at most 16384 bytes");
    }
}

/// A token that somebody asks about or revokes. No `Debug`.
pub struct Asked {
    /// The tenant that it is to be for.
    pub tenant_id: TenantId,
    /// The token.
    pub token: Zeroizing<String>,
    /// The client's proof; `None` where none was brought.
    pub credentials: Option<Credentials>,
}

/// Reads an `IntrospectTokenRequest`; `by_workload` when the caller is proven by the channel.
///
/// # Errors
/// [`Error::Invalid`] with all violations, [`Error::InvalidClient`],
/// [`Error::Unauthenticated`] when nobody is proven.
pub fn introspect(request: pb::IntrospectTokenRequest, by_workload: bool) -> Result<Asked, Error> {
    let names_client = !request.client_id.is_empty() || request.client_authentication.is_some();
    let proof = request.client_authentication.map(|proof| match proof {
        IntrospectProof::ClientSecret(secret) => Proof::Secret(Zeroizing::new(secret)),
        IntrospectProof::ClientAssertion(jwt) => Proof::Assertion(Zeroizing::new(jwt)),
    });
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    present(&mut v, "token", &request.token);
    if by_workload && names_client {
        v.add("client_id", "must be empty when a workload asks");
    }
    let (Some(tenant_id), true) = (tenant_id, v.is_empty()) else {
        return Err(v.into());
    };
    let credentials = match (by_workload, names_client) {
        (true, _) => None,
        (false, true) => Some(credentials(request.client_id, proof)?),
        (false, false) => return Err(Error::Unauthenticated),
    };
    Ok(Asked {
        tenant_id,
        token: Zeroizing::new(request.token),
        credentials,
    })
}

/// Reads a `RevokeTokenRequest`.
///
/// # Errors
/// [`Error::Invalid`] with all violations, [`Error::InvalidClient`].
pub fn revoke(request: pb::RevokeTokenRequest) -> Result<(TenantId, Zeroizing<String>, Credentials), Error> {
    let proof = request.client_authentication.map(|proof| match proof {
        RevokeProof::ClientSecret(secret) => Proof::Secret(Zeroizing::new(secret)),
        RevokeProof::ClientAssertion(jwt) => Proof::Assertion(Zeroizing::new(jwt)),
    });
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", TenantId::parse(&request.tenant_id));
    present(&mut v, "token", &request.token);
    let (Some(tenant_id), true) = (tenant_id, v.is_empty()) else {
        return Err(v.into());
    };
    let credentials = credentials(request.client_id, proof)?;
    Ok((tenant_id, Zeroizing::new(request.token), credentials))
}

/// Reads a tenant's id, where it is all that a message holds.
///
/// # Errors
/// The violation.
pub fn tenant_id(tenant_id: &str) -> Result<TenantId, Violations> {
    let mut v = Violations::default();
    v.check("tenant_id", TenantId::parse(tenant_id)).ok_or(v)
}

/// Writes what a client gets.
pub fn issued(mut issued: Issued) -> pb::IssueTokenResponse {
    pb::IssueTokenResponse {
        access_token: std::mem::take(&mut *issued.access_token),
        token_type: "Bearer".to_owned(),
        expires_in: issued.expires_in,
        refresh_token: issued
            .refresh_token
            .as_ref()
            .map(|token| token.expose().to_owned())
            .unwrap_or_default(),
        scope: issued.scope,
        grant_id: issued.grant_id,
    }
}

/// Writes what a token stands for; an inactive one has no other field set.
pub fn introspected(active: Option<Active>) -> pb::IntrospectTokenResponse {
    let Some(active) = active else {
        return pb::IntrospectTokenResponse {
            active: Some(false),
            ..Default::default()
        };
    };
    pb::IntrospectTokenResponse {
        active: Some(true),
        scope: active.scope,
        client_id: active.client_id,
        sub: active.sub,
        aud: active.aud,
        iss: active.iss,
        exp: active.exp,
        iat: active.iat,
        jti: active.jti,
        token_type: active.token_type.to_owned(),
        tenant_id: active.tenant_id,
        grant_id: active.grant_id,
    }
}

/// Writes what ended.
pub fn revocations(page: Page, now: UnixMillis) -> pb::ListRevocationsResponse {
    pb::ListRevocationsResponse {
        next_cursor: page.next.to_string(),
        epoch: page.epoch().to_owned(),
        snapshot: page.snapshot,
        more: page.more,
        read_time: Some(now.minus(page.age).to_timestamp()),
        age: page.age.try_into().ok(),
        revocations: page.revocations.into_iter().map(revocation).collect(),
    }
}

fn revocation(revocation: Revocation) -> pb::Revocation {
    let kind = match revocation.kind {
        RevocationKind::Jti => pb::RevocationKind::Jti,
        RevocationKind::Family => pb::RevocationKind::Family,
        RevocationKind::Grant => pb::RevocationKind::Grant,
        RevocationKind::Client => pb::RevocationKind::Client,
        RevocationKind::Tenant => pb::RevocationKind::Tenant,
        RevocationKind::User => pb::RevocationKind::User,
        RevocationKind::Kid => pb::RevocationKind::Kid,
    };
    pb::Revocation {
        kind: kind.into(),
        id: revocation.id,
        seq: revocation.seq,
    }
}

/// Writes a tenant's metadata.
pub fn metadata(metadata: Metadata) -> pb::GetAuthorityMetadataResponse {
    let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect();
    pb::GetAuthorityMetadataResponse {
        issuer: metadata.issuer,
        authorization_endpoint: metadata.authorization_endpoint,
        token_endpoint: metadata.token_endpoint,
        introspection_endpoint: metadata.introspection_endpoint,
        revocation_endpoint: metadata.revocation_endpoint,
        jwks_uri: metadata.jwks_uri,
        response_types_supported: owned(metadata.response_types_supported),
        grant_types_supported: owned(metadata.grant_types_supported),
        token_endpoint_auth_methods_supported: owned(metadata.token_endpoint_auth_methods_supported),
        code_challenge_methods_supported: owned(metadata.code_challenge_methods_supported),
        authorization_response_iss_parameter_supported: metadata
            .authorization_response_iss_parameter_supported,
        introspection_endpoint_auth_methods_supported: owned(
            metadata.introspection_endpoint_auth_methods_supported,
        ),
        revocation_endpoint_auth_methods_supported: owned(
            metadata.revocation_endpoint_auth_methods_supported,
        ),
        response_modes_supported: owned(metadata.response_modes_supported),
        token_endpoint_auth_signing_alg_values_supported: owned(
            metadata.token_endpoint_auth_signing_alg_values_supported,
        ),
        introspection_endpoint_auth_signing_alg_values_supported: owned(
            metadata.introspection_endpoint_auth_signing_alg_values_supported,
        ),
        revocation_endpoint_auth_signing_alg_values_supported: owned(
            metadata.revocation_endpoint_auth_signing_alg_values_supported,
        ),
        introspection_signing_alg_values_supported: owned(
            metadata.introspection_signing_alg_values_supported,
        ),
    }
}
