//! Given rows as a table of a statement. They travel as one parameter, so that the statement's text is the
//! same for any number of them, on either database.

use sea_orm::{ConnectionTrait, DatabaseBackend, ExecResult, QueryResult, Statement, Value};
use serde::Serialize;

use super::StoreError;

/// A column: its name, and its type on PostgreSQL.
pub type Column = (&'static str, &'static str);

/// A statement about given rows, which it knows as the table `asked`.
#[derive(Debug)]
pub struct AboutRows {
    sqlite: String,
    postgres: String,
}

/// What a statement's text says differently on the two databases.
#[derive(Debug)]
pub struct Dialect {
    postgres: bool,
    /// The given rows, where a table stands.
    pub asked: String,
}

impl Dialect {
    /// The bytes that a text has in hexadecimal digits.
    pub fn unhex(&self, text: &str) -> String {
        if self.postgres {
            format!("decode({text}, 'hex')")
        } else {
            format!("unhex({text})")
        }
    }

    /// At the end of a query: locks the rows of `table`, but for those that somebody else holds, which are
    /// left out. On SQLite nobody else holds anything.
    pub fn lock_free(&self, table: &str) -> String {
        if self.postgres {
            format!("FOR UPDATE OF {table} SKIP LOCKED")
        } else {
            String::new()
        }
    }
}

impl AboutRows {
    /// The statement with this text. `$1` are the rows, further parameters begin at `$2`.
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
                asked: format!(
                    "(SELECT {} FROM json_each($1)) AS asked",
                    members(|_| String::new())
                ),
            }),
            // Of an array PostgreSQL expects few elements and looks each up by an index; of a function that
            // returns rows it expects so many that it would rather read a table of some thousand rows whole.
            postgres: text(&Dialect {
                postgres: true,
                asked: format!(
                    "(SELECT {} FROM unnest(ARRAY(SELECT jsonb_array_elements($1::jsonb))) AS given(value)) AS asked",
                    members(|kind| format!("::{kind}"))
                ),
            }),
        }
    }

    /// The statement that adds the rows to a table.
    pub fn insert(table: &str, columns: &[Column]) -> Self {
        let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        Self::new(columns, |Dialect { asked, .. }| {
            format!("INSERT INTO {table} ({names}) SELECT {names} FROM {asked}")
        })
    }

    /// Runs it with rows whose fields are named as the columns.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for rows that JSON can't hold; what the database says.
    pub async fn execute(
        &self,
        conn: &impl ConnectionTrait,
        rows: &[impl Serialize],
        others: impl IntoIterator<Item = Value>,
    ) -> Result<ExecResult, StoreError> {
        Ok(conn.execute_raw(self.statement(conn, rows, others)?).await?)
    }

    /// Runs it, and reads what it returns.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for rows that JSON can't hold; what the database says.
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
        let rows = serde_json::to_string(rows).map_err(|_| StoreError::Corrupt("rows to be written"))?;
        let values = std::iter::once(Value::from(rows)).chain(others);
        Ok(Statement::from_sql_and_values(backend, text, values))
    }
}
