//! Groups of audit events of calls that change nothing else: one row, one statement and one commit for all of them.
//!
//! Measured with groups of 35 events on SQLite: an event costs 3.9 us of CPU with its hash, and 5.1 us in a row of its
//! own.

use sea_orm::{EntityTrait, QueryTrait, SqlxError, Statement};

use super::group_commit::Work;
use crate::store::{
    Database, Keyed, StoreError,
    audit::{GroupWriter, Record, group::Entity},
    database::connection::Connection,
    rows::all_written,
};

/// Commits something, which changes nothing that anybody reads.
const LATER_COMMIT: &str = "INSERT INTO heartbeat (id, beat) VALUES (1, 0) \
    ON CONFLICT (id) DO UPDATE SET beat = heartbeat.beat + 1";

/// Inserts the events of issued tokens: all events of a group, or none.
#[derive(Debug)]
pub struct RecordEvents {
    /// The database.
    pub db: Database,
    /// The writer of the groups.
    pub writer: GroupWriter,
}

impl Work for RecordEvents {
    type Item = Record;
    type Outcome = ();

    const NAME: &'static str = "audit";

    async fn run(&self, records: &[Record]) -> Result<Vec<()>, StoreError> {
        let (row, appended) = self
            .writer
            .group(self.db.read().keys().as_deref(), records)
            .await?;
        if appended.is_first() {
            drop(appended);
            return self.insert_first(records).await;
        }
        let statement = Entity::insert(row).build(self.db.backend());
        self.insert(&statement).await?;
        appended.committed();
        Ok(vec![(); records.len()])
    }
}

impl RecordEvents {
    /// Inserts the first group of the writer, with the writer.
    async fn insert_first(&self, records: &[Record]) -> Result<Vec<()>, StoreError> {
        let tx = self.db.write().await?;
        let appended = self.writer.append(&tx, records).await?;
        tx.commit().await?;
        if let Some(appended) = appended {
            appended.committed();
        }
        Ok(vec![(); records.len()])
    }

    async fn insert(&self, statement: &Statement) -> Result<(), StoreError> {
        let mut conn = self.db.writer().take_out().await?;
        let error = match execute(&mut conn, statement).await {
            Ok(written) => return all_written("audit_groups", written, 1),
            Err(error) => error,
        };
        if !conn.is_lost() {
            return Err(error.into());
        }
        drop(conn);
        let mut conn = self.db.writer().take_out().await?;
        match execute(&mut conn, statement).await.map_err(StoreError::from) {
            // The first attempt was committed before its connection ended: the writer's name is random. It may have ended
            // because its wait for a standby did. A later commit that has reached the standby shows that the first one has.
            Err(StoreError::Conflict) => {
                conn.execute_text(LATER_COMMIT).await?;
                Ok(())
            }
            written => all_written("audit_groups", written?, 1),
        }
    }
}

async fn execute(conn: &mut Connection, statement: &Statement) -> Result<u64, SqlxError> {
    Ok(conn.execute(statement).await?.rows_affected())
}

#[cfg(test)]
#[path = "../tests/audit/batch.rs"]
mod tests;
