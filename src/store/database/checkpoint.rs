//! Checkpoints SQLite's write-ahead log in the background. By default SQLite checkpoints within a commit, and all other
//! writers wait.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, Statement};
use tokio::{task::JoinSet, time::sleep};

use super::pool::Pool;

/// How often the log is checkpointed.
const PERIOD: Duration = Duration::from_millis(500);
/// The length from which the log is restarted, in pages: 16 MiB.
const LONG: i32 = 4_000;

/// Starts the task. It ends when it is dropped or the pools close.
pub(in crate::store) fn start(reader: Pool, writer: Pool) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        while !reader.is_closed() {
            sleep(PERIOD).await;
            if let Err(error) = checkpoint_and_restart(&reader, &writer).await {
                // Commits checkpoint instead.
                tracing::debug!(%error, "the checkpoint failed");
            }
        }
    });
    task
}

async fn checkpoint_and_restart(reader: &Pool, writer: &Pool) -> Result<(), DbErr> {
    if checkpoint(reader).await? > LONG {
        // Little was added meanwhile. The log restarts after a second checkpoint without a writer.
        checkpoint(writer).await?;
    }
    Ok(())
}

/// Checkpoints the pages that no reader needs. Returns the length of the log, in pages.
async fn checkpoint(pool: &Pool) -> Result<i32, DbErr> {
    let checkpoint = Statement::from_string(pool.backend(), "PRAGMA wal_checkpoint(PASSIVE)");
    let row = pool.query_one_raw(checkpoint).await?;
    row.ok_or(DbErr::RecordNotFound(String::new()))?
        .try_get("", "log")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{store::Database, testing::sqlite};

    const TABLE: &str = "CREATE TABLE filled (page BLOB)";
    const ROW: &str = "INSERT INTO filled VALUES (zeroblob(10))";

    async fn run(db: &Database, sql: &str) {
        let tx = db.write().await.unwrap();
        tx.execute_unprepared(sql).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_long_log_restarts_once_no_reader_needs_it() {
        let database = sqlite();
        let db = Database::connect(&database.url).await.unwrap();
        let (reader, writer) = (db.read(), db.writer());
        run(&db, TABLE).await;
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {LONG} + 100)
            INSERT INTO filled SELECT zeroblob(4000) FROM n"
        );
        // A reader of what comes before prevents the restart, and nothing waits for the reader.
        let mut reading = db.read().take_out().await.unwrap();
        let ask = "BEGIN; SELECT COUNT(*) FROM filled";
        reading.execute_text(ask).await.unwrap();
        run(&db, &fill).await;
        checkpoint_and_restart(reader, writer).await.unwrap();
        run(&db, ROW).await;
        assert!(checkpoint(reader).await.unwrap() > LONG);
        reading.execute_text("ROLLBACK").await.unwrap();
        checkpoint_and_restart(reader, writer).await.unwrap();
        run(&db, ROW).await;
        assert!(checkpoint(reader).await.unwrap() < 10);
    }
}
