//! How a client authenticates, which keys and networks it is limited to, and the rules of the FAPI 2.0 Security Profile for
//! what the registry knows. Part of every client and of every request, under one MAC with the rest.

use std::net::IpAddr;

use accord::text::{network::AllowedNetworks, validation::Violations};
use serde::{Deserialize, Serialize};
use strum::{AsRefStr, EnumString};

use crate::model::client_keys::ClientKeys;

/// The most keys of proofs that a client may register.
pub const MAX_DPOP_JKTS: usize = 10;

/// The field of [`AuthMethod`] in requests.
const METHOD: &str = "token_endpoint_auth_method";

/// How a client authenticates (RFC 7591 §2, `token_endpoint_auth_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsRefStr, EnumString, Serialize, Deserialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
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

/// What a client's certificate must name (RFC 8705 §2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSubject {
    /// Its subject, as RFC 4514 writes it.
    Dn(String),
    /// A DNS name, in lower case.
    Dns(String),
    /// A URI.
    Uri(String),
    /// An IP address.
    Ip(IpAddr),
    /// An e-mail address.
    Email(String),
}

/// How a client authenticates, apart from the keys and secrets themselves. What a request leaves open has no value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// The method; `None`: by a secret or an assertion, as the client has them.
    pub method: Option<AuthMethod>,
    /// What the certificate names, for [`AuthMethod::TlsClientAuth`].
    pub certificate_subject: Option<CertificateSubject>,
    /// The URL of the key set, in place of one that the client's row holds.
    pub jwks_uri: Option<String>,
}

/// How a client authenticates, and what limits the use of its credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// How it authenticates.
    pub authentication: Authentication,
    /// The thumbprints of the keys that proofs may be signed by (RFC 7638); empty for any.
    pub dpop_jkts: Vec<String>,
    /// The networks that tokens may be requested from.
    pub allowed_networks: AllowedNetworks,
}

impl Authentication {
    /// Returns whether the client authenticates by a secret, or may.
    pub fn takes_secrets(&self) -> bool {
        matches!(
            self.method,
            None | Some(AuthMethod::ClientSecretBasic | AuthMethod::ClientSecretPost)
        )
    }

    /// Checks that method, certificate and keys belong together, and what the profile asks for if the client follows it.
    /// `keys` and `redirect_uris` are the client's.
    pub fn check(&self, v: &mut Violations, keys: &ClientKeys, redirect_uris: &[String], follows_fapi: bool) {
        // RFC 8705 §2.1.2.
        let by_ca = self.method == Some(AuthMethod::TlsClientAuth);
        match (&self.certificate_subject, by_ca) {
            (None, true) => v.add(
                METHOD,
                "must come with exactly one of tls_client_auth_subject_dn, tls_client_auth_san_dns, \
                 tls_client_auth_san_uri, tls_client_auth_san_ip and tls_client_auth_san_email",
            ),
            (Some(_), false) => v.add(
                METHOD,
                "must be tls_client_auth, because a name of the client's certificate is given",
            ),
            _ => {}
        }
        // RFC 7591 §2.
        if self.jwks_uri.is_some() && !keys.as_str().is_empty() {
            v.add("jwks_uri", "must be empty, because json_web_key_set is given");
        }
        if follows_fapi {
            self.check_fapi(v, redirect_uris);
        }
        self.check_keys(v, keys, follows_fapi);
    }

    /// Checks that these keys are of use for the method, and what the profile asks of them if the client follows it. Nothing else
    /// that may be wrong keeps a client from losing a key.
    pub fn check_keys(&self, v: &mut Violations, keys: &ClientKeys, follows_fapi: bool) {
        let by_key = [AuthMethod::PrivateKeyJwt, AuthMethod::SelfSignedTlsClientAuth];
        let needs_keys = self.method.is_some_and(|method| by_key.contains(&method));
        if needs_keys && self.jwks_uri.is_none() && keys.as_str().is_empty() {
            v.add(METHOD, "must come with json_web_key_set or jwks_uri");
        }
        let signs = self.method == Some(AuthMethod::PrivateKeyJwt) && !keys.as_str().is_empty();
        if signs && !keys.sign_assertions() {
            v.add(
                "json_web_key_set",
                "must hold a key for signatures: EC P-256, OKP Ed25519 or RSA",
            );
        }
        // FAPI 2.0 §5.4.1: PS256, ES256 or EdDSA. Every RSA key has 2,048 bits or more already.
        if follows_fapi && self.method == Some(AuthMethod::PrivateKeyJwt) && keys.are_for_rs256_alone() {
            v.add(
                "json_web_key_set",
                "must hold a key for PS256, ES256 or EdDSA for SECURITY_PROFILE_FAPI_2_0",
            );
        }
    }

    /// The rules of the FAPI 2.0 Security Profile, without those for keys.
    fn check_fapi(&self, v: &mut Violations, redirect_uris: &[String]) {
        // §5.3.2.1: mutual TLS or private_key_jwt.
        if self.takes_secrets() {
            v.add(
                METHOD,
                "must be private_key_jwt, tls_client_auth or self_signed_tls_client_auth for SECURITY_PROFILE_FAPI_2_0",
            );
        }
        // §5.3.2.2: https, without the exception for loopback hosts.
        if redirect_uris.iter().any(|uri| !uri.starts_with("https://")) {
            v.add(
                "redirect_uris",
                "must all use https for SECURITY_PROFILE_FAPI_2_0, those that the client has included",
            );
        }
    }

    /// Applies an amendment: its method and certificate replace the old ones; its `jwks_uri` replaces a key set, and its key set a
    /// `jwks_uri`. `keys` are the amendment's.
    pub fn amended(&self, amendment: &Self, keys: &ClientKeys) -> Self {
        let method = amendment.method.or(self.method);
        let old_subject = match method {
            Some(AuthMethod::TlsClientAuth) => self.certificate_subject.as_ref(),
            _ => None,
        };
        let old_uri = match keys.as_str() {
            "" => self.jwks_uri.as_ref(),
            _ => None,
        };
        Self {
            method,
            certificate_subject: amendment.certificate_subject.as_ref().or(old_subject).cloned(),
            jwks_uri: amendment.jwks_uri.as_ref().or(old_uri).cloned(),
        }
    }
}

impl Security {
    /// Applies an amendment: adds its keys of proofs and its networks to the old ones. Every network of IPv4 with every one of IPv6
    /// lifts the limit. `keys` are the amendment's.
    ///
    /// # Errors
    /// Violations if there are too many of them.
    pub fn amended(&self, amendment: &Self, keys: &ClientKeys) -> Result<Self, Violations> {
        let mut v = Violations::default();
        let new = amendment
            .dpop_jkts
            .iter()
            .filter(|jkt| !self.dpop_jkts.contains(jkt));
        let dpop_jkts: Vec<_> = self.dpop_jkts.iter().chain(new).cloned().collect();
        if dpop_jkts.len() > MAX_DPOP_JKTS {
            v.add(
                "dpop_jkts",
                format!("must leave the client at most {MAX_DPOP_JKTS} elements in all"),
            );
        }
        let allowed_networks = match amendment.allowed_networks.cover_every_address() {
            true => Ok(AllowedNetworks::default()),
            false => self.allowed_networks.joined(&amendment.allowed_networks),
        };
        let allowed_networks = v.merge(allowed_networks);
        v.finish(|| {
            Some(Self {
                authentication: self.authentication.amended(&amendment.authentication, keys),
                dpop_jkts,
                allowed_networks: allowed_networks?,
            })
        })
    }
}

/// Returns whether `new` only removes keys from `old`. An empty list allows any key, so the first key of a client is no removal: it
/// locks out everybody without that key.
pub fn narrows_keys(new: &[String], old: &[String]) -> bool {
    new.is_empty() == old.is_empty() && new.iter().all(|jkt| old.contains(jkt))
}

#[cfg(test)]
#[path = "security_tests.rs"]
mod tests;
