//! Writes events in few statements whose text is always the same, so that the database prepares each once
//! for a connection, however many events there are.

use std::{
    borrow::Borrow,
    sync::{Arc, LazyLock},
};

use sea_orm::{
    ConnectionTrait, DatabaseBackend, Statement, Value,
    sea_query::ArrayType,
    sqlx::{self, Connection, PgConnection, SqliteConnection},
};

use super::Record;
use crate::store::StoreError;

/// The columns that hold texts, in the order of [`Record::texts`].
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
/// The column that comes after them, a number.
const TIME: &str = "occurred_at";

/// The most rows of one statement for SQLite, which has a statement for each number of rows: those of
/// more rows are not worth what they take, prepared, in memory.
pub(super) const MOST_ROWS: usize = 64;

static SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| {
    let row = format!("({})", ["?"; TEXTS.len() + 1].join(", "));
    let statement = |rows: usize| {
        let rows = vec![row.as_str(); rows].join(", ");
        format!(
            "INSERT INTO audit_events ({}, {TIME}) VALUES {rows}",
            TEXTS.join(", ")
        )
    };
    (1..=MOST_ROWS).map(statement).collect()
});
/// One array a column. They are taken apart side by side: in FROM each would be copied row by row, and then again.
/// No text that is there is empty, so that an empty one stands for none.
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
            Some(self.action),
            Some(self.outcome.as_str()),
            Some(self.actor.kind.as_str()),
            Some(&self.actor.id),
            self.tenant_id.as_ref().map(AsRef::as_ref),
            self.client_id.as_ref().map(AsRef::as_ref),
            self.subject.as_deref(),
            Some(&self.request_id),
            Some(&self.detail),
        ]
    }
}

/// Inserts records with a transaction: on PostgreSQL in one statement, on SQLite in one for every 64.
///
/// # Errors
/// What the database says. On SQLite, outside a transaction, some of more than 64 may then be
/// in.
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
    for records in records.chunks(MOST_ROWS) {
        let values = records.iter().map(Borrow::borrow).flat_map(|record| {
            let texts = record.texts().map(text);
            texts.into_iter().chain([record.occurred_at.into()])
        });
        run(&SQLITE[records.len() - 1], values.collect()).await?;
    }
    Ok(())
}

/// Inserts records in a transaction of their own, straight by the driver: through sea-orm every text would be
/// copied three times, and there are thousands of events a second.
///
/// # Errors
/// What the database says; then no record is in.
pub(super) async fn insert_postgres(conn: &mut PgConnection, records: &[Record]) -> Result<(), StoreError> {
    let (texts, times) = columns(records);
    let statement = texts
        .iter()
        .fold(sqlx::query(POSTGRES.as_str()), sqlx::query::Query::bind);
    statement.bind(times).execute(conn).await?;
    Ok(())
}

/// As [`insert_postgres`].
///
/// # Errors
/// What the database says; then no record is in.
pub(super) async fn insert_sqlite(conn: &mut SqliteConnection, records: &[Record]) -> Result<(), StoreError> {
    // One statement is a transaction by itself.
    if (1..=MOST_ROWS).contains(&records.len()) {
        return insert_rows(conn, records).await;
    }
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    for records in records.chunks(MOST_ROWS) {
        insert_rows(&mut tx, records).await?;
    }
    Ok(tx.commit().await?)
}

async fn insert_rows(conn: &mut SqliteConnection, records: &[Record]) -> Result<(), StoreError> {
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

/// The records column by column.
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
