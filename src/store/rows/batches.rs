//! Changes as many rows of a table as there are, some in each transaction.

use sea_orm::{Condition, QuerySelect, entity::prelude::*};

use super::{Protected, check_each_locked, locked, next_page};
use crate::store::{Database, StoreError, Transaction};

/// The most rows that one transaction changes. Its event names each of them.
pub const CHANGED_AT_ONCE: u64 = 500;

/// Changes the rows that match a condition, [`CHANGED_AT_ONCE`] in a transaction, in the order of their key. `record` gives each
/// transaction its event, for as many rows as it changed. Leaves out altered rows, which nothing accepts.
///
/// A call after an interrupted one goes on if `change` makes rows match no more.
pub async fn change_in_batches<E: Protected>(
    db: &Database,
    which: Condition,
    change: impl Fn(&mut E::Model),
    record: impl AsyncFn(&Transaction, usize),
) -> Result<(), StoreError> {
    let mut last = None::<E::Model>;
    loop {
        let tx = db.write().await?;
        let page = next_page(E::find().filter(which.clone()), last.as_ref(), CHANGED_AT_ONCE);
        let found = Box::pin(page.lock_exclusive().all(&tx)).await?;
        if found.is_empty() {
            return tx.rollback().await;
        }
        last = found.last().cloned();
        let mut count = 0;
        for row in check_each_locked::<E>(&tx, found).await? {
            let mut row = match row {
                Ok(row) => locked(row),
                Err(StoreError::Altered(_)) => {
                    let table = E::default().table_name();
                    tracing::error!(table, "a row was changed by somebody without the keys");
                    continue;
                }
                Err(error) => return Err(error),
            };
            change(&mut row);
            row.save(&tx).await?;
            count += 1;
        }
        if count > 0 {
            record(&tx, count).await;
        }
        tx.commit().await?;
    }
}
