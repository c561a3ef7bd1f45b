//! What both services keep in their databases: the connection, migrations that replicas may race,
//! the audit trail, the change feed, the keyring and the record of request ids.
//!
//! A service's own tables, and the rules about them, live in the service. What is here works the
//! same on SQLite and on PostgreSQL: the database is a URL, not a second implementation.

use sea_orm_migration::{DbErr, SchemaManager};

pub mod audit;
pub mod batch;
pub mod change;
mod checkpoint;
mod creation;
mod database;
mod error;
pub mod idempotency;
pub mod keyring;
mod migration;
mod pinned_connection;

pub use creation::Creation;
pub use database::Database;
pub use error::StoreError;
pub use migration::{create_index, create_table, create_unique_index};

/// Creates the tables of this module. Each service's migration calls it.
///
/// A service calls [`change::ensure`] once after its migrations, since the feed's epoch is random and
/// migrations have no randomness.
///
/// # Errors
/// What the database says, a table of one of these names among it.
pub async fn create_tables(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    change::create_tables(manager).await?;
    keyring::create_table(manager).await?;
    idempotency::create_table(manager).await?;
    audit::create_table(manager).await
}

#[cfg(test)]
mod fixture;
