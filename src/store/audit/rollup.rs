//! What a service sums up of the tokens that it issued, so that nobody reads the record for it.

use super::TokenUse;
use crate::store::{Database, StoreError, Transaction};

/// Sums up issued tokens. It changes in the transactions that seal their events, so that each of them counts once: also
/// after a kill, and with several replicas.
pub trait Rollup: Sync {
    /// Changes that are ready to be written.
    type Changes: Send + Sync;

    /// Reads what the changes depend on, and computes them. Nothing holds a lock meanwhile. If another sealer changes what
    /// was read, the transaction that would write the changes is rolled back.
    fn prepare(
        &self,
        db: &Database,
        uses: Vec<TokenUse>,
    ) -> impl Future<Output = Result<Self::Changes, StoreError>> + Send;

    /// Writes the changes, in the transaction that seals the events.
    fn write(
        &self,
        tx: &Transaction,
        changes: Self::Changes,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Sums up nothing.
impl Rollup for () {
    type Changes = ();

    async fn prepare(&self, _: &Database, _: Vec<TokenUse>) -> Result<(), StoreError> {
        Ok(())
    }

    async fn write(&self, _: &Transaction, (): ()) -> Result<(), StoreError> {
        Ok(())
    }
}
