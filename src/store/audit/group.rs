//! Groups the events of calls that change nothing else.

use sea_orm::DatabaseBackend;

use super::{Record, insert};
use crate::store::{Database, StoreError, group::Work};

/// Writes events together: all of a group, or none.
#[derive(Debug)]
pub struct Recording(pub Database);

impl Work for Recording {
    type Item = Record;
    type Outcome = ();

    async fn run(&self, records: &[Record]) -> Result<Vec<()>, StoreError> {
        let Self(db) = self;
        match db.backend() {
            DatabaseBackend::Postgres => {
                insert::insert_postgres(db.write_once().get_postgres_connection_pool(), records).await?;
            }
            _ => insert::insert_sqlite(db.write_once().get_sqlite_connection_pool(), records).await?,
        }
        Ok(vec![(); records.len()])
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
