//! Where a database is, and what it was created for: what a service checks before it serves from it.

use std::str::FromStr;

use sea_orm::{
    ConnectionTrait, DatabaseBackend, Statement,
    sqlx::{
        postgres::{PgConnectOptions, PgSslMode},
        sqlite::SqliteConnectOptions,
    },
};

use super::{Database, StoreError};

/// The `user_version` of a SQLite database of `accord dev`.
const DEVELOPMENT: i32 = 1;

/// Checks the URL of a database: its kind, and that a connection that leaves this machine is encrypted and verified.
///
/// # Errors
/// The rule that it breaks.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    match url.split_once(':') {
        // Parameters could open a file in memory, or without locks.
        Some(("sqlite", path)) if path.contains('?') || path.contains(":memory:") => {
            Err("must be a path without parameters after sqlite://")
        }
        Some(("sqlite", _)) if SqliteConnectOptions::from_str(url).is_ok() => Ok(()),
        Some(("postgres" | "postgresql", _)) => {
            let options = PgConnectOptions::from_str(url).map_err(|_| "must be a URL of PostgreSQL")?;
            let host = options.get_host().trim_start_matches('[').trim_end_matches(']');
            let is_address_here = || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
            let is_here = options.get_socket().is_some() || host == "localhost" || is_address_here();
            match options.get_ssl_mode() {
                PgSslMode::VerifyFull => Ok(()),
                _ if is_here || host.starts_with('/') => Ok(()),
                _ => Err("must have sslmode=verify-full, because it leaves this machine"),
            }
        }
        _ => Err("must be sqlite://PATH or postgres://..."),
    }
}

/// Returns whether a URL names a SQLite file that does not exist.
pub fn is_missing(url: &str) -> bool {
    let options = url
        .starts_with("sqlite:")
        .then(|| SqliteConnectOptions::from_str(url));
    options.is_some_and(|options| options.is_ok_and(|options| !options.get_filename().exists()))
}

impl Database {
    /// Marks a SQLite database as one of `accord dev`, whose secrets a file holds in plaintext.
    pub async fn mark_for_development(&self) -> Result<(), StoreError> {
        let tx = self.write().await?;
        tx.execute_unprepared(&format!("PRAGMA user_version = {DEVELOPMENT}"))
            .await?;
        tx.commit().await
    }

    /// Returns whether this is a database of `accord dev`.
    pub async fn is_for_development(&self) -> Result<bool, StoreError> {
        if self.backend() != DatabaseBackend::Sqlite {
            return Ok(false);
        }
        let query = Statement::from_string(self.backend(), "PRAGMA user_version");
        let row = self.read().query_one_raw(query).await?;
        let version: i32 = row
            .ok_or(StoreError::Corrupt("user_version"))?
            .try_get("", "user_version")?;
        Ok(version == DEVELOPMENT)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::sqlite;

    #[test]
    fn a_database_elsewhere_is_reached_over_verified_tls() {
        for good in [
            "sqlite://data/registry.db",
            "sqlite:registry.db",
            "postgres://u:p@localhost/registry",
            "postgres://u:p@127.0.0.1:5432/registry",
            "postgresql://u:p@[::1]/registry",
            "postgres:///registry?host=/var/run/postgresql",
            "postgres://u:p@%2Fvar%2Frun%2Fpostgresql/registry",
            "postgres://u:p@db.example/registry?sslmode=verify-full",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "postgres://u:p@db.example/registry",
            "postgres://u:p@db.example/registry?sslmode=require",
            "postgres://u:p@db.example/registry?sslmode=verify-ca",
            "postgres://u:p@10.0.0.5/registry?sslmode=disable",
            "postgres://u:p@localhost/registry?host=db.example",
            "postgres://u:p@localhost/registry?hostaddr=10.0.0.5",
            "postgres://u:p@localhost.example/registry",
            "postgres://[bad/registry",
            "mysql://localhost/registry",
            "sqlite::memory:",
            "sqlite://registry.db?mode=ro",
            "sqlite://registry.db?immutable=true",
            "registry.db",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_database_remembers_that_it_is_for_development() {
        let database = sqlite();
        let db = Database::connect(&database.url).await.unwrap();
        assert!(!db.is_for_development().await.unwrap());
        db.mark_for_development().await.unwrap();
        assert!(db.is_for_development().await.unwrap());
        assert!(!is_missing(&database.url));
        assert!(is_missing("sqlite://no/such/file.db"));
    }
}
