//! The bearer token of this service's own calls.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use http::HeaderValue;
use tokio::time::Instant;

use crate::{
    keys::read_secret_text,
    lock::Lock,
    text::opaque::{OpaqueToken, TokenKind},
    verify::bearer,
};

/// The largest file with a token, in bytes.
const MAX_FILE_BYTES: usize = 1024;
/// The shortest time between two reads of the file.
const READ_PERIOD: Duration = Duration::from_secs(1);

/// A bearer token. Clones share what was read last.
#[derive(Clone, derive_more::Debug)]
#[debug("HopToken {{ .. }}")]
pub struct HopToken {
    file: Option<PathBuf>,
    current: Arc<Lock<(HeaderValue, Instant)>>,
}

impl HopToken {
    /// Wraps a token that stays the same.
    pub fn fixed(token: &OpaqueToken) -> Self {
        Self::new(None, token)
    }

    /// Reads a workload's token from a file that only this user can read. The error does not name the file.
    pub fn from_file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::new(Some(path.to_owned()), &read(path)?))
    }

    fn new(file: Option<PathBuf>, token: &OpaqueToken) -> Self {
        let current = (header(token), Instant::now());
        Self {
            file,
            current: Arc::new(Lock::new(current)),
        }
    }

    /// Returns the value of the `authorization` header.
    pub(super) fn header(&self) -> HeaderValue {
        let current = self.current.lock();
        current.0.clone()
    }

    /// Reads the file again, at most once a second, because the token in `rejected` was rejected. Returns whether there
    /// is another token by now.
    pub(super) fn reread(&self, rejected: &HeaderValue) -> bool {
        let mut current = self.current.lock();
        if current.0 != *rejected {
            return true;
        }
        let Some(path) = &self.file else {
            return false;
        };
        if current.1.elapsed() < READ_PERIOD {
            return false;
        }
        current.1 = Instant::now();
        match read(path) {
            Ok(token) => {
                current.0 = header(&token);
                current.0 != *rejected
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the token file can't be read again");
                false
            }
        }
    }
}

#[cfg(test)]
impl HopToken {
    /// Lets the file be read again at once.
    pub(super) fn forget_read_time(&self) {
        let mut current = self.current.lock();
        current.1 = current.1.checked_sub(READ_PERIOD).unwrap_or(current.1);
    }
}

fn header(token: &OpaqueToken) -> HeaderValue {
    let header = bearer::header(token.expose());
    // A token is visible ASCII.
    let mut value = HeaderValue::from_bytes(header.as_bytes()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn read(path: &Path) -> anyhow::Result<OpaqueToken> {
    let text = read_secret_text(path, MAX_FILE_BYTES)?;
    OpaqueToken::parse(TokenKind::Workload, text.trim()).context("holds no token of a workload")
}
