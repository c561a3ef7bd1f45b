//! The settings of the listeners' TLS.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;

use super::versions;
use crate::rpc::config::{Problems, check_loopback};

/// The key of the file of the listeners' certificate.
pub(super) const CERTIFICATE: &str = "tls_certificate";
/// The key of the file of its private key.
pub(super) const PRIVATE_KEY: &str = "tls_private_key";
/// The key of the file of client authorities.
pub(super) const CLIENT_CA: &str = "client_ca";
/// The key of the oldest version.
pub(super) const MIN_VERSION: &str = "tls_min_version";
/// The oldest version of TLS by default.
pub const DEFAULT_MIN_VERSION: &str = "1.3";

/// The settings of TLS as flags.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct TlsFlags {
    /// PEM file of the listeners' certificate, followed by its chain
    #[arg(long, value_name = "PATH")]
    pub tls_certificate: Option<String>,
    /// PEM file of that certificate's private key, mode 0600
    #[arg(long, value_name = "PATH")]
    pub tls_private_key: Option<String>,
    /// PEM file of the authorities of certificates of workloads, operators and gateways
    #[arg(long, value_name = "PATH")]
    pub client_ca: Option<String>,
    /// Oldest version of TLS: 1.3 or 1.2 [default: 1.3]
    #[arg(long, value_name = "VERSION")]
    pub tls_min_version: Option<String>,
}

/// The TLS of a service's listeners. An empty path is not set.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The file of the certificate and its chain.
    pub certificate: PathBuf,
    /// The file of the certificate's private key.
    pub private_key: PathBuf,
    /// The file of the authorities of certificates of workloads, operators and gateways, which may come over gRPC and HTTP.
    pub client_ca: PathBuf,
    /// The file of the authorities of partners, which never vouch for workloads; may be empty.
    pub partner_ca: PathBuf,
    /// The oldest version, `1.2` or `1.3`.
    pub min_version: String,
    /// Where partners may present certificates.
    pub partners: PartnerCertificates,
}

/// Where partners may present certificates (RFC 8705), which nobody known needs to have signed. They are never taken for those
/// of workloads or operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PartnerCertificates {
    /// Nowhere.
    #[default]
    None,
    /// On every connection.
    Everywhere,
    /// On every connection of gRPC, and over HTTP to this host, so that browsers at other hosts ask nobody for one.
    AtHost(String),
}

impl TlsSettings {
    /// Records what is wrong with the settings for these listeners, each with the key of its address.
    pub fn check(&self, listeners: &[(&str, SocketAddr)], problems: &mut Problems) {
        match (is_set(&self.certificate), is_set(&self.private_key)) {
            (true, true) => {}
            (true, false) => problems.add(PRIVATE_KEY, "is missing: --tls-certificate needs it"),
            (false, true) => problems.add(CERTIFICATE, "is missing: --tls-private-key needs it"),
            (false, false) => {
                if self.has_client_ca() {
                    problems.add(CLIENT_CA, "needs --tls-certificate and --tls-private-key");
                }
                for (key, address) in listeners {
                    check_loopback(key, *address, problems);
                }
            }
        }
        if versions(&self.min_version).is_none() {
            problems.add(MIN_VERSION, "must be 1.2 or 1.3");
        }
    }

    /// Whether a certificate and its key are set.
    pub(super) fn has_pair(&self) -> bool {
        is_set(&self.certificate) && is_set(&self.private_key)
    }

    /// Returns whether authorities of clients are set, so that certificates can identify callers.
    pub fn has_client_ca(&self) -> bool {
        is_set(&self.client_ca)
    }
}

pub(super) fn is_set(path: &Path) -> bool {
    path != Path::new("")
}
