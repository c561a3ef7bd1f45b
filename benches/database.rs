//! The databases: durable ones, whose every commit is on the disk before it counts.

use std::path::Path;

use accord::{
    store::Database,
    testing::{DurablePostgres, TestDatabase, durable_postgres},
};
use anyhow::Context;
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

use crate::options::Databases;

/// Where databases are made.
pub enum Server {
    /// Files, in the directory of whoever wants one.
    Sqlite,
    /// A server of this run's own.
    Postgres(DurablePostgres),
}

/// A database, which lasts as long as this, its server, and its directory.
pub struct Made {
    pub url: String,
    _postgres: Option<TestDatabase>,
}

impl Server {
    /// The servers that are wanted and can be had. Files go below `root`, if PostgreSQL's own user gets
    /// there; else to where files survive a restart.
    pub fn all(databases: Databases, root: &Path) -> Vec<Self> {
        let mut servers = Vec::new();
        if databases != Databases::Postgres {
            servers.push(Self::Sqlite);
        }
        if databases != Databases::Sqlite {
            servers.extend(durable_postgres(&[root, Path::new("/var/tmp")]).map(Self::Postgres));
        }
        servers
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// An empty database; a file of that name in `directory` if it is one.
    pub fn create(&self, directory: &Path, name: &str) -> Made {
        match self {
            Self::Sqlite => Made {
                url: format!("sqlite://{}", directory.join(name).with_extension("db").display()),
                _postgres: None,
            },
            Self::Postgres(server) => {
                let database = server.database();
                Made {
                    url: database.url.clone(),
                    _postgres: Some(database),
                }
            }
        }
    }

    /// The process that all others of the database descend from, if it has its own.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(server) => Some(server.pid()),
        }
    }

    /// Where its files are; `root` is where SQLite's are.
    pub fn directory<'a>(&'a self, root: &'a Path) -> &'a Path {
        match self {
            Self::Sqlite => root,
            Self::Postgres(server) => server.directory(),
        }
    }
}

/// Leaves a database that was filled at once as one that grew would be: with statistics, and with nothing
/// that waits to be written.
pub async fn settle(url: &str) -> anyhow::Result<()> {
    let db = Database::connect(url).await?;
    if db.backend() == DatabaseBackend::Postgres {
        db.read().execute_unprepared("VACUUM ANALYZE").await?;
        db.read().execute_unprepared("CHECKPOINT").await?;
    }
    // SQLite writes its log back when the last connection closes.
    Ok(db.close().await?)
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
