//! What both services store in their databases: the change feed, the audit record and its Merkle log, the keyring, the MACs
//! of rows and the request ids; and the connection to a database, its migrations, the group commit and the removal of old rows.
//!
//! Each service defines its own tables. This module works the same on SQLite and PostgreSQL: the database is a URL, not
//! a second implementation.

pub mod audit;
pub mod batch;
pub mod change;
mod database;
mod error;
pub mod idempotency;
pub mod keyring;
pub mod log;
mod migration;
pub mod origin;
pub mod removal;
pub mod rows;
mod tables;

pub use database::{
    Database,
    connection::{Keyed, Transaction},
    pool::Pool,
};
pub use error::StoreError;
pub use idempotency::Creation;
pub use migration::{
    create_index, create_index_beside_writers, create_table, create_unique_index, is_epoch_unfinished,
    mark_epoch_finished, mark_epoch_unfinished,
};
pub use tables::create_tables;

#[cfg(test)]
pub(crate) mod fixture;
