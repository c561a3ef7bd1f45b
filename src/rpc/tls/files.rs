//! The files of certificates and keys, in PEM form (RFC 7468).

use std::path::Path;

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use zeroize::Zeroizing;

use super::TlsProblem;
use crate::{keys::read_secret, text::opaque::sha256, tls::pem};

/// The largest file of a private key, in bytes.
const MAX_KEY_BYTES: usize = 64 * 1024;

/// What a file held, without holding it: a key is not kept in memory for a comparison.
pub(super) type Digest = [u8; 32];

/// The content of a file of a setting.
#[derive(Clone, PartialEq, derive_more::Debug)]
#[debug("Content")]
pub(super) struct Content {
    key: &'static str,
    bytes: Zeroizing<Vec<u8>>,
}

impl Content {
    /// Reads the file of certificates that a setting names.
    pub(super) fn read(key: &'static str, path: &Path) -> Result<Self, TlsProblem> {
        let bytes = pem::read(path).map_err(|error| TlsProblem::new(key, error))?;
        let bytes = Zeroizing::new(bytes);
        Ok(Self { key, bytes })
    }

    /// Reads the file of a private key, whose permissions must be those of a secret.
    pub(super) fn read_key(key: &'static str, path: &Path) -> Result<Self, TlsProblem> {
        let bytes = read_secret(path, MAX_KEY_BYTES);
        let bytes = bytes.map_err(|error| TlsProblem::new(key, error.to_string()))?;
        Ok(Self { key, bytes })
    }

    pub(super) fn digest(&self) -> Digest {
        sha256(&self.bytes)
    }

    /// Returns the certificates in their order; at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
        pem::certificates(&self.bytes).map_err(|error| self.problem(error))
    }

    /// Returns the private key.
    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsProblem> {
        pem::private_key(&self.bytes).map_err(|error| self.problem(error))
    }

    /// Returns the certificates as authorities to trust.
    pub(super) fn authorities(&self) -> Result<RootCertStore, TlsProblem> {
        pem::authorities(&self.bytes).map_err(|error| self.problem(error))
    }

    pub(super) fn problem(&self, problem: &str) -> TlsProblem {
        TlsProblem::new(self.key, problem)
    }
}
