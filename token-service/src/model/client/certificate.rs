//! What a client's certificate names (RFC 5280 §4.1.2.6, §4.2.1.6), and the public key in it.
//!
//! It must not decide whether the certificate is valid: see `accord::rpc::tls::partner`.

use std::net::IpAddr;

use accord::text::distinguished_name::DistinguishedName;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::{
    der_parser::oid,
    prelude::{FromDer, GeneralName, X509Certificate},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::CertificateSubject;

impl CertificateSubject {
    /// Returns whether a certificate in DER form names this subject (RFC 8705 §2.1.2). A name with a wildcard names itself alone.
    pub fn is_of(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let Self::Dn(expected) = self else {
            let Ok(Some(names)) = certificate.subject_alternative_name() else {
                return false;
            };
            return names.value.general_names.iter().any(|name| self.is_name(name));
        };
        let found = DistinguishedName::from_der(certificate.subject().as_raw());
        found.is_some() && found == DistinguishedName::parse(expected).ok()
    }

    fn is_name(&self, name: &GeneralName<'_>) -> bool {
        match (self, name) {
            (Self::Dns(expected), GeneralName::DNSName(name)) => expected.eq_ignore_ascii_case(name),
            (Self::Uri(expected), GeneralName::URI(name)) => expected == name,
            (Self::Ip(expected), GeneralName::IPAddress(bytes)) => {
                address(bytes).is_some_and(|address| address == *expected)
            }
            (Self::Email(expected), GeneralName::RFC822Name(name)) => is_same_mailbox(expected, name),
            _ => false,
        }
    }
}

/// Compares the part before the last `@` exactly, and the host without its case (RFC 5280 §7.5).
fn is_same_mailbox(one: &str, other: &str) -> bool {
    let is_same = |(local, host): (&str, &str), (other_local, other_host): (&str, &str)| {
        local == other_local && host.eq_ignore_ascii_case(other_host)
    };
    one.rsplit_once('@')
        .zip(other.rsplit_once('@'))
        .is_some_and(|(one, other)| is_same(one, other))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Returns the public key of a certificate as the members `kty`, `crv`, `x`, `y`, `n` and `e` of a JSON Web Key (RFC 7518 §6).
/// Returns `None` for a key of another type than those that clients sign with.
pub fn json_web_key(certificate: &[u8]) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let key = certificate.public_key();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if key.algorithm.algorithm == oid!(1.3.101.112) {
        let x = encode(&key.subject_public_key.data);
        return Some(json!({"kty": "OKP", "crv": "Ed25519", "x": x}));
    }
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => {
            let [n, e] = [rsa.modulus, rsa.exponent].map(|number| encode(without_zeros(number)));
            Some(json!({"kty": "RSA", "n": n, "e": e}))
        }
        PublicKey::EC(point) if is_p256(key) => {
            let coordinates = point.data().strip_prefix(&[4])?;
            let (x, y) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
            Some(json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)}))
        }
        _ => None,
    }
}

fn is_p256(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let parameters = key.algorithm.parameters.as_ref();
    let curve = parameters.and_then(|parameters| parameters.as_oid().ok());
    curve == Some(oid!(1.2.840.10045.3.1.7))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0);
    first.map_or(&[], |first| &number[first..])
}

#[cfg(test)]
mod tests;
