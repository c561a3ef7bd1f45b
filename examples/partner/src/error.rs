//! The errors. Their texts hold no secret, code or token, so that they may be logged.

use std::path::PathBuf;

use thiserror::Error;

/// The reason for which the application does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is invalid.
    #[error("--{0} {1}")]
    Setting(&'static str, &'static str),
    /// A file that a setting names can't be read.
    #[error("can't read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The HTTP client can't be created, usually because the certificates are not PEM.
    #[error("the HTTP client can't be created: {0}")]
    Client(reqwest::Error),
    /// The key that tokens are bound to can't be generated.
    #[error("no key can be generated")]
    Key,
    /// The authority's metadata can't be fetched, or is invalid.
    #[error("discovery at {url}: {problem}")]
    Discovery {
        /// The URL of the metadata.
        url: String,
        /// The problem.
        problem: String,
    },
}

/// The reason for which a call to the authority or the Cloud API failed.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// The server can't be reached, or did not respond in time.
    #[error("no response: {0}")]
    Unreachable(String),
    /// The authority returned an error (RFC 6749 §5.2).
    #[error("rejected: {error}")]
    Rejected {
        /// The error code.
        error: String,
        /// Text for a developer; may be empty.
        description: String,
    },
    /// The response violates the protocol.
    #[error("a malformed response: {0}")]
    Malformed(&'static str),
    /// The connection has ended. The Tenant Admin must connect again.
    #[error("not connected")]
    NotConnected,
}
