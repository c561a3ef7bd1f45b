//! What can go wrong with a database. Owns the classification of the driver's errors; what a
//! caller is told is decided by each service's own error mapping.

use std::fmt;

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr, SqlxError};

use crate::keys::KeyError;

/// A failed operation on the database.
///
/// Neither `Display` nor `Debug` shows a value of a row, a statement's parameter or the database's
/// URL, and there is no `source()`, since the driver's own text may hold them.
#[derive(Clone, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, hangs or is too busy: trying again later may help. Why is in
    /// the log, at the level WARN.
    #[error("the database is unavailable")]
    Unavailable,
    /// A unique constraint refused the row.
    #[error("a row with this key exists")]
    Conflict,
    /// A row is not what this program writes; the text says which kind of row.
    #[error("the database holds something unreadable: {0}")]
    Corrupt(&'static str),
    /// The master key or a data key does not fit the database.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An older build made the database, and no migration leads from there to here.
    #[error(
        "an older build made this database: delete it (for `accord dev`, the data directory) and start anew"
    )]
    OlderBuild,
    /// Anything else that the database refused: an error of the program or of the schema.
    #[error("the database refused: {}", describe(.0))]
    Database(DbErr),
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) {
            return Self::Conflict;
        }
        if is_unavailable(&error) {
            tracing::warn!(reason = describe(&error), "database unavailable");
            return Self::Unavailable;
        }
        Self::Database(error)
    }
}

impl From<SqlxError> for StoreError {
    fn from(error: SqlxError) -> Self {
        DbErr::Exec(RuntimeErr::SqlxError(error.into())).into()
    }
}

fn driver_error(error: &DbErr) -> Option<&SqlxError> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(e))
        | DbErr::Exec(RuntimeErr::SqlxError(e))
        | DbErr::Query(RuntimeErr::SqlxError(e)) => Some(e),
        _ => None,
    }
}

fn is_unavailable(error: &DbErr) -> bool {
    if let DbErr::ConnectionAcquire(_) = error {
        return true;
    }
    match driver_error(error) {
        Some(SqlxError::Database(e)) => e.code().is_some_and(|code| is_transient_code(&code)),
        Some(
            SqlxError::Io(_)
            | SqlxError::Tls(_)
            | SqlxError::Protocol(_)
            | SqlxError::PoolTimedOut
            | SqlxError::PoolClosed
            | SqlxError::WorkerCrashed,
        ) => true,
        _ => false,
    }
}

/// SQLSTATEs of PostgreSQL (five characters) and extended result codes of SQLite (a number) after
/// which the same statement may succeed: connection, resources and shutdown; serialization failure
/// and deadlock; statement and lock timeouts; busy and locked.
fn is_transient_code(code: &str) -> bool {
    if code.len() == 5 {
        return ["08", "53", "57"].iter().any(|class| code.starts_with(class))
            || ["40001", "40P01", "55P03"].contains(&code);
    }
    const SQLITE_BUSY: i32 = 5;
    const SQLITE_LOCKED: i32 = 6;
    code.parse::<i32>()
        .is_ok_and(|code| [SQLITE_BUSY, SQLITE_LOCKED].contains(&(code & 0xff)))
}

/// What may be said aloud about an error: the driver's message where it can't quote a row.
fn describe(error: &DbErr) -> String {
    match driver_error(error) {
        Some(SqlxError::Database(e)) => {
            let code = e.code().unwrap_or_default();
            // Data exceptions (22) quote the value they refuse.
            if code.len() == 5 && code.starts_with("22") {
                return format!("data exception (code {code})");
            }
            format!("{} (code {code})", e.message())
        }
        Some(SqlxError::Io(e)) => format!("connection: {}", e.kind()),
        Some(SqlxError::Tls(_)) => "TLS with the database failed".to_owned(),
        Some(SqlxError::Protocol(_)) => "the database broke the protocol".to_owned(),
        Some(SqlxError::PoolTimedOut) => "no connection became free in time".to_owned(),
        Some(SqlxError::PoolClosed) => "the pool is closed".to_owned(),
        Some(SqlxError::WorkerCrashed) => "the worker of the connection ended".to_owned(),
        Some(SqlxError::Configuration(_)) => "malformed database URL".to_owned(),
        Some(SqlxError::ColumnDecode { .. } | SqlxError::Decode(_)) => "a column can't be decoded".to_owned(),
        Some(SqlxError::ColumnNotFound(_)) => "a column is missing".to_owned(),
        Some(_) => "the driver failed".to_owned(),
        None => describe_undriven(error).to_owned(),
    }
}

fn describe_undriven(error: &DbErr) -> &'static str {
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => "no connection became free in time",
        DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => "the pool is closed",
        DbErr::RecordNotFound(_) => "a record was not found",
        DbErr::RecordNotInserted => "no record was inserted",
        DbErr::RecordNotUpdated => "no record was updated",
        DbErr::Migration(_) => "a migration failed",
        DbErr::Type(_) | DbErr::TryIntoErr { .. } | DbErr::Json(_) => "a column can't be decoded",
        _ => "an operation failed",
    }
}
