//! What Accord reads in a certificate (RFC 5280 section 4). Verifies nothing: rustls does that.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::UnixMillis;

/// The parts of a certificate that Accord reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rpc) struct Certificate {
    /// The DNS names in lower case.
    pub(super) dns_names: Vec<String>,
    /// The URIs, such as a SPIFFE id.
    pub(super) uris: Vec<String>,
    /// Whether it names an IP address.
    pub(super) has_address: bool,
    /// Whether a server may present it.
    pub(super) is_for_servers: bool,
    pub(super) not_before: UnixMillis,
    pub(super) not_after: UnixMillis,
}

impl Certificate {
    /// Reads a certificate in DER form; `None` if it is malformed, or has an extension twice.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let (mut dns_names, mut uris, mut has_address) = (Vec::new(), Vec::new(), false);
        if let Some(names) = certificate.subject_alternative_name().ok()? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
                    GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                    GeneralName::IPAddress(_) => has_address = true,
                    _ => {}
                }
            }
        }
        // Without the extension, a certificate is for every use.
        let usage = certificate.extended_key_usage().ok()?;
        let is_for_servers = usage.is_none_or(|usage| usage.value.server_auth || usage.value.any);
        let seconds = |seconds: i64| UnixMillis::from_millis(seconds.saturating_mul(1000));
        let validity = certificate.validity();
        Some(Self {
            dns_names,
            uris,
            has_address,
            is_for_servers,
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }
}
