//! Statements over many rows. The rows are one JSON parameter, so that the text of a statement is the same for any
//! number of rows, on both databases.
//!
//! Measured on PostgreSQL with 500 rows: about 6 % faster than 500 value tuples, and each statement is prepared once.

use sea_orm::{
    ConnectionTrait, DatabaseBackend, EntityName, ExecResult, IdenStatic, Iterable, PrimaryKeyToColumn,
    QueryResult, Statement, Value,
};
use serde::Serialize;

use crate::store::{
    StoreError,
    rows::{
        Protected,
        version::{self, is_bytes},
    },
};

/// A column: its name, and its type on PostgreSQL.
pub type Column = (&'static str, &'static str);

/// A statement over rows, which it reads from the table `input`.
#[derive(Debug)]
pub struct JsonRows {
    sqlite: String,
    postgres: String,
}

/// The parts of a statement that differ between databases.
#[derive(Debug)]
pub struct Dialect {
    postgres: bool,
    /// The table `input`, for a FROM clause.
    pub input: String,
}

impl Dialect {
    /// Returns the expression that decodes a hexadecimal text.
    pub fn unhex(&self, text: &str) -> String {
        if self.postgres {
            format!("decode({text}, 'hex')")
        } else {
            format!("unhex({text})")
        }
    }

    /// Returns what a query selects to read rows of an entity for [`checked`](crate::store::rows::checked), and the join for its
    /// FROM clause, without which there are no versions. Not for a query that locks rows.
    pub fn versioned<E: Protected>(&self) -> (String, String) {
        let entity = E::default();
        let table = entity.table_name();
        if !E::RECORDED.is_versioned() {
            return (format!("{table}.*"), String::new());
        }
        let versions = version::Entity.table_name();
        let columns = version::Column::iter().map(|column| {
            let name = column.as_str();
            format!("{versions}.{name} AS {}{name}", version::PREFIX)
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let key = E::PrimaryKey::iter().map(|key| {
            let column = key.into_column();
            let key = format!("{table}.{}", column.as_str());
            match (is_bytes(column), self.postgres) {
                (false, _) => key,
                (true, true) => format!("encode({key}, 'hex')"),
                (true, false) => format!("lower(hex({key}))"),
            }
        });
        let key = key.collect::<Vec<_>>().join(" || '/' || ");
        let join = format!("LEFT JOIN {versions} ON {versions}.row_name = '{table}/' || {key}");
        (format!("{table}.*, {columns}"), join)
    }

    /// Returns the end of a query that locks the rows of `table`. SQLite has one writer at a time and needs no lock.
    pub fn lock(&self, table: &str) -> String {
        match self.postgres {
            true => format!("FOR UPDATE OF {table}"),
            false => String::new(),
        }
    }

    /// Returns the end of a query that locks the rows of `table` and skips locked ones. SQLite has one writer at a time
    /// and needs no lock.
    pub fn lock_free(&self, table: &str) -> String {
        if self.postgres {
            format!("FOR UPDATE OF {table} SKIP LOCKED")
        } else {
            String::new()
        }
    }
}

impl JsonRows {
    /// Builds a statement. `$1` holds the rows; further parameters start at `$2`.
    pub fn new(columns: &[Column], text: impl Fn(&Dialect) -> String) -> Self {
        let members = |cast: fn(&str) -> String| {
            let members = columns
                .iter()
                .map(|(name, kind)| format!("(value ->> '{name}'){} AS {name}", cast(kind)));
            members.collect::<Vec<_>>().join(", ")
        };
        Self {
            sqlite: text(&Dialect {
                postgres: false,
                input: format!(
                    "(SELECT {} FROM json_each($1)) AS input",
                    members(|_| String::new())
                ),
            }),
            // PostgreSQL expects few elements in an array, and looks each up by an index. From a function that
            // returns rows it expects so many that it scans a table of some thousand rows.
            postgres: text(&Dialect {
                postgres: true,
                input: format!(
                    "(SELECT {} FROM unnest(ARRAY(SELECT jsonb_array_elements($1::jsonb))) AS given(value)) AS input",
                    members(|kind| format!("::{kind}"))
                ),
            }),
        }
    }

    /// Executes the statement with rows whose fields have the names of the columns.
    pub async fn execute(
        &self,
        conn: &impl ConnectionTrait,
        rows: &[impl Serialize],
        others: impl IntoIterator<Item = Value>,
    ) -> Result<ExecResult, StoreError> {
        Ok(conn.execute_raw(self.statement(conn, rows, others)?).await?)
    }

    /// Executes the statement and returns its rows.
    pub async fn query(
        &self,
        conn: &impl ConnectionTrait,
        rows: &[impl Serialize],
        others: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        Ok(conn.query_all_raw(self.statement(conn, rows, others)?).await?)
    }

    fn statement(
        &self,
        conn: &impl ConnectionTrait,
        rows: &[impl Serialize],
        others: impl IntoIterator<Item = Value>,
    ) -> Result<Statement, StoreError> {
        let backend = conn.get_database_backend();
        let text = match backend {
            DatabaseBackend::Postgres => &self.postgres,
            _ => &self.sqlite,
        };
        let rows = serde_json::to_string(rows).map_err(|_| StoreError::Corrupt("rows for a statement"))?;
        let values = std::iter::once(Value::from(rows)).chain(others);
        Ok(Statement::from_sql_and_values(backend, text, values))
    }
}
