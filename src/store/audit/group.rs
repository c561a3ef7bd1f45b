//! Groups the events of calls that change nothing else.

use super::{Record, insert};
use crate::store::{Database, StoreError, database::Keeper, group_commit::Work};

/// Writes events together: all of a group, or none.
#[derive(Debug)]
pub struct Recording(pub Database);

impl Work for Recording {
    type Item = Record;
    type Outcome = ();

    async fn run(&self, records: &[Record]) -> Result<Vec<()>, StoreError> {
        let Self(db) = self;
        match db.kept() {
            Keeper::Sqlite(kept) => {
                let mut conn = kept.take().await?;
                insert::insert_sqlite(&mut conn, records).await?;
                kept.keep(conn);
            }
            Keeper::Postgres(kept) => {
                let mut conn = kept.take().await?;
                insert::insert_postgres(&mut conn, records).await?;
                kept.keep(conn);
            }
        }
        Ok(vec![(); records.len()])
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
