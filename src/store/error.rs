//! The errors of the database, and the classification of the driver's errors. Each service decides what a caller sees.

use std::{borrow::Cow, fmt, io, time::Duration};

use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr, SqlxError};

use super::database::warnings::Warned;
use crate::{keys::KeyError, log_limit::LogLimit};

/// How often the log repeats why the database is unavailable.
const LOG_PERIOD: Duration = Duration::from_secs(5);

/// A failed operation on the database.
///
/// Neither `Display` nor `Debug` shows a value of a row, a statement's parameter or the database's URL. There is no
/// `source()`, since the driver's own text may hold them.
#[derive(Clone, thiserror::Error)]
pub enum StoreError {
    /// The database can't be reached, does not answer, or can't be written. Holds the reason, which the log has at
    /// level WARN. A later attempt may succeed; a change may or may not have happened.
    #[error("the database is unavailable: {0}")]
    Unavailable(Cow<'static, str>),
    /// Other users of the database were in the way for too long. Nothing has changed; a later attempt may succeed.
    #[error("the database is busy")]
    Busy,
    /// A unique constraint rejects the row.
    #[error("a row with this key exists")]
    Conflict,
    /// The request id was used with other content, or more than ten minutes ago.
    #[error("the request id was used before with other content, or more than ten minutes ago: use a new one")]
    RequestIdReused,
    /// A row has a value that this program never writes. The text names the kind of row.
    #[error("the database holds an unreadable value: {0}")]
    Corrupt(&'static str),
    /// A row of this table was not written by a holder of the keys: somebody has edited the database.
    #[error("a row of {0} was changed by somebody without the keys")]
    Altered(&'static str),
    /// A row of this table is gone that nobody with the keys removes.
    #[error("a row of {0} was removed by somebody without the keys")]
    Removed(&'static str),
    /// The master key or a data key does not fit the database.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An older build created the database, and no migration leads from its schema to this one.
    #[error(
        "an older build created this database: delete it (for `accord dev`, the data directory) and start again"
    )]
    OlderBuild,
    /// Newer builds have changed the schema more than once, so that this one may read it wrongly.
    #[error("the database's schema is more than one version newer than this build: start a newer one")]
    NewerSchema,
    /// Another service's migrations created the tables, or the record of the migrations is lost.
    #[error("another service uses this database: each one needs its own")]
    OtherService,
    /// Any other error of the database: a bug of the program or of the schema.
    #[error("the database failed: {}", describe(.0))]
    Database(DbErr),
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreError({self})")
    }
}

impl StoreError {
    /// Returns [`Self::Unavailable`], and logs the reason. During an outage every call fails for the same reason, and the
    /// log holds one line every [`LOG_PERIOD`].
    pub(super) fn unavailable(reason: impl Into<Cow<'static, str>>) -> Self {
        static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
        let reason = reason.into();
        if let Some(unlogged) = LIMIT.check(&reason) {
            tracing::warn!(%reason, unlogged, "database unavailable");
        }
        Self::Unavailable(reason)
    }

    /// Whether the database failed as a whole, and a later attempt may succeed. Nothing is then said about any row.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy)
    }

    /// Whether the caller may try again: the error is temporary, or a row names a key version that this replica has not read yet.
    /// The latter is not temporary for work that shares a statement, because somebody may have edited that row.
    pub fn is_retryable(&self) -> bool {
        self.is_temporary() || matches!(self, Self::Key(KeyError::UnknownVersion { .. }))
    }
}

/// Fails for a temporary error alone: any other one says something about what is stored, which the caller judges.
pub(super) fn lasting<T>(result: Result<T, StoreError>) -> Result<Result<T, StoreError>, StoreError> {
    match result {
        Err(error) if error.is_temporary() => Err(error),
        result => Ok(result),
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) {
            return Self::Conflict;
        }
        match meaning(&error) {
            Meaning::Unavailable => Self::unavailable(describe(&error)),
            Meaning::Busy => {
                tracing::debug!(reason = %describe(&error), "database busy");
                Self::Busy
            }
            Meaning::Defect => Self::Database(error),
        }
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

/// What an error says about the connection that it came over. Such a connection is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection has ended.
    Lost,
    /// No answer came in time.
    Silence,
    /// The database, or this way to it, can't do what was asked: it is read-only, full, or not the right one.
    Refusal,
}

impl Fault {
    /// Returns `None` if the connection is in order.
    pub(super) fn of(error: &SqlxError) -> Option<Self> {
        match error {
            SqlxError::Io(error) if error.kind() == io::ErrorKind::TimedOut => Some(Self::Silence),
            SqlxError::Io(_) | SqlxError::Tls(_) | SqlxError::Protocol(_) | SqlxError::WorkerCrashed => {
                Some(Self::Lost)
            }
            SqlxError::Database(error) => match error.code()? {
                code if code == STATEMENT_TIMEOUT => None,
                code if starts_with_any(&code, &SESSION_ENDED) => Some(Self::Lost),
                code => (meaning_of_code(&code) == Meaning::Unavailable).then_some(Self::Refusal),
            },
            _ => None,
        }
    }
}

/// What an error means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Unavailable,
    Busy,
    /// A bug of the program or of the schema.
    Defect,
}

fn meaning(error: &DbErr) -> Meaning {
    match (driver_error(error), error) {
        (Some(SqlxError::Configuration(_)), _) => Meaning::Defect,
        // No connection could be opened, for whatever reason: a changed password is one.
        (_, DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) => Meaning::Unavailable,
        (Some(SqlxError::Database(error)), _) => error
            .code()
            .map_or(Meaning::Defect, |code| meaning_of_code(&code)),
        (
            Some(
                SqlxError::Io(_)
                | SqlxError::Tls(_)
                | SqlxError::Protocol(_)
                | SqlxError::PoolTimedOut
                | SqlxError::PoolClosed
                | SqlxError::WorkerCrashed,
            ),
            _,
        ) => Meaning::Unavailable,
        _ => Meaning::Defect,
    }
}

/// SQLSTATEs that end a session: connection exceptions, shutdown, and a transaction that was idle for too long.
const SESSION_ENDED: [&str; 3] = ["08", "57P", "25P03"];
/// The SQLSTATE of a statement that took too long or was cancelled.
const STATEMENT_TIMEOUT: &str = "57014";
/// SQLSTATEs, or how they start, of failures outside of this program:
const POSTGRES_UNAVAILABLE: [&str; 16] = [
    "08",    // the connection
    "0A000", // a table has changed under a prepared statement
    "25006", // the database is read-only, as after a failover
    "25P03", // idle in a transaction for too long
    "26",    // a prepared statement is missing: a pooler gave the session to another client
    "28",    // the password or the user is no longer right
    "3D",    // the database is missing
    // The schema was complete when the service started. The search path leads elsewhere, or somebody restores a copy:
    "3F",    // a schema is missing
    "42P01", // a table is missing
    "42703", // a column is missing
    "42501", // a privilege is missing, or a file: PostgreSQL reports a read-only file system so
    "42P05", // a prepared statement exists: as 26
    "53",    // disk, memory or connections are exhausted
    "57",    // the server shuts down or starts, or took too long
    "58",    // a system call failed
    "XX",    // the server found itself or its files in disorder
];
/// SQLSTATEs of others being in the way: serialization failure, deadlock, and a lock that was not free in time.
const POSTGRES_BUSY: [&str; 3] = ["40001", "40P01", "55P03"];
/// The same of SQLite, as primary result codes: PERM, NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, AUTH,
/// NOTADB.
const SQLITE_UNAVAILABLE: [i32; 10] = [3, 7, 8, 10, 11, 13, 14, 15, 23, 26];
/// BUSY, LOCKED.
const SQLITE_BUSY: [i32; 2] = [5, 6];

/// Classifies an SQLSTATE of PostgreSQL (five characters), or an extended result code of SQLite (a number).
fn meaning_of_code(code: &str) -> Meaning {
    if code.len() == 5 {
        return match code {
            _ if POSTGRES_BUSY.contains(&code) => Meaning::Busy,
            _ if starts_with_any(code, &POSTGRES_UNAVAILABLE) => Meaning::Unavailable,
            _ => Meaning::Defect,
        };
    }
    match code.parse::<i32>().map(|code| code & 0xff) {
        Ok(code) if SQLITE_BUSY.contains(&code) => Meaning::Busy,
        Ok(code) if SQLITE_UNAVAILABLE.contains(&code) => Meaning::Unavailable,
        _ => Meaning::Defect,
    }
}

fn starts_with_any(code: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| code.starts_with(start))
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
            // PgBouncer gives the session to another client after each transaction.
            let hint = if ["26000", "42P05"].contains(&&*code) {
                "; a pooler in transaction mode must track prepared statements: PgBouncer 1.21 or later with \
                 max_prepared_statements, or session mode"
            } else {
                ""
            };
            return format!("{message} (code {code}){hint}").into();
        }
        (Some(SqlxError::Io(e)), _) if e.get_ref().is_some_and(|e| e.is::<Warned>()) => {
            return e.to_string().into();
        }
        (Some(SqlxError::Io(e)), _) if has_only_text(e) => return format!("connection: {e}").into(),
        (Some(SqlxError::Io(e)), _) => return format!("connection: {}", e.kind()).into(),
        // What is wrong with the server's certificate.
        (Some(SqlxError::Tls(e)), _) => return format!("TLS with the database failed: {e}").into(),
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

/// Whether neither code nor kind of an error says what failed: the name of a host can't be resolved.
fn has_only_text(error: &io::Error) -> bool {
    error.raw_os_error().is_none()
        && ["other error", "uncategorized error"].contains(&&*error.kind().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_meets_an_unknown_key_version_may_succeed_later_and_no_other_key_error_may() {
        let purpose = "row".to_owned();
        let unknown = StoreError::Key(KeyError::UnknownVersion { purpose, version: 2 });
        assert!(unknown.is_retryable() && !unknown.is_temporary());
        assert!(StoreError::Busy.is_retryable());
        assert!(
            !StoreError::Key(KeyError::Sealed).is_retryable()
                && !StoreError::Altered("clients").is_retryable()
        );
    }

    #[test]
    fn whatever_fails_outside_of_this_program_is_unavailable_and_defects_are_not() {
        let outside = [
            "08006", "25006", "26000", "28P01", "3D000", "42501", "53100", "53300", "57014", "57P01",
            "57P03", "58030", "XX000", "0A000", "3F000", "42P01",
            "42703", // SQLite: IOERR_WRITE, READONLY_DBMOVED, FULL, CANTOPEN, NOTADB
            "778", "1032", "13", "14", "26",
        ];
        for code in outside {
            assert_eq!(meaning_of_code(code), Meaning::Unavailable, "{code}");
        }
        for code in ["40001", "40P01", "55P03", "5", "517", "6"] {
            assert_eq!(meaning_of_code(code), Meaning::Busy, "{code}");
        }
        for code in ["22P02", "23502", "25P02", "42601", "42804", "1", "19", "787", ""] {
            assert_eq!(meaning_of_code(code), Meaning::Defect, "{code}");
        }
    }
}
