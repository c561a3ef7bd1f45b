//! Databases with the shared tables, for this module's tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use sea_orm_migration::{DbErr, MigrationName, MigrationTrait, MigratorTrait, SchemaManager};

use super::{Database, audit, change, create_tables, log, rows};
use crate::{
    keys::{DataKey, Keyring},
    testing::{TestDatabase, databases, test_random},
};

/// The migrations of a service that has only the shared tables.
pub(crate) struct Migrator;

struct FirstVersion;

impl MigrationName for FirstVersion {
    fn name(&self) -> &str {
        "m0001_shared_tables"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FirstVersion {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_tables(manager).await
    }
}

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(FirstVersion)]
    }
}

/// Returns a migrated database of each kind. The first of the pair keeps it alive.
pub(crate) async fn migrated() -> Vec<(TestDatabase, Database)> {
    let mut all = Vec::new();
    for place in databases() {
        let db = place.connect().await;
        db.migrate::<Migrator>().await.unwrap();
        db.use_keys(event_keys());
        change::ensure(&db, &*test_random()).await.unwrap();
        all.push((place, db));
    }
    all
}

/// Returns a keyring whose keys make the MACs of events and rows.
pub(crate) fn event_keys() -> Arc<Keyring> {
    let purposes = [
        audit::KEYRING_PURPOSE,
        rows::KEYRING_PURPOSE,
        log::KEYRING_PURPOSE,
    ];
    let mut keyring = Keyring::new(&purposes);
    for (purpose, byte) in purposes.into_iter().zip(7..) {
        keyring.insert(purpose, DataKey::new(1, &[byte; 32]).unwrap(), true);
    }
    Arc::new(keyring)
}
