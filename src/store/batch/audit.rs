//! Inserts of audit events. The text of a statement stays the same, so that a connection prepares it once.
//!
//! Measured with groups of 35 events on SQLite: an event costs 5.1 us of CPU. sea-orm would copy every text three
//! times, at thousands of events a second.

use std::{
    borrow::Borrow,
    sync::{Arc, LazyLock},
};

use sea_orm::{
    ConnectionTrait, DatabaseBackend, SqlxError, Statement, Value,
    sea_query::ArrayType,
    sqlx::{self, Connection as _, PgConnection, SqliteConnection},
};

use super::group_commit::Work;
use crate::{
    store::{
        Database, StoreError,
        audit::Record,
        database::{connection::Connection, pool::Session},
    },
    text::id::{ClientId, TenantId},
};

/// The text columns, in the order of [`Record::texts`].
const TEXTS: [&str; 10] = [
    "event_id",
    "action",
    "outcome",
    "actor_kind",
    "actor_id",
    "tenant_id",
    "client_id",
    "subject",
    "request_id",
    "detail",
];
/// The last column, a number.
const TIME: &str = "occurred_at";

/// The most rows of a statement for SQLite, which needs one statement for each number of rows. Longer prepared
/// statements cost more memory than they save.
pub(in crate::store) const MAX_ROWS: usize = 64;

static SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let row = format!("({})", ["?"; TEXTS.len() + 1].join(", "));
    let statement = |rows: usize| {
        let rows = vec![row.as_str(); rows].join(", ");
        format!(
            "INSERT INTO audit_events ({}, {TIME}) VALUES {rows}",
            TEXTS.join(", ")
        )
    };
    (1..=MAX_ROWS).map(statement).collect()
});
/// The statement for PostgreSQL takes one array for each column. SELECT unnests the arrays side by side; in FROM each
/// would be copied twice. An empty text means NULL, because no nullable text of an event is empty.
static POSTGRES: LazyLock<String> = LazyLock::new(|| {
    let selected = TEXTS.map(|column| match column {
        "tenant_id" | "client_id" | "subject" => format!("NULLIF({column}, '')"),
        _ => column.to_owned(),
    });
    let texts = (1..)
        .zip(TEXTS)
        .map(|(at, column)| format!("unnest(${at}::text[]) AS {column}"));
    format!(
        "INSERT INTO audit_events ({}, {TIME}) SELECT {}, {TIME} \
         FROM (SELECT {}, unnest(${}::bigint[]) AS {TIME}) AS event",
        TEXTS.join(", "),
        selected.join(", "),
        texts.collect::<Vec<_>>().join(", "),
        TEXTS.len() + 1
    )
});

impl Record {
    fn texts(&self) -> [Option<&str>; TEXTS.len()] {
        [
            Some(self.event_id.as_str()),
            Some(self.event.action),
            Some(self.event.outcome.as_ref()),
            Some(self.origin.actor.kind.as_ref()),
            Some(&self.origin.actor.id),
            self.event.tenant_id.as_ref().map(TenantId::as_str),
            self.event.client_id.as_ref().map(ClientId::as_str),
            self.event.subject.as_deref(),
            Some(&self.origin.request_id),
            Some(&self.detail),
        ]
    }
}

/// Inserts records with a transaction: on PostgreSQL in one statement, on SQLite in one for every 64.
pub async fn insert(conn: &impl ConnectionTrait, records: &[impl Borrow<Record>]) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let backend = conn.get_database_backend();
    let run = async |sql: &str, values: Vec<Value>| {
        let statement = Statement::from_sql_and_values(backend, sql, values);
        conn.execute_raw(statement).await.map(drop)
    };
    let text = |text: Option<&str>| Value::String(text.map(str::to_owned));
    if backend == DatabaseBackend::Postgres {
        let (texts, times) = columns(records);
        let texts = texts.into_iter().map(|column| {
            let column = column.into_iter().map(|entry| text(Some(entry))).collect();
            Value::Array(ArrayType::String, Some(Box::new(column)))
        });
        let times = times.into_iter().map(Value::from).collect();
        let times = Value::Array(ArrayType::BigInt, Some(Box::new(times)));
        return Ok(run(&POSTGRES, texts.chain([times]).collect()).await?);
    }
    for records in records.chunks(MAX_ROWS) {
        let values = records.iter().map(Borrow::borrow).flat_map(|record| {
            let texts = record.texts().map(text);
            texts.into_iter().chain([record.occurred_at.into()])
        });
        run(&SQLITE[records.len() - 1], values.collect()).await?;
    }
    Ok(())
}

/// Inserts all records or none.
async fn insert_postgres(conn: &mut PgConnection, records: &[Record]) -> Result<(), SqlxError> {
    let (texts, times) = columns(records);
    let statement = texts
        .iter()
        .fold(sqlx::query(POSTGRES.as_str()), sqlx::query::Query::bind);
    statement.bind(times).execute(conn).await?;
    Ok(())
}

/// Inserts all records or none.
async fn insert_sqlite(conn: &mut SqliteConnection, records: &[Record]) -> Result<(), SqlxError> {
    // A single statement is a transaction.
    if (1..=MAX_ROWS).contains(&records.len()) {
        return insert_rows(conn, records).await;
    }
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    for records in records.chunks(MAX_ROWS) {
        insert_rows(&mut tx, records).await?;
    }
    tx.commit().await
}

async fn insert_rows(conn: &mut SqliteConnection, records: &[Record]) -> Result<(), SqlxError> {
    let mut statement = sqlx::query(SQLITE[records.len() - 1].as_str());
    for record in records {
        for text in record.texts() {
            statement = statement.bind(text.map(Arc::<str>::from));
        }
        statement = statement.bind(record.occurred_at);
    }
    statement.execute(conn).await?;
    Ok(())
}

/// Returns the values of each column.
fn columns(records: &[impl Borrow<Record>]) -> ([Vec<&str>; TEXTS.len()], Vec<i64>) {
    let mut texts = TEXTS.map(|_| Vec::with_capacity(records.len()));
    let records = records.iter().map(Borrow::borrow);
    for record in records.clone() {
        for (column, text) in texts.iter_mut().zip(record.texts()) {
            column.push(text.unwrap_or_default());
        }
    }
    (texts, records.map(|record| record.occurred_at).collect())
}

/// Commits something, which changes nothing that anybody reads.
const LATER_COMMIT: &str = "INSERT INTO heartbeat (id, beat) VALUES (1, 0) \
    ON CONFLICT (id) DO UPDATE SET beat = heartbeat.beat + 1";

/// Inserts the events of calls that change nothing else: all events of a group, or none.
#[derive(Debug)]
pub struct RecordEvents(pub Database);

impl Work for RecordEvents {
    type Item = Record;
    type Outcome = ();

    const NAME: &'static str = "audit";

    async fn run(&self, records: &[Record]) -> Result<Vec<()>, StoreError> {
        let mut conn = self.0.writer().take_out().await?;
        if let Err(error) = record(&mut conn, records).await {
            if !conn.is_lost() {
                return Err(error.into());
            }
            drop(conn);
            let mut conn = self.0.writer().take_out().await?;
            match record(&mut conn, records).await.map_err(StoreError::from) {
                Ok(()) => {}
                // The first attempt was committed before its connection ended: ids are random. It may have ended because
                // its wait for a standby did. A later commit that has reached the standby shows that the first one has.
                Err(StoreError::Conflict) => {
                    conn.execute_text(LATER_COMMIT).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(vec![(); records.len()])
    }
}

/// Inserts all records or none.
async fn record(conn: &mut Connection, records: &[Record]) -> Result<(), SqlxError> {
    let (session, state) = conn.parts()?;
    let inserted = async {
        match session {
            Session::Sqlite(conn, _) => insert_sqlite(conn, records).await,
            Session::Postgres(conn) => insert_postgres(conn, records).await,
        }
    };
    state.watch(inserted).await
}

#[cfg(test)]
#[path = "../tests/audit_batch.rs"]
mod tests;
