//! A store for tests.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use accord::{
    clock::ManualClock,
    keys::FileMasterKey,
    random::SystemRandom,
    store::{Database, change, keyring},
    testing::test_clock,
};

use super::{PURPOSES, Store, migration::Migrator};

/// Opens a store on an empty database. Returns it with its clock.
pub(crate) async fn store(url: &str) -> (Store, Arc<ManualClock>) {
    let clock = test_clock();
    let random = Arc::new(SystemRandom);
    let db = Database::connect(url).await.unwrap();
    db.migrate::<Migrator>().await.unwrap();
    change::ensure(db.read(), &*random).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let master = FileMasterKey::create(&directory.path().join("key"), &*random).unwrap();
    let keyring = keyring::open(&db, &master, PURPOSES, &*clock, &*random)
        .await
        .unwrap();
    (Store::new(db, keyring, clock.clone(), random), clock)
}
