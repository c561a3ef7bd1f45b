//! Authenticates clients, Tenant Admins and callers. The decisions here need argon2 or more than one transaction.

pub mod client;
pub mod tenant_admin;
#[cfg(test)]
mod timing;

use tracing::Instrument;

use crate::error::{Error, Result};

/// Runs `work` in a task of its own, so that it is counted, recorded and completed even if the caller disconnects.
pub async fn complete<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let task = tokio::spawn(work.in_current_span());
    task.await.map_err(|_| Error::Hashing)?
}
