//! Writes events in few statements whose text is always the same, so that the database prepares each once
//! for a connection, however many events there are.

use std::sync::LazyLock;

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement, Value, sea_query::ArrayType};

use super::Record;
use crate::store::StoreError;

/// The columns, in the order of [`Record::values`].
const COLUMNS: [&str; 11] = [
    "event_id",
    "occurred_at",
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
/// The column that is a number; the others are texts.
const NUMBER: usize = 1;

/// The most rows of one statement for SQLite, which has a statement for each number of rows: those of
/// more rows are not worth what they take, prepared, in memory.
pub(super) const MOST_ROWS: usize = 64;

static SQLITE: LazyLock<Vec<String>> = LazyLock::new(|| (1..=MOST_ROWS).map(values_statement).collect());
static POSTGRES_ONE: LazyLock<String> = LazyLock::new(|| {
    let parameters: Vec<_> = (1..=COLUMNS.len()).map(|number| format!("${number}")).collect();
    format!(
        "INSERT INTO audit_events ({}) VALUES ({})",
        COLUMNS.join(", "),
        parameters.join(", ")
    )
});
/// One array a column. No text that is there is empty, so that an empty one stands for none.
static POSTGRES_MANY: LazyLock<String> = LazyLock::new(|| {
    let selected = COLUMNS.map(|column| match column {
        "tenant_id" | "client_id" | "subject" => format!("NULLIF({column}, '')"),
        _ => column.to_owned(),
    });
    let arrays: Vec<_> = (0..COLUMNS.len())
        .map(|at| {
            let kind = if at == NUMBER { "bigint" } else { "text" };
            format!("${}::{kind}[]", at + 1)
        })
        .collect();
    format!(
        "INSERT INTO audit_events ({0}) SELECT {1} FROM unnest({2}) AS event ({0})",
        COLUMNS.join(", "),
        selected.join(", "),
        arrays.join(", ")
    )
});

fn values_statement(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS.len()].join(", "));
    let rows = vec![row; rows].join(", ");
    format!("INSERT INTO audit_events ({}) VALUES {rows}", COLUMNS.join(", "))
}

impl Record {
    fn values(self) -> [Value; COLUMNS.len()] {
        let row = self.0;
        [
            row.event_id.into(),
            row.occurred_at.into(),
            row.action.into(),
            row.outcome.into(),
            row.actor_kind.into(),
            row.actor_id.into(),
            row.tenant_id.into(),
            row.client_id.into(),
            row.subject.into(),
            row.request_id.into(),
            row.detail.into(),
        ]
    }
}

/// Inserts records: on PostgreSQL in one statement, on SQLite in one for every 64.
///
/// # Errors
/// What the database says. On SQLite, outside a transaction, some of more than 64 may then be
/// in.
pub async fn insert(conn: &impl ConnectionTrait, records: Vec<Record>) -> Result<(), StoreError> {
    let backend = conn.get_database_backend();
    let run = async |sql: &str, values: Vec<Value>| {
        let statement = Statement::from_sql_and_values(backend, sql, values);
        conn.execute_raw(statement).await.map(drop)
    };
    if backend == DatabaseBackend::Postgres && records.len() > 1 {
        run(&POSTGRES_MANY, columns(records)).await?;
        return Ok(());
    }
    let mut records = records.into_iter();
    while records.len() > 0 {
        let rows = records.len().min(MOST_ROWS);
        let values = records.by_ref().take(rows).flat_map(Record::values).collect();
        match backend {
            DatabaseBackend::Postgres => run(&POSTGRES_ONE, values).await?,
            _ => run(&SQLITE[rows - 1], values).await?,
        }
    }
    Ok(())
}

/// The records column by column.
fn columns(records: Vec<Record>) -> Vec<Value> {
    let mut columns = COLUMNS.map(|_| Vec::with_capacity(records.len()));
    for record in records {
        for (column, value) in columns.iter_mut().zip(record.values()) {
            let value = match value {
                Value::String(None) => Value::String(Some(String::new())),
                value => value,
            };
            column.push(value);
        }
    }
    let arrays = columns.into_iter().enumerate().map(|(at, values)| {
        let kind = if at == NUMBER {
            ArrayType::BigInt
        } else {
            ArrayType::String
        };
        Value::Array(kind, Some(Box::new(values)))
    });
    arrays.collect()
}
