//! A store for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use accord::{clock::ManualClock, random::SystemRandom, testing::migrated};

use super::{PURPOSES, Store, migration::Migrator};

/// Opens a store on an empty database. Returns it with its clock.
pub(crate) async fn store(url: &str) -> (Store, Arc<ManualClock>) {
    let (db, keyring, clock) = migrated::<Migrator>(url, PURPOSES).await;
    (
        Store::new(db, keyring, clock.clone(), Arc::new(SystemRandom)),
        clock,
    )
}
