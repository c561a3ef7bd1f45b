//! Pools of database connections. Taking a connection out sends nothing over a connection that is in order, and putting
//! it back never does: a database that keeps silent can't hold a place of the pool.
//!
//! The pool of sqlx pings each returned connection without a limit
//! ([decision 22](../../../docs/decisions/0022-a-pool-that-outlives-its-database.md)).

use std::{
    io,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use deadpool::{
    Runtime, Status,
    managed::{self, Metrics, Object, PoolConfig, PoolError, QueueMode, RecycleError, TimeoutType, Timeouts},
};
use sea_orm::{
    DatabaseBackend, SqlxError,
    sqlx::{
        ConnectOptions, Connection as _, Executor, PgConnection, SqliteConnection,
        postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
    },
};

use zeroize::Zeroizing;

use super::{
    StoreError, passfile,
    sqlite_files::{FileId, SqliteFiles, file_id},
};
use crate::{keys::Keyring, lock::Lock};

/// How long an operation waits for a free connection.
pub(in crate::store) const WAIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening a connection may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection to PostgreSQL may be idle. The network may drop an idle connection without a word.
const MAX_IDLE: Duration = Duration::from_secs(30);
/// How long a connection to PostgreSQL is used, so that none stays with a server that its name no longer leads to.
const MAX_AGE: Duration = Duration::from_secs(30 * 60);
/// The files may be put back. Otherwise the stop closes the connections, and the last one writes the log into the database.
const LOST: &str = "the -wal or -shm file of the database was removed or replaced while it was open: put it back, or stop \
    the service, which saves it";
/// How often, at most, a refusal of the database makes all idle connections suspect.
const SUSPICION_PERIOD: Duration = Duration::from_millis(100);

/// The settings of a session on PostgreSQL: the server gives up a lock before this service does, so that it holds no lock
/// for a client that has gone. It ends a transaction whose client hangs before others give up its locks, such as the one
/// of the change counter. Behind a pooler they are lost; see docs/OPERATIONS.md.
///
/// Names one schema, so that a search path of the role adds no operators and functions, and puts none before those of the server.
///
/// Sets `statement_timeout` to 0: a limit would end a COMMIT that waits for a synchronous standby, and PostgreSQL then
/// reports success for what a failover can lose.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = '3s'; SET idle_in_transaction_session_timeout = '2s'; \
    SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', pg_catalog.current_schema()), false)";

/// A pool of connections to one database. Clones share it.
#[derive(Clone)]
pub struct Pool(managed::Pool<Opener>);

/// Opens the connections of a pool.
pub(in crate::store) struct Opener {
    options: Options,
    pub(in crate::store) suspicion: Arc<Suspicion>,
    keys: Keys,
    /// How many transactions were committed.
    pub(in crate::store) commits: AtomicU64,
}

/// The keys of a database's MACs; `None` until its keyring is opened.
pub(in crate::store) type Keys = Arc<ArcSwapOption<Keyring>>;

/// What leads to a database.
#[derive(Clone)]
pub(in crate::store) enum Options {
    Sqlite(SqliteConnectOptions, Arc<SqliteFiles>),
    /// With the URL that they are from.
    Postgres(PgConnectOptions, Arc<Zeroizing<String>>),
}

/// A connection of the driver.
pub(in crate::store) enum Session {
    /// With the files that it has open.
    Sqlite(SqliteConnection, Arc<[Option<FileId>; 3]>),
    /// With when it began to connect: it may lead to a server that was lost before it was there.
    Postgres(PgConnection, Instant),
}

/// When connections were last found to be dead. All that were last taken out before are discarded.
#[derive(Default)]
pub(in crate::store) struct Suspicion(Lock<Option<Instant>>);

impl Suspicion {
    /// Makes every idle connection suspect.
    pub(in crate::store) fn raise(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Does the same, unless it was done a moment ago: while a database refuses every call, calls would open connections
    /// all the time.
    pub(in crate::store) fn raise_now_and_then(&self) {
        if self
            .since()
            .is_none_or(|since| since.elapsed() > SUSPICION_PERIOD)
        {
            self.raise();
        }
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock()
    }
}

impl Pool {
    pub(in crate::store) fn new(
        size: usize,
        options: Options,
        suspicion: Arc<Suspicion>,
        keys: &Keys,
    ) -> Result<Self, StoreError> {
        let config = PoolConfig {
            max_size: size,
            timeouts: Timeouts {
                wait: Some(WAIT_TIMEOUT),
                create: Some(OPEN_TIMEOUT),
                recycle: None,
            },
            // The fewest connections do the work, and the others become old.
            queue_mode: QueueMode::Lifo,
        };
        let opener = Opener {
            options,
            suspicion,
            keys: Arc::clone(keys),
            commits: AtomicU64::default(),
        };
        let pool = managed::Pool::builder(opener)
            .config(config)
            .runtime(Runtime::Tokio1)
            .build();
        Ok(Self(pool.map_err(SqlxError::config)?))
    }

    /// Takes a connection out, or opens one.
    pub(in crate::store) async fn acquire(&self) -> Result<TakenOut, SqlxError> {
        if let Options::Sqlite(options, files) = self.options()
            && files.are_lost(options.get_filename())
        {
            return Err(io::Error::other(LOST).into());
        }
        self.0.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(TimeoutType::Create) => io::Error::from(io::ErrorKind::TimedOut).into(),
            PoolError::Closed => SqlxError::PoolClosed,
            _ => SqlxError::PoolTimedOut,
        })
    }

    pub(in crate::store) fn options(&self) -> &Options {
        &self.0.manager().options
    }

    pub(in crate::store) fn suspicion(&self) -> &Suspicion {
        &self.0.manager().suspicion
    }

    /// Returns how many transactions were committed.
    pub(in crate::store) fn commits(&self) -> u64 {
        self.0.manager().commits.load(Relaxed)
    }

    pub(in crate::store) fn shared_keys(&self) -> &Keys {
        &self.0.manager().keys
    }

    pub(in crate::store) fn backend(&self) -> DatabaseBackend {
        match self.options() {
            Options::Sqlite(..) => DatabaseBackend::Sqlite,
            Options::Postgres(..) => DatabaseBackend::Postgres,
        }
    }

    /// Closes idle connections that are suspect or old.
    pub(in crate::store) fn discard_stale(&self) {
        let opener = self.0.manager();
        self.0
            .retain(|session, metrics| !opener.is_stale(session, &metrics));
    }

    /// Closes the pool. Connections in use are closed when they come back.
    pub(in crate::store) async fn close(&self) {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for session in idle {
            let _ = match session {
                Session::Sqlite(conn, _) => conn.close().await,
                Session::Postgres(conn, _) => conn.close().await,
            };
        }
    }

    pub(in crate::store) fn status(&self) -> Status {
        self.0.status()
    }

    pub(in crate::store) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Reads the URL of a PostgreSQL database, and the password that belongs to it from the file that `PGPASSFILE` names, if
/// the URL has none.
///
/// # Errors
/// [`SqlxError::Configuration`] with the [`KeyError`] of a password file, and for a malformed URL.
pub(in crate::store) fn postgres_options(url: &str) -> Result<PgConnectOptions, SqlxError> {
    let mut options = PgConnectOptions::from_str(url)?
        .application_name("accord")
        // PgBouncer refuses this parameter at the start of a session. No column is a floating-point number.
        .extra_float_digits(None);
    let password = passfile::password(url, &options);
    if let Some(password) = password.map_err(|error| SqlxError::Configuration(Box::new(error)))? {
        options = options.password(&password);
    }
    Ok(options.disable_statement_logging())
}

/// Returns whether the database refuses the password (SQLSTATE 28P01).
fn is_wrong_password(error: &SqlxError) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == "28P01")
}

impl managed::Manager for Opener {
    type Type = Session;
    type Error = SqlxError;

    async fn create(&self) -> Result<Session, SqlxError> {
        match &self.options {
            Options::Sqlite(options, files) => {
                let mut conn = options.connect().await?;
                // The first statement opens the log and its index.
                conn.execute("PRAGMA schema_version").await?;
                Ok(Session::Sqlite(conn, files.opened(options.get_filename())))
            }
            Options::Postgres(options, url) => {
                let began = Instant::now();
                let mut conn = match options.connect().await {
                    // The password may have been changed since the service started.
                    Err(error) if is_wrong_password(&error) => match postgres_options(url) {
                        Ok(options) => options.connect().await?,
                        Err(unreadable) => {
                            tracing::warn!(%unreadable, "the file of PGPASSFILE is not read again");
                            return Err(error);
                        }
                    },
                    connected => connected?,
                };
                conn.execute(SESSION).await?;
                Ok(Session::Postgres(conn, began))
            }
        }
    }

    async fn recycle(&self, session: &mut Session, metrics: &Metrics) -> managed::RecycleResult<SqlxError> {
        match self.is_stale(session, metrics) {
            true => Err(RecycleError::message("stale")),
            false => Ok(()),
        }
    }
}

impl Opener {
    fn is_stale(&self, session: &Session, metrics: &Metrics) -> bool {
        let began = match session {
            Session::Sqlite(..) => metrics.created,
            Session::Postgres(_, began) => *began,
        };
        let taken_out = metrics.recycled.unwrap_or(began);
        if self.suspicion.since().is_some_and(|since| taken_out <= since) {
            return true;
        }
        match (session, &self.options) {
            (Session::Postgres(..), _) => taken_out.elapsed() > MAX_IDLE || metrics.age() > MAX_AGE,
            // SQLite goes on with a file that was deleted or replaced, and what it commits is lost.
            (Session::Sqlite(_, files), Options::Sqlite(options, _)) => {
                file_id(options.get_filename()) != files[0]
            }
            (Session::Sqlite(..), Options::Postgres(..)) => true,
        }
    }
}

/// A connection that is taken out of its pool.
pub(in crate::store) type TakenOut = Object<Opener>;
