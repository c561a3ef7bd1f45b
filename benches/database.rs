//! The databases: durable ones, whose every commit is on the disk before it counts.

use std::path::Path;

use accord::store::Database;
use anyhow::Context;
use sea_orm::{ConnectionTrait, Statement};

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Where databases are made.
pub enum Server {
    Sqlite,
}

impl Server {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Sqlite => Kind::Sqlite,
        }
    }

    /// An empty database, which lasts as long as this server and `directory`; its URL.
    pub fn create(&self, directory: &Path, name: &str) -> anyhow::Result<String> {
        match self {
            Self::Sqlite => Ok(format!(
                "sqlite://{}",
                directory.join(name).with_extension("db").display()
            )),
        }
    }

    /// The process that all others of the database descend from.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Sqlite => None,
        }
    }
}

/// How many events of issued tokens a token-service's database holds.
pub async fn issued_tokens(url: &str) -> anyhow::Result<u64> {
    let db = Database::connect(url).await?;
    let count = "SELECT COUNT(*) AS events FROM audit_events WHERE action = 'token.issue'";
    let row = db
        .read()
        .query_one_raw(Statement::from_string(db.backend(), count))
        .await?;
    let count: i64 = row.context("no count")?.try_get("", "events")?;
    db.close().await?;
    Ok(u64::try_from(count)?)
}
