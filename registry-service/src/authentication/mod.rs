//! What takes argon2 or more than one transaction to decide: client authentication, the sign-in and the enrolment
//! of Tenant Admins, and callers with bearer tokens.

pub mod caller;
pub mod client;
pub mod enrolment;
pub mod tenant_admin;

use tracing::Instrument;

use crate::error::Error;

/// Runs `work` in a task of its own, so that it is counted, recorded and completed although the caller disconnects.
pub async fn complete<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let task = tokio::spawn(work.in_current_span());
    task.await.map_err(|_| Error::Hashing)?
}
