//! Files of certificates and keys in PEM form (RFC 7468), for servers and clients. What is wrong with one is said without
//! its content.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use tokio_rustls::rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The largest file, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Reads a file.
///
/// # Errors
/// Why it can't be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        // Opening a FIFO would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 > MAX_BYTES {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => Ok(bytes),
        }
    };
    read().map_err(|error| format!("can't be read: {}", describe(error.kind())))
}

/// Says what is wrong with a file. The standard library calls a missing one an entity that was not found.
pub(crate) fn describe(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        kind => kind.to_string(),
    }
}

/// Returns the certificates in their order; at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    certificates.ok_or("must hold certificates in PEM form")
}

/// Returns the certificates as authorities to trust.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, &'static str> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(pem)? {
        let added = authorities.add(certificate);
        added.map_err(|_| "holds a certificate that can't be read")?;
    }
    Ok(authorities)
}

/// Returns the private key.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "must hold a private key in PEM form, not encrypted")
}
