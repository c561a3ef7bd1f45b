//! Writes SQLite's log back into the file beside those who write. Left to SQLite, a commit that finds the
//! log long does it, and all others wait for that one.

use std::{sync::Arc, time::Duration};

use sea_orm::sqlx::{
    self, Row, SqliteExecutor,
    sqlite::{Sqlite, SqlitePool},
};
use tokio::{task::JoinSet, time::sleep};

use crate::store::pinned_connection::Kept;

/// How often the log is written back.
const EVERY: Duration = Duration::from_millis(500);
/// From how many pages on the log is to start anew: 16 MiB.
const MANY: i64 = 4_000;

/// Begins in the background, until the task is dropped or the pools are closed.
pub(super) fn start(reader: SqlitePool, writer: Arc<Kept<Sqlite>>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        while !reader.is_closed() {
            sleep(EVERY).await;
            if let Err(error) = write_back(&reader, &writer).await {
                // Commits do it if this does not.
                tracing::debug!(%error, "the log is not written back");
            }
        }
    });
    task
}

async fn write_back(reader: &SqlitePool, writer: &Kept<Sqlite>) -> Result<(), sqlx::Error> {
    if checkpoint(reader).await? > MANY {
        // What came meanwhile is little. After it, with nobody writing, the log starts anew.
        checkpoint(writer.want().pool()).await?;
    }
    Ok(())
}

/// Writes back what no reader needs any more; how many pages the log has.
async fn checkpoint(conn: impl SqliteExecutor<'_>) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
        .fetch_one(conn)
        .await?;
    row.try_get("log")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sea_orm::{ConnectionTrait, TransactionTrait};

    use super::*;
    use crate::{
        store::{Database, database::Keeper},
        testing::sqlite,
    };

    const TABLE: &str = "CREATE TABLE filled (page BLOB)";
    const ROW: &str = "INSERT INTO filled VALUES (zeroblob(10))";

    async fn run(db: &Database, sql: &str) {
        let tx = db.write().await.unwrap();
        tx.execute_unprepared(sql).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_long_log_starts_anew_once_nobody_reads_what_is_old() {
        let database = sqlite();
        let db = Database::connect(&database.url).await.unwrap();
        let reader = db.read().get_sqlite_connection_pool();
        let Keeper::Sqlite(writer) = db.kept() else {
            unreachable!()
        };
        run(&db, TABLE).await;
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY} + 100)
            INSERT INTO filled SELECT zeroblob(4000) FROM n"
        );
        run(&db, &fill).await;
        // Who still reads keeps the log, and nobody waits for it.
        let reading = db.read().begin().await.unwrap();
        let ask = "SELECT COUNT(*) FROM filled";
        reading.execute_unprepared(ask).await.unwrap();
        run(&db, ROW).await;
        write_back(reader, writer).await.unwrap();
        run(&db, ROW).await;
        assert!(checkpoint(reader).await.unwrap() > MANY);
        reading.rollback().await.unwrap();
        // Nor does it wait for who keeps the writer and does nothing.
        writer.keep(writer.take().await.unwrap());
        write_back(reader, writer).await.unwrap();
        run(&db, ROW).await;
        assert!(checkpoint(reader).await.unwrap() < 10);
    }
}
