//! TLS of connections: certificates from files, which may change while the service runs, and the names of peers.
//!
//! rustls with aws-lc-rs: TLS 1.3, and 1.2 by choice with ECDHE and AES-GCM alone.

pub(super) mod acceptor;
pub mod certificate;
mod files;
pub(super) mod handshake;
pub mod partner;
pub mod peer;
mod reload;
pub mod server;
pub mod settings;

use std::sync::Arc;

use tokio_rustls::rustls::{
    CipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    version::{TLS12, TLS13},
};

/// A setting of TLS that can't be used, and why. Holds no value and no content of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{} {problem}", key.replace('_', "-"))]
pub struct TlsProblem {
    /// The key of the setting, such as `tls_certificate`.
    pub key: &'static str,
    /// What is wrong, such as "holds no certificate in PEM form".
    pub problem: String,
}

impl TlsProblem {
    fn new(key: &'static str, problem: impl Into<String>) -> Self {
        Self {
            key,
            problem: problem.into(),
        }
    }
}

/// Returns the cryptography of every connection. Of TLS 1.2 it has the suites that the FAPI 2.0 Security Profile
/// (section 5.2) allows.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        suite.version().version == TLS13.version
            || matches!(
                suite.suite(),
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            )
    });
    Arc::new(provider)
}

static SINCE_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
static SINCE_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Returns the versions from this one on; `None` for a text other than `1.2` and `1.3`.
fn versions(oldest: &str) -> Option<&'static [&'static SupportedProtocolVersion]> {
    match oldest {
        "1.3" => Some(&SINCE_1_3),
        "1.2" => Some(&SINCE_1_2),
        _ => None,
    }
}

#[cfg(test)]
#[path = "../tests/tls.rs"]
pub(super) mod tests;
