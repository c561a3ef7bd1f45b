//! The connection to a service's database: how it is opened, and how a transaction that writes begins. Knows no table.

use std::{
    fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path, str::FromStr, sync::Arc, time::Duration,
};

use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, SqliteTransactionMode,
    SqlxError, SqlxPostgresConnector, SqlxSqliteConnector, Statement, TransactionOptions, TransactionTrait,
    sqlx::{
        ConnectOptions, Connection, Executor,
        postgres::{PgConnectOptions, PgPoolOptions, Postgres},
        sqlite::{
            Sqlite, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
        },
    },
};
use tokio::task::JoinSet;

use super::{StoreError, checkpoint, pinned_connection::PinnedConnection};
use crate::clock::Clock;

/// How long an operation waits for a free connection, and on SQLite for the lock of another process.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const POSTGRES_CONNECTIONS: u32 = 16;
const SQLITE_READERS: u32 = 8;

/// A SQLite or PostgreSQL database. Cheap to clone.
#[derive(Clone, derive_more::Debug)]
#[debug("Database({:?})", self.backend())]
pub struct Database {
    reader: DatabaseConnection,
    /// On SQLite a pool of one connection, so that writers queue in order instead of polling for the file's lock. On
    /// PostgreSQL the same pool as `reader`.
    writer: DatabaseConnection,
    pinned: Writer,
    /// Background tasks. They end with the last clone.
    _background: Arc<JoinSet<()>>,
}

/// The pinned connection of the writing pool.
#[derive(Clone)]
pub(super) enum Writer {
    Sqlite(Arc<PinnedConnection<Sqlite>>),
    Postgres(Arc<PinnedConnection<Postgres>>),
}

impl Database {
    /// Connects to `sqlite://<path>` or `postgres://...` and checks that the database answers.
    ///
    /// Creates a missing SQLite file that only its owner can read (mode 0600, as then its WAL). SQLite runs with a
    /// WAL, `synchronous=FULL`, foreign keys and `secure_delete`. PostgreSQL runs at READ COMMITTED, with at most 16
    /// connections. An operation waits at most five seconds for a connection or a lock.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database can't be reached. [`StoreError::Database`] for a malformed URL, for
    /// another kind of database, and for SQLite in memory, which allows only one connection. No error holds the URL.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        match url.split_once(':') {
            Some(("sqlite", _)) => Self::connect_sqlite(url).await,
            Some(("postgres" | "postgresql", _)) => Self::connect_postgres(url).await,
            _ => Err(invalid_url()),
        }
    }

    async fn connect_sqlite(url: &str) -> Result<Self, StoreError> {
        if url.contains(":memory:") || url.contains("mode=memory") {
            return Err(invalid_url());
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|_| invalid_url())?;
        create_private(options.get_filename()).map_err(|error| {
            tracing::warn!(reason = %error.kind(), "the database file can't be created");
            StoreError::Unavailable
        })?;
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(ACQUIRE_TIMEOUT)
            .foreign_keys(true)
            // Beyond this a commit checkpoints; see `checkpoint`, which keeps the log shorter.
            .pragma("wal_autocheckpoint", "16000")
            // Overwrites deleted rows, such as the nonces of secrets.
            .pragma("secure_delete", "ON")
            // Holds an insert of audit events for each number of rows, and all other statements.
            .statement_cache_capacity(256)
            .disable_statement_logging();
        // The writer first: it switches the file to WAL before readers open it.
        let writer = sqlite_pool(1, options.clone()).await?;
        let reader = sqlite_pool(SQLITE_READERS, options).await?;
        let pinned = Arc::new(PinnedConnection::new(writer.clone()));
        let background = checkpoint::start(reader.clone(), pinned.clone());
        Ok(Self {
            reader: SqlxSqliteConnector::from_sqlx_sqlite_pool(reader),
            writer: SqlxSqliteConnector::from_sqlx_sqlite_pool(writer),
            pinned: Writer::Sqlite(pinned),
            _background: Arc::new(background),
        })
    }

    async fn connect_postgres(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| invalid_url())?
            .application_name("accord")
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // The pool checks returned connections; another check costs a round trip.
            .test_before_acquire(false)
            .after_connect(|conn, _| {
                // A setting of the session saves a statement in each transaction.
                let set = conn.execute("SET default_transaction_isolation = 'read committed'");
                Box::pin(async move { set.await.map(drop) })
            })
            .connect_with(options)
            .await?;
        let pinned = Arc::new(PinnedConnection::new(pool.clone()));
        let pool = SqlxPostgresConnector::from_sqlx_postgres_pool(pool);
        Ok(Self {
            reader: pool.clone(),
            writer: pool,
            pinned: Writer::Postgres(pinned),
            _background: Arc::default(),
        })
    }

    /// Returns the connections for reads and single statements.
    pub fn read(&self) -> &DatabaseConnection {
        &self.reader
    }

    /// Returns the pinned connection, for a writer that runs all the time.
    pub(super) fn writer(&self) -> &Writer {
        &self.pinned
    }

    /// Begins a transaction that may write: BEGIN IMMEDIATE on SQLite, READ COMMITTED on PostgreSQL. Dropping it rolls
    /// back.
    ///
    /// SQLite has one at a time: a task that holds one and begins another waits in vain.
    pub async fn write(&self) -> Result<DatabaseTransaction, StoreError> {
        let (sqlite_transaction_mode, _unpinned) = match &self.pinned {
            Writer::Sqlite(pinned) => (Some(SqliteTransactionMode::Immediate), Some(pinned.unpin())),
            // The pool has other connections.
            Writer::Postgres(_) => (None, None),
        };
        let options = TransactionOptions {
            sqlite_transaction_mode,
            ..Default::default()
        };
        Ok(self.writer.begin_with_options(options).await?)
    }

    /// Returns the kind of database.
    pub fn backend(&self) -> DatabaseBackend {
        self.reader.get_database_backend()
    }

    /// Checks that the database answers within five seconds.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.reader.ping().await?)
    }

    /// Returns the difference between `clock` and the database's clock, corrected by half a round trip. It is zero for
    /// SQLite, which uses the machine's clock.
    pub async fn clock_skew(&self, clock: &dyn Clock) -> Result<Duration, StoreError> {
        if self.backend() == DatabaseBackend::Sqlite {
            return Ok(Duration::ZERO);
        }
        let query = Statement::from_string(
            self.backend(),
            "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) AS now",
        );
        let before = clock.now();
        let row = self.reader.query_one_raw(query).await?;
        let ours = before.plus(clock.now().since(before) / 2);
        let row = row.ok_or(StoreError::Corrupt("the database's clock"))?;
        let theirs: i64 = row.try_get("", "now")?;
        Ok(Duration::from_millis(ours.as_millis().abs_diff(theirs)))
    }

    /// Closes all connections, once they are no longer in use.
    pub async fn close(&self) -> Result<(), StoreError> {
        let _unpinned = match &self.pinned {
            Writer::Sqlite(pinned) => (Some(pinned.unpin()), None),
            Writer::Postgres(pinned) => (None, Some(pinned.unpin())),
        };
        self.writer.close_by_ref().await?;
        Ok(self.reader.close_by_ref().await?)
    }
}

async fn sqlite_pool(size: u32, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    let pool = SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // SQLite ends a transaction by itself if the disk is full or fails. The driver does not notice, nests the next
        // transaction, and never commits again.
        .before_acquire(|conn, _| Box::pin(async move { Ok(!conn.is_in_transaction()) }))
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Creates a file that only its owner can read. Leaves an existing file unchanged.
fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

fn invalid_url() -> StoreError {
    SqlxError::Configuration("malformed or unsupported database URL".into()).into()
}

#[cfg(test)]
#[path = "tests/database.rs"]
mod tests;
