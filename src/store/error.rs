//! The errors of the database, and the classification of the driver's errors. Each service decides what a caller sees.

use std::{borrow::Cow, fmt};

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr, SqlxError};

use crate::keys::KeyError;

/// A failed operation on the database.
///
/// Neither `Display` nor `Debug` shows a value of a row, a statement's parameter or the database's URL. There is no
/// `source()`, since the driver's own text may hold them.
#[derive(Clone, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, hangs or is too busy. A later attempt may succeed. The log has the reason, at
    /// level WARN.
    #[error("the database is unavailable")]
    Unavailable,
    /// A unique constraint rejects the row.
    #[error("a row with this key exists")]
    Conflict,
    /// The request id was used with other content, or more than ten minutes ago.
    #[error("the request id was used before")]
    RequestIdReused,
    /// A row has a value that this program never writes. The text names the kind of row.
    #[error("the database holds an unreadable value: {0}")]
    Corrupt(&'static str),
    /// The master key or a data key does not fit the database.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An older build created the database, and no migration leads from its schema to this one.
    #[error(
        "an older build created this database: delete it (for `accord dev`, the data directory) and start again"
    )]
    OlderBuild,
    /// Any other error of the database: a bug of the program or of the schema.
    #[error("the database failed: {}", describe(.0))]
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
            tracing::warn!(reason = %describe(&error), "database unavailable");
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
        Some(_) => false,
        None => matches!(error, DbErr::ConnectionAcquire(_)),
    }
}

/// Returns whether the same statement may succeed later. Knows the SQLSTATEs of PostgreSQL (five characters):
/// connection, resources, shutdown, serialization failure, deadlock, timeouts; and the extended result codes of SQLite
/// (a number): busy and locked.
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

/// Describes an error. Uses the driver's message only where it can't quote a row.
fn describe(error: &DbErr) -> Cow<'static, str> {
    let text = match (driver_error(error), error) {
        (Some(SqlxError::Database(e)), _) => {
            let code = e.code().unwrap_or_default();
            // Data exceptions (22) quote the rejected value.
            let is_data_exception = code.len() == 5 && code.starts_with("22");
            let message = if is_data_exception {
                "data exception"
            } else {
                e.message()
            };
            return format!("{message} (code {code})").into();
        }
        (Some(SqlxError::Io(e)), _) => return format!("connection: {}", e.kind()).into(),
        (Some(SqlxError::Tls(_)), _) => "TLS with the database failed",
        (Some(SqlxError::Protocol(_)), _) => "the database violated the protocol",
        (Some(SqlxError::PoolTimedOut), _) | (_, DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => {
            "no connection became free in time"
        }
        (Some(SqlxError::PoolClosed), _) | (_, DbErr::ConnectionAcquire(_)) => "the pool is closed",
        (Some(SqlxError::WorkerCrashed), _) => "the worker of the connection ended",
        (Some(SqlxError::Configuration(_)), _) => "malformed database URL",
        (Some(SqlxError::ColumnDecode { .. } | SqlxError::Decode(_)), _)
        | (_, DbErr::Type(_) | DbErr::TryIntoErr { .. } | DbErr::Json(_)) => "a column can't be decoded",
        (Some(SqlxError::ColumnNotFound(_)), _) => "a column is missing",
        (Some(_), _) => "the driver failed",
        (_, DbErr::RecordNotFound(_)) => "a record was not found",
        (_, DbErr::RecordNotInserted) => "no record was inserted",
        (_, DbErr::RecordNotUpdated) => "no record was updated",
        (_, DbErr::Migration(_)) => "a migration failed",
        _ => "an operation failed",
    };
    text.into()
}
