//! A tenant's authorization server metadata (RFC 8414), by which an OAuth library finds everything.

use accord::text::id::TenantId;
use serde::Serialize;

use crate::{
    error::Error, model::signing_key::ALGORITHM, oauth::OAuth,
    oauth::client_authentication::SIGNING_ALGORITHMS,
};

/// The metadata; names and meanings are those of RFC 8414 §2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The Tenant Authority URL.
    pub issuer: String,
    /// Where a browser begins.
    pub authorization_endpoint: String,
    /// Where tokens are issued.
    pub token_endpoint: String,
    /// Where tokens are introspected (RFC 7662).
    pub introspection_endpoint: String,
    /// Where tokens are revoked (RFC 7009).
    pub revocation_endpoint: String,
    /// Where the public keys are.
    pub jwks_uri: String,
    /// How the authorization endpoint answers.
    pub response_types_supported: Vec<&'static str>,
    /// Where in the redirect the answer stands.
    pub response_modes_supported: Vec<&'static str>,
    /// What tokens are issued for.
    pub grant_types_supported: Vec<&'static str>,
    /// How clients authenticate at the token endpoint.
    pub token_endpoint_auth_methods_supported: Vec<&'static str>,
    /// How clients authenticate at the introspection endpoint.
    pub introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    /// How clients authenticate at the revocation endpoint.
    pub revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    /// The algorithms of `private_key_jwt` at the token endpoint.
    pub token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// The algorithms of `private_key_jwt` at the introspection endpoint.
    pub introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// The algorithms of `private_key_jwt` at the revocation endpoint.
    pub revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// How signed introspection answers are signed (RFC 9701 §7).
    pub introspection_signing_alg_values_supported: Vec<&'static str>,
    /// PKCE methods (RFC 7636).
    pub code_challenge_methods_supported: Vec<&'static str>,
    /// Answers of the authorization endpoint carry `iss` (RFC 9207 §3).
    pub authorization_response_iss_parameter_supported: bool,
}

/// The metadata of a tenant's authority; a suspended tenant has some too.
///
/// # Errors
/// [`Error::NotFound`], [`Error::RegistryUnavailable`].
pub async fn of_tenant(oauth: &OAuth, tenant_id: &TenantId) -> Result<Metadata, Error> {
    let tenant = oauth.cache.tenant(tenant_id).await?.value;
    Ok(of_issuer(&tenant.issuer))
}

fn of_issuer(issuer: &str) -> Metadata {
    let client_authentication = || vec!["client_secret_basic", "client_secret_post", "private_key_jwt"];
    let signing = || SIGNING_ALGORITHMS.to_vec();
    Metadata {
        issuer: issuer.to_owned(),
        authorization_endpoint: format!("{issuer}/oauth2/authorize"),
        token_endpoint: format!("{issuer}/oauth2/token"),
        introspection_endpoint: format!("{issuer}/oauth2/introspect"),
        revocation_endpoint: format!("{issuer}/oauth2/revoke"),
        jwks_uri: format!("{issuer}/jwks.json"),
        response_types_supported: vec!["code"],
        response_modes_supported: vec!["query"],
        grant_types_supported: vec!["authorization_code", "refresh_token", "client_credentials"],
        token_endpoint_auth_methods_supported: client_authentication(),
        introspection_endpoint_auth_methods_supported: client_authentication(),
        revocation_endpoint_auth_methods_supported: client_authentication(),
        token_endpoint_auth_signing_alg_values_supported: signing(),
        introspection_endpoint_auth_signing_alg_values_supported: signing(),
        revocation_endpoint_auth_signing_alg_values_supported: signing(),
        introspection_signing_alg_values_supported: vec![ALGORITHM],
        code_challenge_methods_supported: vec!["S256"],
        authorization_response_iss_parameter_supported: true,
    }
}
