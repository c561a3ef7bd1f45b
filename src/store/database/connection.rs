//! A connection that is taken out of its pool, and what runs on it: statements and transactions, each within a time
//! limit. A connection that is not in order is closed, and never goes back.

use std::{
    future::Future,
    io,
    sync::{Arc, MutexGuard, atomic::Ordering::Relaxed},
    time::Duration,
};

use deadpool::managed::Object;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DbErr, ExecResult, QueryResult, RuntimeErr, SqlxError, Statement,
    Values,
    sqlx::{
        AssertSqlSafe, Connection as _, Database, Executor, IntoArguments, postgres::Postgres, sqlite::Sqlite,
    },
};
use sea_query_sqlx::SqlxValues;
use tokio::{runtime::Handle, sync::Mutex, time::timeout};

use super::{
    pool::{Keys, Pool, Session, TakenOut},
    warnings::{Warned, watched},
};
use crate::{
    clock::UnixMillis,
    keys::Keyring,
    lock::Lock,
    random::SystemRandom,
    store::{
        StoreError,
        audit::{Event, Origin, Record, RowVersion, action},
        error::Fault,
    },
};

/// How long a statement may take. PostgreSQL gives up a lock before.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection gets to finish what its user left behind.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Begins a transaction. A session's own settings may be those of another user of a pooler.
const BEGIN_POSTGRES: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; \
    SET LOCAL lock_timeout = '3s'; SET LOCAL idle_in_transaction_session_timeout = '2s'; \
    SELECT pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', pg_catalog.current_schema()), true)";
/// Takes the write lock first: of two transactions that read before they write, one would fail.
const BEGIN_SQLITE: &str = "BEGIN IMMEDIATE";

/// A connection for one user.
pub(in crate::store) struct Connection {
    /// `None` once it was dropped.
    session: Option<TakenOut>,
    state: State,
}

/// The state of a connection, for its next user.
#[derive(Default)]
pub(in crate::store) struct State {
    /// A statement is under way. Its user may stop waiting at any moment.
    is_running: bool,
    in_transaction: bool,
    fault: Option<Fault>,
}

/// Runs an expression on the driver's connection of either kind, `Db`, within the time limit of a statement.
macro_rules! run {
    ($connection:expr, $conn:ident => $work:expr) => {{
        let (session, state) = $connection.parts()?;
        let work = async {
            match session {
                Session::Sqlite($conn, _) => {
                    #[allow(dead_code)]
                    type Db = Sqlite;
                    $work
                }
                Session::Postgres($conn, _) => {
                    #[allow(dead_code)]
                    type Db = Postgres;
                    $work
                }
            }
        };
        state.watch(work).await
    }};
}

/// Returns a statement with its arguments, for the driver.
fn bound<DB: Database>(statement: &Statement) -> (AssertSqlSafe<&str>, Option<DB::Arguments>)
where
    SqlxValues: IntoArguments<DB>,
{
    let values = statement.values.clone().unwrap_or(Values(Vec::new()));
    (
        AssertSqlSafe(&statement.sql),
        Some(SqlxValues(values).into_arguments()),
    )
}

impl State {
    /// Runs a statement within its time limit, and notes what its outcome says about the connection. A warning of the
    /// server counts as silence: what was committed may not have reached a standby.
    pub(in crate::store) async fn watch<T>(
        &mut self,
        work: impl Future<Output = Result<T, SqlxError>>,
    ) -> Result<T, SqlxError> {
        self.is_running = true;
        let (result, warned) = watched(timeout(STATEMENT_TIMEOUT, work)).await;
        self.is_running = false;
        let result = result.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        let result = match warned {
            true => Err(io::Error::new(io::ErrorKind::TimedOut, Warned).into()),
            false => result,
        };
        if let Err(error) = &result {
            self.fault = self.fault.or(Fault::of(error));
        }
        result
    }
}

impl Connection {
    fn new(session: TakenOut) -> Self {
        Self {
            session: Some(session),
            state: State::default(),
        }
    }

    /// Returns the driver's connection, and the state that must watch what runs on it.
    pub(in crate::store) fn parts(&mut self) -> Result<(&mut Session, &mut State), SqlxError> {
        let session = self.session.as_mut().ok_or(SqlxError::PoolClosed)?;
        Ok((&mut **session, &mut self.state))
    }

    pub(in crate::store) async fn execute(&mut self, statement: &Statement) -> Result<ExecResult, SqlxError> {
        run!(self, conn => conn.execute(bound::<Db>(statement)).await.map(ExecResult::from))
    }

    async fn query_one(&mut self, statement: &Statement) -> Result<Option<QueryResult>, SqlxError> {
        run!(self, conn => {
            let row = conn.fetch_optional(bound::<Db>(statement)).await?;
            Ok(row.map(QueryResult::from))
        })
    }

    async fn query_all(&mut self, statement: &Statement) -> Result<Vec<QueryResult>, SqlxError> {
        run!(self, conn => {
            let rows = conn.fetch_all(bound::<Db>(statement)).await?;
            Ok(rows.into_iter().map(QueryResult::from).collect())
        })
    }

    /// Executes statements without arguments.
    pub(in crate::store) async fn execute_text(&mut self, sql: &str) -> Result<ExecResult, SqlxError> {
        run!(self, conn => conn.execute(AssertSqlSafe(sql)).await.map(ExecResult::from))
    }

    async fn begin(&mut self) -> Result<(), SqlxError> {
        let (session, _) = self.parts()?;
        let begin = match session {
            Session::Sqlite(..) => BEGIN_SQLITE,
            Session::Postgres(..) => BEGIN_POSTGRES,
        };
        self.state.in_transaction = true;
        self.execute_text(begin).await.map(drop)
    }

    async fn end(&mut self, how: &str) -> Result<(), SqlxError> {
        self.execute_text(how).await?;
        self.state.in_transaction = false;
        Ok(())
    }

    /// Returns whether the connection was lost, so that a new one may have success.
    pub(in crate::store) fn is_lost(&self) -> bool {
        self.state.fault == Some(Fault::Lost)
    }

    /// Waits for the answer to a statement that its user left behind, and rolls back. The connection is then in order.
    async fn finish(&mut self) -> Result<(), SqlxError> {
        match self.state.in_transaction {
            true => self.end("ROLLBACK").await?,
            false => run!(self, conn => conn.ping().await)?,
        }
        self.state.fault = None;
        Ok(())
    }

    fn close(session: TakenOut, fault: Fault) {
        if let Some(pool) = Object::pool(&session) {
            match fault {
                Fault::Refusal => pool.manager().suspicion.raise_now_and_then(),
                Fault::Lost | Fault::Silence => pool.manager().suspicion.raise(),
            }
        }
        drop(Object::take(session));
    }
}

/// Puts the connection back, or closes it. If a statement is still under way, a task of its own waits for its end, so that
/// a caller who hangs up costs no connection.
impl Drop for Connection {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else {
            return;
        };
        if let Some(fault) = self.state.fault {
            return Self::close(session, fault);
        }
        if !self.state.is_running && !self.state.in_transaction {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            drop(Object::take(session));
            return;
        };
        let mut left = Self::new(session);
        left.state.in_transaction = self.state.in_transaction;
        // Stays if the task is dropped, so that the connection is then closed.
        left.state.fault = Some(Fault::Silence);
        runtime.spawn(async move { timeout(FINISH_TIMEOUT, left.finish()).await });
    }
}

/// A transaction that may write. Dropping it rolls back.
pub struct Transaction {
    backend: DatabaseBackend,
    connection: Mutex<Connection>,
    /// The audit events of what it changes.
    events: Mutex<Vec<Record>>,
    /// The newest versions of the rows that its last event has to name.
    rows: Lock<Vec<RowVersion>>,
    /// The tables that forged rows were removed from, and when.
    altered: Lock<Vec<(&'static str, UnixMillis)>>,
    keys: Keys,
}

/// A connection to a database whose MACs it can check.
pub trait Keyed: ConnectionTrait {
    /// Returns the keys; `None` until the keyring is opened.
    fn keys(&self) -> Option<Arc<Keyring>>;

    /// Returns the recorded digest of a row that the transaction has written: its version is written by the commit.
    fn written(&self, row_name: &str) -> Option<[u8; 16]>;
}

impl Keyed for Pool {
    fn keys(&self) -> Option<Arc<Keyring>> {
        self.shared_keys().load_full()
    }

    fn written(&self, _: &str) -> Option<[u8; 16]> {
        None
    }
}

impl Keyed for Transaction {
    fn keys(&self) -> Option<Arc<Keyring>> {
        self.keys.load_full()
    }

    fn written(&self, row_name: &str) -> Option<[u8; 16]> {
        let rows = self.rows();
        let written = rows.iter().find(|version| version.row == row_name);
        written.map(|version| version.digest)
    }
}

impl Transaction {
    /// Commits what was written. After an error it is unknown whether the transaction was committed.
    pub(in crate::store) async fn commit_written(self) -> Result<(), StoreError> {
        let mut connection = self.connection.into_inner();
        connection.end("COMMIT").await?;
        if let Some(pool) = connection.session.as_ref().and_then(Object::pool) {
            pool.manager().commits.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Records an event, which the commit writes.
    pub async fn record(&self, record: Record) {
        self.events.lock().await.push(record);
    }

    /// Notes for the last event that somebody had put rows into a table. They are gone.
    pub(in crate::store) fn note_altered(&self, table: &'static str, now: UnixMillis) {
        self.altered.lock().push((table, now));
    }

    /// Notes a row that was written, for the events of the transaction.
    pub(in crate::store) fn wrote(&self, version: RowVersion) {
        let mut rows = self.rows();
        match rows.iter_mut().find(|other| other.row == version.row) {
            Some(earlier) => earlier.digest = version.digest,
            None => rows.push(version),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<RowVersion>> {
        self.rows.lock()
    }

    /// Takes the events that its commit has to write. The last one names the rows that were written, and the tables that forged rows
    /// were removed from. Such a removal without an event gets one of its own.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for rows without an event: nobody changes authority without a record of it.
    pub(in crate::store) async fn take_events(&self) -> Result<Vec<Record>, StoreError> {
        let mut events = std::mem::take(&mut *self.events.lock().await);
        let rows = std::mem::take(&mut *self.rows());
        let altered = std::mem::take(&mut *self.altered.lock());
        if events.is_empty() && !rows.is_empty() {
            return Err(StoreError::Corrupt("rows were written without an event"));
        }
        if events.is_empty()
            && let Some((_, now)) = altered.first()
        {
            let (origin, event) = (Origin::system("change-feed"), Event::new(action::CHANGES_REPAIR));
            events.push(Record::new(now, &SystemRandom, origin, event));
        }
        if let Some(last) = events.last_mut() {
            last.rows = rows;
            for (table, _) in altered {
                last.event.add_altered(table);
            }
        }
        Ok(events)
    }

    /// Rolls back, and returns afterwards.
    pub async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.connection.into_inner().end("ROLLBACK").await?)
    }
}

impl Pool {
    /// Takes a connection out, or opens one. An error tells that no statement has run.
    pub(in crate::store) async fn take_out(&self) -> Result<Connection, DbErr> {
        let session = self.acquire().await;
        let session = session.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
        Ok(Connection::new(session))
    }

    /// Begins a transaction. If the connection turns out to be lost, begins on a new one: nothing has happened yet.
    pub(in crate::store) async fn begin(&self) -> Result<Transaction, StoreError> {
        let mut connection = self.take_out().await?;
        if let Err(error) = connection.begin().await {
            if !connection.is_lost() {
                return Err(error.into());
            }
            drop(connection);
            connection = self.take_out().await?;
            connection.begin().await?;
        }
        Ok(Transaction {
            backend: self.backend(),
            connection: Mutex::new(connection),
            events: Mutex::default(),
            rows: Lock::default(),
            altered: Lock::default(),
            keys: Keys::clone(self.shared_keys()),
        })
    }
}

/// Each statement runs on a connection of its own. A query that turns out to have a lost connection runs once more on a
/// new one, because a query changes nothing.
#[async_trait::async_trait]
impl ConnectionTrait for Pool {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let result = self.take_out().await?.execute(&statement).await;
        result.map_err(execution_error)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut connection = self.take_out().await?;
        connection.execute_text(sql).await.map_err(execution_error)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut connection = self.take_out().await?;
        let mut result = connection.query_one(&statement).await;
        if result.is_err() && connection.is_lost() && changes_nothing(&statement) {
            drop(connection);
            result = self.take_out().await?.query_one(&statement).await;
        }
        result.map_err(query_error)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut connection = self.take_out().await?;
        let mut result = connection.query_all(&statement).await;
        if result.is_err() && connection.is_lost() && changes_nothing(&statement) {
            drop(connection);
            result = self.take_out().await?.query_all(&statement).await;
        }
        result.map_err(query_error)
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.backend
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        let mut connection = self.connection.lock().await;
        connection.execute(&statement).await.map_err(execution_error)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        let mut connection = self.connection.lock().await;
        connection.execute_text(sql).await.map_err(execution_error)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let mut connection = self.connection.lock().await;
        connection.query_one(&statement).await.map_err(query_error)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut connection = self.connection.lock().await;
        connection.query_all(&statement).await.map_err(query_error)
    }
}

/// Returns whether a statement only reads, so that it may run twice. A `SELECT` that locks rows does not count.
fn changes_nothing(statement: &Statement) -> bool {
    statement.sql.starts_with("SELECT") && !statement.sql.contains(" FOR UPDATE")
}

fn execution_error(error: SqlxError) -> DbErr {
    DbErr::Exec(RuntimeErr::SqlxError(error.into()))
}

fn query_error(error: SqlxError) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(error.into()))
}

#[cfg(test)]
#[path = "../tests/connection.rs"]
mod tests;
