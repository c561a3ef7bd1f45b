//! The certificate by which a client identified itself on its connection.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::certificate::Certificate;
use crate::clock::UnixMillis;

/// Whose certificate a client presented in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rpc) enum Peer {
    /// A workload's or an operator's: the client CA signed it.
    Caller(CallerCertificate),
    /// Anyone's. It proves nothing but that the client holds its private key.
    Client(ClientCertificate),
}

/// A client certificate that the handshake has verified against the client CA. It is in the extensions of each request
/// of the connection.
///
/// A connection may outlive it: whoever authenticates by it compares `not_after` with the clock, for each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerCertificate {
    /// The DNS names, in lower case, and then the URIs (SPIFFE ids) of the subject alternative name. It may be empty.
    pub names: Arc<[String]>,
    /// The last second of its validity.
    pub not_after: UnixMillis,
}

impl CallerCertificate {
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

/// The most certificates of a chain.
const MAX_CHAIN: usize = 8;

/// The certificate of a client (RFC 8705), with the chain that came along. It proves that whoever presented it holds its private
/// key, and nothing else: nobody has verified who signed it.
#[derive(Clone, PartialEq, Eq, derive_more::Debug)]
#[debug("ClientCertificate")]
pub struct ClientCertificate {
    chain: Arc<[CertificateDer<'static>]>,
}

impl ClientCertificate {
    /// Reads a chain that begins with the client's certificate. Returns `None` if it is empty or too long, or if the client's
    /// certificate is malformed.
    pub fn read(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (first, _) = chain.split_first().filter(|_| chain.len() <= MAX_CHAIN)?;
        Certificate::read(first)?;
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned());
        Some(Self {
            chain: chain.collect(),
        })
    }

    /// Returns the client's certificate in DER form.
    pub fn der(&self) -> &[u8] {
        self.chain.first().map(AsRef::as_ref).unwrap_or_default()
    }

    /// Returns the certificates in DER form, the client's first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Returns the SHA-256 of the client's certificate in base64url, as `x5t#S256` holds it (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.der()))
    }
}
