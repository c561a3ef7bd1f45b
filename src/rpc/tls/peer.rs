//! The certificate by which a client identified itself on its connection.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;

use super::certificate::Certificate;
use crate::clock::UnixMillis;

/// A client certificate that the handshake has verified against the client CA. It is in the extensions of each request
/// of the connection.
///
/// A connection may outlive it: whoever authenticates by it compares `not_after` with the clock, for each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The DNS names, in lower case, and then the URIs (SPIFFE ids) of the subject alternative name. It may be empty.
    pub names: Arc<[String]>,
    /// The last second of its validity.
    pub not_after: UnixMillis,
}

impl PeerCertificate {
    /// Reads the end entity's certificate; `None` if it is malformed.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::read(certificate)?;
        let names = certificate.dns_names.into_iter().chain(certificate.uris);
        Some(Self {
            names: names.collect(),
            not_after: certificate.not_after,
        })
    }
}
