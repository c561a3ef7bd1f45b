//! Groups the events of calls that change nothing else.

use sea_orm::DatabaseBackend;

use super::{Record, insert, insert::MOST_ROWS};
use crate::store::{Database, StoreError, group::Work};

/// Writes events together: all of a group, or none.
#[derive(Debug)]
pub struct Recording(pub Database);

impl Work for Recording {
    type Item = Record;
    type Outcome = ();

    async fn run(&self, records: &[Record]) -> Result<Vec<()>, StoreError> {
        let Self(db) = self;
        let written = vec![(); records.len()];
        // One statement is a transaction by itself.
        if db.backend() == DatabaseBackend::Postgres || records.len() <= MOST_ROWS {
            insert(db.write_once(), records.to_vec()).await?;
            return Ok(written);
        }
        let tx = db.write().await?;
        insert(&tx, records.to_vec()).await?;
        tx.commit().await?;
        Ok(written)
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
