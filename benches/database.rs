//! Durable databases: a commit that was answered is on the disk.

use std::path::Path;

use accord::testing::{DurablePostgres, TestDatabase, durable_postgres};

/// Where databases are created: files in the directory of a deployment, or a PostgreSQL of this run's own.
pub struct Server(Option<DurablePostgres>);

impl Server {
    /// A server, if this machine has it. PostgreSQL's files go below `root` if its own user gets there, else
    /// to a directory that survives a restart.
    pub fn start(database: &str, root: &Path) -> Option<Self> {
        match database {
            "postgres" => Some(Self(Some(durable_postgres(&[root, Path::new("/var/tmp")])?))),
            _ => Some(Self(None)),
        }
    }

    pub fn name(&self) -> &'static str {
        if self.0.is_some() { "postgres" } else { "sqlite" }
    }

    /// The URL of an empty database, and what removes it when it is dropped, if anything must.
    pub fn create(&self, directory: &Path, name: &str) -> (String, Option<TestDatabase>) {
        let Some(postgres) = &self.0 else {
            return (format!("sqlite://{}/{name}.db", directory.display()), None);
        };
        let database = postgres.database();
        (database.url.clone(), Some(database))
    }

    /// The process that all of the database's descend from, if it has any.
    pub fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(DurablePostgres::pid)
    }
}
