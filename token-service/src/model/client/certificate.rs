//! What a client's certificate names (RFC 5280 §4.1.2.6, §4.2.1.6).
//!
//! It must not decide whether the certificate is valid: see `accord::rpc::tls::partner`.

use std::net::IpAddr;

use accord::text::distinguished_name::DistinguishedName;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

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

#[cfg(test)]
mod tests;
