//! What can go wrong. No text here holds a secret, a code or a token, so that any of it may be logged.

use std::path::PathBuf;

use thiserror::Error;

/// Why the application does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting is not in order.
    #[error("--{0} {1}")]
    Setting(&'static str, &'static str),
    /// A file that a setting names can't be read.
    #[error("can't read {0}: {1}")]
    File(PathBuf, std::io::Error),
    /// The HTTP client can't be made: the certificates are no PEM, most likely.
    #[error("the HTTP client can't be made: {0}")]
    Client(reqwest::Error),
    /// The authority's metadata can't be fetched, or can't be used.
    #[error("discovery at {url}: {problem}")]
    Discovery {
        /// Where it was looked for.
        url: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why a call to the authority or to the Cloud API came to nothing.
#[derive(Clone, Debug, Error)]
pub enum CallError {
    /// The server could not be reached, or did not answer in time.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// The authority said no (RFC 6749 §5.2).
    #[error("refused: {error}")]
    Refused {
        /// The error code.
        error: String,
        /// Text for a developer; may be empty.
        description: String,
    },
    /// There was an answer, and it is not what the protocol says.
    #[error("an answer that makes no sense: {0}")]
    Nonsense(&'static str),
    /// The connection has ended: the Tenant Admin has to connect again.
    #[error("not connected")]
    NotConnected,
}
