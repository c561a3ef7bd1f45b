//! Public documents: a tenant's authorization server metadata (RFC 8414), by which an OAuth library finds everything,
//! and the keys (RFC 7517 §5). HTTP serves the same messages as JSON.

use std::collections::BTreeSet;

use accord::{dpop, text::id::TenantId, token::v1 as pb};

use super::{OAuth, client_authentication::ALGORITHMS};
use crate::{
    error::Result,
    model::{signing_key::SigningKey, tenant::Tenant},
};

/// Returns the metadata of a tenant's authority; a suspended tenant has some too.
///
/// # Errors
/// [`NotFound`](crate::error::Error::NotFound), [`RegistryUnavailable`](crate::error::Error::RegistryUnavailable).
pub async fn of_tenant(oauth: &OAuth, tenant_id: &TenantId) -> Result<pb::GetAuthorityMetadataResponse> {
    let tenant = oauth.cache.tenant(tenant_id).await?.value;
    let issuer = &tenant.issuer;
    let owned = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let mut client_authentication: Vec<_> =
        owned(&["client_secret_basic", "client_secret_post", "private_key_jwt"]);
    let mutual_tls = &oauth.mutual_tls;
    if mutual_tls.authorities.is_some() {
        client_authentication.push("tls_client_auth".to_owned());
    }
    if mutual_tls.is_offered {
        client_authentication.push("self_signed_tls_client_auth".to_owned());
    }
    let mtls_endpoint_aliases = mutual_tls.base_url.as_ref().map(|base| {
        let alias = |name| endpoint(&format!("{base}/{tenant_id}"), name);
        pb::MtlsEndpointAliases {
            token_endpoint: alias("token"),
            introspection_endpoint: alias("introspect"),
            revocation_endpoint: alias("revoke"),
            pushed_authorization_request_endpoint: alias("par"),
        }
    });
    let signing = ALGORITHMS.map(|(name, _)| name.to_owned()).to_vec();
    // A client may reject an answer by another algorithm. A key is published, and its algorithm named here, for longer
    // than this document is cached before it signs.
    let keys = oauth.cache.keys().await?.value;
    let published = keys.published_at(oauth.store.now());
    let answering: BTreeSet<_> = published.map(|key| key.algorithm.as_ref().to_owned()).collect();
    Ok(pb::GetAuthorityMetadataResponse {
        issuer: issuer.to_owned(),
        authorization_endpoint: endpoint(issuer, "authorize"),
        pushed_authorization_request_endpoint: endpoint(issuer, "par"),
        token_endpoint: endpoint(issuer, "token"),
        introspection_endpoint: endpoint(issuer, "introspect"),
        revocation_endpoint: endpoint(issuer, "revoke"),
        jwks_uri: format!("{issuer}/jwks.json"),
        response_types_supported: owned(&["code"]),
        response_modes_supported: owned(&["query"]),
        grant_types_supported: owned(&["authorization_code", "refresh_token", "client_credentials"]),
        token_endpoint_auth_methods_supported: client_authentication.clone(),
        introspection_endpoint_auth_methods_supported: client_authentication.clone(),
        revocation_endpoint_auth_methods_supported: client_authentication,
        token_endpoint_auth_signing_alg_values_supported: signing.clone(),
        introspection_endpoint_auth_signing_alg_values_supported: signing.clone(),
        revocation_endpoint_auth_signing_alg_values_supported: signing,
        introspection_signing_alg_values_supported: answering.into_iter().collect(),
        code_challenge_methods_supported: owned(&["S256"]),
        authorization_response_iss_parameter_supported: true,
        scopes_supported: owned(&["offline_access"]),
        // OpenID Discovery §3 requires these of the document that carries its name. No ID token is ever issued.
        subject_types_supported: owned(&["public"]),
        id_token_signing_alg_values_supported: owned(&["RS256"]),
        // OpenID Discovery §3: absent, it means true.
        request_uri_parameter_supported: Some(false),
        tls_client_certificate_bound_access_tokens: mutual_tls.is_offered,
        mtls_endpoint_aliases,
        dpop_signing_alg_values_supported: owned(&dpop::ALGORITHMS),
    })
}

/// Returns the URLs of an endpoint as the metadata has them: the tenant's own, and the one for clients with certificates. A DPoP
/// proof names one of them in `htu`.
pub fn endpoint_urls(oauth: &OAuth, tenant: &Tenant, name: &str) -> Vec<String> {
    let base = oauth.mutual_tls.base_url.as_ref();
    let alias = base.map(|base| format!("{base}/{}", tenant.tenant_id));
    let authorities = [Some(tenant.issuer.clone()), alias];
    let authorities = authorities.iter().flatten();
    authorities.map(|authority| endpoint(authority, name)).collect()
}

fn endpoint(authority: &str, name: &str) -> String {
    format!("{authority}/oauth2/{name}")
}

/// Returns the published keys.
pub async fn json_web_key_set(oauth: &OAuth) -> Result<pb::GetJsonWebKeySetResponse> {
    let keys = oauth.cache.keys().await?.value;
    let published = keys.published_at(oauth.store.now());
    Ok(pb::GetJsonWebKeySetResponse {
        keys: published.map(json_web_key).collect(),
    })
}

fn json_web_key(key: &SigningKey) -> pb::JsonWebKey {
    let member = |name| key.public_key.member(name).to_owned();
    pb::JsonWebKey {
        kty: member("kty"),
        crv: member("crv"),
        x: member("x"),
        y: member("y"),
        n: member("n"),
        e: member("e"),
        kid: key.kid.clone(),
        r#use: "sig".to_owned(),
        alg: key.algorithm.as_ref().to_owned(),
    }
}
