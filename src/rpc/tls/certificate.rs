//! What Accord reads in a certificate (RFC 5280 section 4). Verifies nothing: rustls does that.

use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{
    error::X509Error,
    prelude::{FromDer, GeneralName, X509Certificate},
};

use crate::{
    clock::UnixMillis,
    rpc::telemetry::metrics::certificate_expires,
    tls::{Certificates, ClientTls},
};

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
    /// Whether a client may present it.
    is_for_clients: bool,
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
        let is_for_servers = usage
            .as_ref()
            .is_none_or(|usage| usage.value.server_auth || usage.value.any);
        let is_for_clients = usage.is_none_or(|usage| usage.value.client_auth);
        let seconds = |seconds: i64| UnixMillis::from_millis(seconds.saturating_mul(1000));
        let validity = certificate.validity();
        Some(Self {
            dns_names,
            uris,
            has_address,
            is_for_servers,
            is_for_clients,
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }
}

/// Returns the public key of a certificate in DER form, with its algorithm; `None` if it can't be read.
pub(super) fn public_key(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// Returns whether two certificates in DER form have the same public key. True if one can't be read.
pub(super) fn have_same_key(one: &[u8], other: &[u8]) -> bool {
    public_key(one)
        .zip(public_key(other))
        .is_none_or(|(one, other)| one == other)
}

/// Returns whether an authority has signed this certificate, both in DER form. True if one can't be read, and for a signature by
/// an unknown algorithm.
pub(super) fn is_signed_by(certificate: &[u8], authority: &[u8]) -> bool {
    let [Ok((_, certificate)), Ok((_, authority))] = [certificate, authority].map(X509Certificate::from_der)
    else {
        return true;
    };
    let verified = certificate.verify_signature(Some(authority.public_key()));
    certificate.issuer().as_raw() == authority.subject().as_raw()
        && !matches!(verified, Err(X509Error::SignatureVerificationError))
}

/// Returns why servers would reject the client certificate of these files, if there is one.
pub fn problem_of_client(tls: &ClientTls) -> Option<&'static str> {
    match Certificate::read(&tls.certificates().own?) {
        None => Some("holds a certificate that can't be read"),
        Some(certificate) if !certificate.is_for_clients => {
            Some("has a certificate whose extended key usage is not for clients (clientAuth)")
        }
        Some(_) => None,
    }
}

/// Returns the last second of the validity of the certificate that expires first. Skips those that can't be read.
pub(super) fn first_expiry(certificates: &[CertificateDer<'_>]) -> Option<UnixMillis> {
    let read = certificates.iter().filter_map(|der| Certificate::read(der));
    read.map(|certificate| certificate.not_after).min()
}

/// Records when the certificates of the way to the registry expire.
pub fn record_registry_expiry(tls: &ClientTls) {
    let Certificates { own, authorities } = tls.certificates();
    record_expiry("registry-client", first_expiry(own.as_slice()));
    record_expiry("registry-ca", first_expiry(&authorities));
}

/// Records when a certificate of this use expires, if there is one.
pub(in crate::rpc) fn record_expiry(name: &'static str, not_after: Option<UnixMillis>) {
    if let Some(not_after) = not_after {
        let since = Duration::from_millis(not_after.as_millis().unsigned_abs());
        certificate_expires(name, UNIX_EPOCH + since);
    }
}
