//! A client as the registry describes it.

use std::{collections::BTreeMap, net::IpAddr};

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, ScopeName, SecretId, TenantId},
        network::AllowedNetworks,
        validation::Violations,
    },
};
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumString};

use crate::error::{Error, Result};

pub mod certificate;
pub mod fapi;
pub mod key_set;

/// The most scopes that a request may name.
pub const MAX_SCOPES: usize = 100;

/// A client, as far as consent and issuance need it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The Client ID.
    pub client_id: ClientId,
    /// The texts that people see.
    pub display: DisplayInfo,
    /// Whether it can obtain tokens.
    pub active: bool,
    /// The tenants whose data it may request, each with the registry's position at which it got the tenant.
    pub tenants: BTreeMap<TenantId, i64>,
    /// Its scopes that are enabled in the catalogue.
    pub scopes: Vec<ClientScope>,
    /// The URIs that an authorization response may go to.
    pub redirect_uris: Vec<String>,
    /// Grows with every change that a consent page would show.
    pub version: i64,
    /// Access tokens issued at a lower position have ended.
    pub tokens_ended_seq: i64,
    /// Refresh families begun at a lower position have ended.
    pub families_ended_seq: i64,
    /// Its public keys for assertions, a JWKS document; empty if none.
    pub json_web_key_set: String,
    /// The secrets that authenticate it.
    pub live_secrets: Vec<LiveSecret>,
    /// How it must authenticate; `None`: by a secret or an assertion, as it has them.
    pub auth_method: Option<AuthMethod>,
    /// The URL of its key set, in place of `json_web_key_set`; empty if none.
    pub jwks_uri: String,
    /// What its certificate must name, for [`AuthMethod::TlsClientAuth`].
    pub certificate_subject: Option<CertificateSubject>,
    /// The thumbprints (RFC 7638) of the keys that its DPoP proofs may be signed by; empty for any.
    pub dpop_jkts: Vec<String>,
    /// The networks that it may request tokens from.
    pub allowed_networks: AllowedNetworks,
    /// From when on it follows the FAPI 2.0 Security Profile; `None`: not at all.
    pub fapi_from: Option<UnixMillis>,
}

#[cfg(test)]
impl Client {
    /// A client without tenants, scopes and credentials.
    pub fn without_anything(client_id: ClientId) -> Self {
        Self {
            client_id,
            display: DisplayInfo::default(),
            active: true,
            tenants: BTreeMap::new(),
            scopes: Vec::new(),
            redirect_uris: Vec::new(),
            version: 1,
            tokens_ended_seq: 0,
            families_ended_seq: 0,
            json_web_key_set: String::new(),
            live_secrets: Vec::new(),
            auth_method: None,
            jwks_uri: String::new(),
            certificate_subject: None,
            dpop_jkts: Vec::new(),
            allowed_networks: AllowedNetworks::default(),
            fapi_from: None,
        }
    }
}

/// How a client authenticates (RFC 7591 §2, `token_endpoint_auth_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum AuthMethod {
    /// By its secret, over HTTP in the header.
    ClientSecretBasic,
    /// By its secret, over HTTP in the form.
    ClientSecretPost,
    /// By an assertion that its key signed (RFC 7523).
    PrivateKeyJwt,
    /// By a certificate of a CA (RFC 8705 §2.1).
    TlsClientAuth,
    /// By a certificate in its key set (RFC 8705 §2.2).
    SelfSignedTlsClientAuth,
}

/// Where a message holds a Client Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretLocation {
    /// The header `Authorization` of HTTP (RFC 6749 §2.3.1).
    Header,
    /// The form of HTTP.
    Form,
    /// A field of gRPC, which is neither.
    Field,
}

/// What a client authenticates by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A Client Secret.
    Secret(SecretLocation),
    /// An assertion.
    Assertion,
    /// A certificate.
    Certificate,
}

/// What a client's certificate must name (RFC 8705 §2.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSubject {
    /// Its subject, as RFC 4514 writes it.
    Dn(String),
    /// A DNS name.
    Dns(String),
    /// A URI.
    Uri(String),
    /// An IP address.
    Ip(IpAddr),
    /// An e-mail address.
    Email(String),
}

/// Rejects a call from outside of the networks of a client or a grant. An address that is not known is in none of them.
///
/// # Errors
/// [`Error::NetworkNotAllowed`].
pub fn require_network(allowed: &AllowedNetworks, address: Option<IpAddr>) -> Result<()> {
    let is_allowed = allowed.allow_any() || address.is_some_and(|address| allowed.allow(address));
    is_allowed.then_some(()).ok_or(Error::NetworkNotAllowed(address))
}

impl Client {
    /// Returns whether the registry lists the secret as live at this time.
    pub fn lists_secret(&self, secret_id: &SecretId, now: UnixMillis) -> bool {
        let listed = self.listed_secret(secret_id);
        listed.is_some_and(|live| live.expires_at.is_none_or(|end| now < end))
    }

    /// Rejects a redirect URI that is not one of the client's, byte for byte (RFC 6749 §3.1.2.3).
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check_redirect_uri(&self, redirect_uri: &str) -> Result<()> {
        if self.redirect_uris.iter().any(|known| known == redirect_uri) {
            return Ok(());
        }
        let rule = "must be one that is registered for the client, byte for byte";
        Err(Violations::of("redirect_uri", rule).into())
    }

    /// Returns whether the client may bind a token to the DPoP key with this thumbprint, or to none. A client that has
    /// registered thumbprints must use one of these keys (RFC 9449 §5): a stolen secret then yields no token at all.
    pub fn may_use_dpop_key(&self, jkt: Option<&str>) -> bool {
        self.dpop_jkts.is_empty() || jkt.is_some_and(|jkt| self.dpop_jkts.iter().any(|known| known == jkt))
    }

    /// Returns whether the client has the keys, and the name in its certificate, of `other`: the same client at another time.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.json_web_key_set == other.json_web_key_set
            && self.jwks_uri == other.jwks_uri
            && self.certificate_subject == other.certificate_subject
    }

    /// Returns the secret as the registry lists it. It may have expired since.
    pub fn listed_secret(&self, secret_id: &SecretId) -> Option<&LiveSecret> {
        self.live_secrets.iter().find(|live| live.secret_id == *secret_id)
    }
}

/// A Client Secret that is claimed, not revoked and not expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSecret {
    /// Its id.
    pub secret_id: SecretId,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
}

/// The texts about a client that people see. Setups and grants store a copy, so that a later change of the
/// client changes nothing about what a Tenant Admin was shown. A field that an older row lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DisplayInfo {
    /// The client's display name.
    pub display_name: String,
    /// The partner's name.
    pub partner_name: String,
    /// The goals of the integration, in the partner's words.
    pub purpose: String,
    /// Whether its tokens work with its own key alone, as it was when the setup started.
    pub bound_tokens: bool,
    /// The networks that it may request tokens from, in CIDR notation; empty for any.
    pub allowed_networks: Vec<String>,
}

impl DisplayInfo {
    /// The bytes of all texts, for the bounds of caches.
    pub fn size(&self) -> usize {
        self.display_name.len()
            + self.partner_name.len()
            + self.purpose.len()
            + 50 * self.allowed_networks.len()
    }
}

/// A scope of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientScope {
    /// The name.
    pub name: ScopeName,
    /// What it allows.
    pub description: String,
    /// What the partner needs it for.
    pub reason: String,
    /// The registry's position at which the client got it.
    pub added_seq: i64,
}

/// When a secret that was verified from memory was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The client.
    pub client_id: ClientId,
    /// The secret.
    pub secret_id: SecretId,
    /// When.
    pub used_at: UnixMillis,
}

/// Returns the requested scopes without those of OpenID Connect, which many libraries add: ignores `offline_access`,
/// because refresh tokens come anyway, and rejects `openid`, because its client would wait for an ID token. The catalogue
/// can hold neither.
pub fn requested_scopes(scopes: &[ScopeName]) -> Result<Vec<ScopeName>> {
    if scopes.iter().any(|scope| scope.as_str() == "openid") {
        return Err(Error::OpenIdScope);
    }
    let scopes = scopes.iter().filter(|scope| scope.as_str() != "offline_access");
    Ok(scopes.cloned().collect())
}

/// Rejects scopes of which one is not known: with `otherwise`, unless such a one looks like several names.
pub fn require_known(
    scopes: &[ScopeName],
    is_known: impl Fn(&ScopeName) -> bool,
    otherwise: Error,
) -> Result<()> {
    let unknown: Vec<_> = scopes.iter().filter(|scope| !is_known(scope)).collect();
    if unknown.iter().any(|scope| scope.as_str().contains(',')) {
        return Err(Error::MalformedScope);
    }
    unknown.is_empty().then_some(()).ok_or(otherwise)
}

/// An integration request that took effect, and the operators behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The request.
    pub integration_request_id: String,
    /// The operator who submitted it.
    pub submitted_by: String,
    /// The operator who approved it.
    pub approved_by: String,
    /// When the client was registered from it, or amended by it.
    pub applied_at: UnixMillis,
}

/// The requests that made a client what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOrigin {
    /// The request that the client was registered from.
    pub registration: RequestOrigin,
    /// The amendments that were applied, the newest first.
    pub amendments: Vec<RequestOrigin>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn requested(names: &[&str]) -> Result<Vec<ScopeName>> {
        let scopes: Vec<_> = names.iter().map(|name| ScopeName::parse(name).unwrap()).collect();
        requested_scopes(&scopes)
    }

    #[test]
    fn offline_access_is_ignored_and_openid_names_its_reason() {
        assert_eq!(requested(&["offline_access"]).unwrap(), []);
        let left = requested(&["a", "offline_access", "Openid"]).unwrap();
        assert_eq!(
            left.iter().map(ScopeName::as_str).collect::<Vec<_>>(),
            ["a", "Openid"]
        );
        let error = requested(&["a", "openid"]).unwrap_err();
        assert!(error.to_string().contains("not OpenID Connect"), "{error}");
    }
}
