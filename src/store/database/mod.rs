//! The connection to a service's database: how it is opened, and how a transaction that writes begins. Knows no table.

use std::{
    fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path, str::FromStr, sync::Arc, time::Duration,
};

use metrics::gauge;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, SqlxError, SqlxPostgresConnector,
    SqlxSqliteConnector, Statement,
    sqlx::{
        ConnectOptions,
        postgres::PgPoolOptions,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
    },
};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use self::{
    connection::Transaction,
    heartbeat::Heartbeat,
    pool::{Keys, Options, Pool, Suspicion, WAIT_TIMEOUT, postgres_options},
};
use super::StoreError;
use crate::{
    clock::Clock,
    keys::{KeyError, Keyring},
    metrics::{DATABASE_CONNECTIONS, DATABASE_CONNECTIONS_MAX, DATABASE_WAITING},
};

mod checkpoint;
pub(super) mod connection;
pub(super) mod heartbeat;
mod passfile;
pub(super) mod pool;
pub(super) mod sqlite_files;
pub(super) mod warnings;

const POSTGRES_READERS: usize = 8;
pub(super) const POSTGRES_WRITERS: usize = 8;
/// The second is for a moment in which the first one keeps silent.
const HEARTBEAT_CONNECTIONS: usize = 2;
const SQLITE_READERS: usize = 8;

/// A SQLite or PostgreSQL database. Cheap to clone.
#[derive(Clone, derive_more::Debug)]
#[debug("Database({:?})", self.backend())]
pub struct Database {
    reader: Pool,
    /// A pool of its own, so that reads don't wait behind writers that wait for a lock. On SQLite it holds one connection,
    /// so that writers queue in order instead of polling for the file's lock.
    writer: Pool,
    heartbeat: Arc<Heartbeat>,
    /// Background tasks. They end with the last clone.
    _background: Arc<JoinSet<()>>,
}

impl Database {
    /// Connects to `sqlite://<path>` or `postgres://...` and checks that the database answers.
    ///
    /// Creates a missing SQLite file that only its owner can read (mode 0600, as then its WAL). SQLite runs with a
    /// WAL, `synchronous=FULL`, foreign keys and `secure_delete`. PostgreSQL runs at READ COMMITTED, with at most eight
    /// connections for reads, eight for writes, and two for the heartbeat. An operation waits at most five seconds for a
    /// connection or a lock.
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
            StoreError::unavailable(format!("the database file can't be created: {}", error.kind()))
        })?;
        let options = options
            // A service that finds its file missing must not go on with an empty one.
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            // Beyond this a commit checkpoints; see `checkpoint`, which keeps the log shorter.
            .pragma("wal_autocheckpoint", "16000")
            // Overwrites deleted rows, such as the nonces of secrets.
            .pragma("secure_delete", "ON")
            // Holds an insert of audit events for each number of rows, and all other statements.
            .statement_cache_capacity(256)
            .disable_statement_logging();
        let options = Options::Sqlite(options, Arc::default());
        // The writer first: it switches the file to WAL before readers open it.
        let keys = Keys::default();
        let writer = open(1, options.clone(), Arc::default(), &keys).await?;
        let reader = open(SQLITE_READERS, options, Arc::default(), &keys).await?;
        let background = checkpoint::start(reader.clone(), writer.clone());
        Ok(Self {
            reader,
            heartbeat: Arc::new(Heartbeat::new(writer.clone())),
            writer,
            _background: Arc::new(background),
        })
    }

    async fn connect_postgres(url: &str) -> Result<Self, StoreError> {
        let options = postgres_options(url).map_err(invalid_options)?;
        let options = Options::Postgres(options, Arc::new(Zeroizing::new(url.to_owned())));
        let (suspicion, keys) = (Arc::default(), Keys::default());
        let writer = open(POSTGRES_WRITERS, options.clone(), Arc::clone(&suspicion), &keys).await?;
        let reader = Pool::new(POSTGRES_READERS, options.clone(), Arc::clone(&suspicion), &keys)?;
        // A pool of its own, so that readiness does not wait for calls.
        let heartbeat = Pool::new(HEARTBEAT_CONNECTIONS, options, suspicion, &keys)?;
        Ok(Self {
            reader,
            writer,
            heartbeat: Arc::new(Heartbeat::new(heartbeat)),
            _background: Arc::default(),
        })
    }

    /// Returns the connections for reads and single statements.
    pub fn read(&self) -> &Pool {
        &self.reader
    }

    /// Returns the connections for single statements that write.
    pub(super) fn writer(&self) -> &Pool {
        &self.writer
    }

    /// Begins a transaction that may write: BEGIN IMMEDIATE on SQLite, READ COMMITTED on PostgreSQL. Dropping it rolls
    /// back.
    ///
    /// SQLite has one at a time: a task that holds one and begins another waits in vain.
    pub async fn write(&self) -> Result<Transaction, StoreError> {
        self.writer.begin().await
    }

    /// Makes and checks MACs with the keys of this keyring from now on.
    pub(crate) fn use_keys(&self, keyring: Arc<Keyring>) {
        self.keys().store(Some(keyring));
    }

    pub(in crate::store) fn keys(&self) -> &Keys {
        self.reader.shared_keys()
    }

    /// Opens connections of sea-orm, which migrations need.
    pub(super) async fn schema(&self) -> Result<DatabaseConnection, StoreError> {
        // As many as one migration needs, with the time to wait for another replica's.
        Ok(match self.writer.options().clone() {
            Options::Sqlite(options, _) => {
                let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options);
                SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.await?)
            }
            Options::Postgres(options, _) => {
                let pool = PgPoolOptions::new()
                    .max_connections(1)
                    .acquire_timeout(WAIT_TIMEOUT)
                    .connect_with(options);
                SqlxPostgresConnector::from_sqlx_postgres_pool(pool.await?)
            }
        })
    }

    /// Returns the kind of database.
    pub fn backend(&self) -> DatabaseBackend {
        self.reader.backend()
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
        let row = self.heartbeat.pool().query_one_raw(query).await?;
        let ours = before.plus(clock.now().since(before) / 2);
        let row = row.ok_or(StoreError::Corrupt("the database's clock"))?;
        let theirs: i64 = row.try_get("", "now")?;
        Ok(Duration::from_millis(ours.as_millis().abs_diff(theirs)))
    }

    /// Checks by a small write that the database can be written, and that no table is locked. Without an answer within
    /// `limit`, every idle connection becomes suspect.
    pub async fn check_writable(&self, limit: Duration) -> Result<(), StoreError> {
        self.heartbeat.check_within(limit).await
    }

    /// Checks that the database could be written within the last 200 ms, if it is one that can be replaced by another: a
    /// PostgreSQL server. Call it before a read that something is decided by: an old primary still answers reads.
    pub async fn check_current(&self) -> Result<(), StoreError> {
        match self.backend() {
            DatabaseBackend::Sqlite => Ok(()),
            _ => self.heartbeat.prove().await,
        }
    }

    /// Closes idle connections that are old or that may be dead.
    pub fn discard_stale_connections(&self) {
        for pool in self.pools() {
            pool.discard_stale();
        }
    }

    /// Records how many connections are open and in use, and how many callers wait for one.
    pub fn record_gauges(&self) {
        let names = ["heartbeat", "writer", "reader"];
        for (name, pool) in names.into_iter().zip(self.pools()) {
            let status = pool.status();
            let in_use = status.size - status.available;
            for (state, count) in [("idle", status.available), ("in_use", in_use)] {
                gauge!(DATABASE_CONNECTIONS, "pool" => name, "state" => state).set(count as f64);
            }
            gauge!(DATABASE_CONNECTIONS_MAX, "pool" => name).set(status.max_size as f64);
            gauge!(DATABASE_WAITING, "pool" => name).set(status.waiting as f64);
        }
    }

    /// Closes all connections. Those in use are closed when their users are done.
    pub async fn close(&self) {
        for pool in self.pools() {
            pool.close().await;
        }
    }

    fn pools(&self) -> [&Pool; 3] {
        [self.heartbeat.pool(), &self.writer, &self.reader]
    }
}

/// How long SQLite waits for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// Creates a pool and checks that its database can be reached.
async fn open(
    size: usize,
    options: Options,
    suspicion: Arc<Suspicion>,
    keys: &Keys,
) -> Result<Pool, StoreError> {
    let pool = Pool::new(size, options, suspicion, keys)?;
    pool.take_out().await?;
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

/// The error of what a connection needs. The parser's own errors may hold the URL.
fn invalid_options(error: SqlxError) -> StoreError {
    match error {
        SqlxError::Configuration(source) if source.is::<KeyError>() => {
            SqlxError::Configuration(format!("the file of PGPASSFILE: {source}").into()).into()
        }
        _ => invalid_url(),
    }
}

fn invalid_url() -> StoreError {
    SqlxError::Configuration("malformed or unsupported database URL".into()).into()
}

#[cfg(test)]
#[path = "../tests/database.rs"]
mod tests;
