//! The authorities of partners' certificates, from a file that may change while the service runs. They are never those of
//! workloads: whom they sign may authenticate as a client, and as nothing else. A chain of a workload must not pass through one
//! of them either (`acceptor`): what stands between an authority and another one is in no file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio_rustls::rustls::{
    CertificateError, Error,
    pki_types::UnixTime,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    certificate::{have_same_key, is_signed_by},
    files::{Content, Digest},
    peer::ClientCertificate,
    provider,
};
use crate::{clock::UnixMillis, lock::Lock, rpc::tls::TlsProblem};

/// The key of the setting of the file.
pub(super) const PARTNER_CA: &str = "partner_ca";
const INVALID: &str = "the certificate is not valid";

/// The authorities of partners' certificates. Clones share them.
#[derive(Clone, derive_more::Debug)]
#[debug("PartnerAuthorities")]
pub struct PartnerAuthorities {
    path: Arc<Path>,
    /// The file of the authorities of workloads and operators; may be empty.
    client_ca: Arc<Path>,
    current: Arc<ArcSwap<CurrentAuthorities>>,
    /// What the last look found.
    last: Arc<Lock<Digest>>,
}

struct CurrentAuthorities {
    verifier: Arc<dyn ClientCertVerifier>,
    digest: Digest,
}

impl PartnerAuthorities {
    /// Reads the file. `client_ca` is the file of the authorities of workloads and operators; it may be empty.
    ///
    /// # Errors
    /// A file that can't be used, and authorities that `require_separate` rejects.
    pub fn load(path: &Path, client_ca: &Path) -> Result<Self, TlsProblem> {
        let content = Content::read(PARTNER_CA, path)?;
        let current = CurrentAuthorities::new(&content, client_ca)?;
        Ok(Self {
            path: PathBuf::from(path).into(),
            client_ca: PathBuf::from(client_ca).into(),
            last: Arc::new(Lock::new(current.digest)),
            current: Arc::new(ArcSwap::from_pointee(current)),
        })
    }

    /// Reads the file again. A changed one counts once two looks in a row have found the same content, so that none counts that
    /// is still being written. Blocks the thread for as long as the file takes.
    ///
    /// # Errors
    /// A file that can't be used, and authorities that `require_separate` rejects now, whichever file has changed. The
    /// authorities that were read before still count.
    pub fn reload(&self) -> Result<(), TlsProblem> {
        let content = Content::read(PARTNER_CA, &self.path)?;
        let read = CurrentAuthorities::new(&content, &self.client_ca)?;
        let digest = read.digest;
        let before = std::mem::replace(&mut *self.last.lock(), digest);
        if before == digest && self.current.load().digest != digest {
            self.current.store(Arc::new(read));
            tracing::info!("changed authorities of partners count");
        }
        Ok(())
    }

    /// Verifies a certificate with its chain for use by a client (RFC 5280 §6.1).
    ///
    /// # Errors
    /// The reason for the log. It holds nothing of the certificate.
    pub fn verify(&self, certificate: &ClientCertificate, now: UnixMillis) -> Result<(), &'static str> {
        let (first, rest) = certificate.chain().split_first().ok_or(INVALID)?;
        let seconds = u64::try_from(now.as_secs()).map_err(|_| INVALID)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let verified = self.current.load().verifier.verify_client_cert(first, rest, now);
        verified.map(drop).map_err(|error| match error {
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "the certificate has expired",
            Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => "the certificate is not valid yet",
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "the certificate is from none of the authorities in --partner-ca"
            }
            Error::InvalidCertificate(
                CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
            ) => "the certificate is not for clients: its extended key usage lacks clientAuth",
            _ => INVALID,
        })
    }
}

impl CurrentAuthorities {
    fn new(content: &Content, client_ca: &Path) -> Result<Self, TlsProblem> {
        let authorities = Arc::new(content.authorities()?);
        if client_ca != Path::new("") {
            require_separate(content, &Content::read(super::settings::CLIENT_CA, client_ca)?)?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider()).build();
        Ok(Self {
            verifier: verifier.map_err(|_| content.problem("holds no usable authority"))?,
            digest: content.digest(),
        })
    }
}

/// Checks that no authority of partners is one of workloads, or has signed one, or is signed by one: whom it signs would be
/// verified as a workload.
///
/// # Errors
/// A file that can't be used, and such an authority.
pub(super) fn require_separate(partners: &Content, client_ca: &Content) -> Result<(), TlsProblem> {
    let of_callers = client_ca.certificates()?;
    for partner in &partners.certificates()? {
        if of_callers.iter().any(|caller| have_same_key(partner, caller)) {
            return Err(partners.problem("holds an authority of --client-ca: it would sign workloads too"));
        }
        if of_callers.iter().any(|caller| is_signed_by(partner, caller)) {
            let problem =
                "holds an authority that one of --client-ca has signed: it would sign workloads too";
            return Err(partners.problem(problem));
        }
        if of_callers.iter().any(|caller| is_signed_by(caller, partner)) {
            return Err(partners.problem("holds an authority that has signed one of --client-ca"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "../tests/tls/partner.rs"]
mod tests;
