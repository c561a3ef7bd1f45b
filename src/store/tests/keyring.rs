#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::{
    keys::FileMasterKey,
    random::{SeededRandom, SystemRandom},
    store::fixture::migrated,
    testing::{test_clock, test_random},
};

#[path = "keyring/shared.rs"]
mod shared_keyring;

const PURPOSES: &[&str] = &["secrets", "names"];

fn master_key(seed: u64) -> (TempDir, MasterKeys) {
    let (dir, key) = file_key(seed);
    (dir, key.into())
}

fn file_key(seed: u64) -> (TempDir, FileMasterKey) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    let key = FileMasterKey::create(&path, &SeededRandom::new(seed)).unwrap();
    (dir, key)
}

async fn open(db: &Database, master: &MasterKeys) -> Result<Keyring, StoreError> {
    super::open(db, master, PURPOSES, &*test_clock(), &SystemRandom).await
}

fn fingerprint(keyring: &Keyring, purpose: &str) -> Vec<(i32, [u8; 32])> {
    keyring
        .versions(purpose)
        .map(|key| (key.version(), key.hmac(&[b"test"])))
        .collect()
}

#[tokio::test]
async fn a_reopened_keyring_has_the_same_keys() {
    let (_dir, master) = master_key(1);
    for (place, db) in migrated().await {
        let first = open(&db, &master).await.unwrap();
        let again = open(&db, &master).await.unwrap();
        for purpose in PURPOSES {
            assert_eq!(
                fingerprint(&first, purpose),
                fingerprint(&again, purpose),
                "{place:?}"
            );
            assert_eq!(first.current(purpose).unwrap().version(), 1);
        }
        assert_ne!(
            fingerprint(&first, "secrets"),
            fingerprint(&first, "names"),
            "{place:?}"
        );
        assert!(matches!(first.current("other"), Err(KeyError::NotOpened(_))));
        assert!(first.version("secrets", 2).is_none());
        assert!(matches!(
            first.require("secrets", 2),
            Err(KeyError::UnknownVersion { .. })
        ));
        assert_eq!(first.versions("other").count(), 0);
        // Commands use this keyring, too: a version that the table does not have is a forgery to them.
        assert!(matches!(first.for_mac("names", 99), Ok(None)), "{place:?}");
    }
}

#[tokio::test]
async fn data_keys_of_one_service_open_at_no_other_even_under_the_same_master_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("master.key");
    FileMasterKey::create(&path, &SeededRandom::new(1)).unwrap();
    let of = |service: &str| MasterKeys::from(FileMasterKey::load(&path).unwrap()).for_service(service);
    for (place, db) in migrated().await {
        open(&db, &of("registry")).await.unwrap();
        check(&db, &of("registry")).await.unwrap();
        for other in ["token", ""] {
            let refused = open(&db, &of(other)).await.unwrap_err();
            assert!(
                matches!(refused, StoreError::Key(KeyError::Sealed)),
                "{place:?} {refused:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_replicas_agree_on_the_keys() {
    let (_dir, master) = master_key(1);
    let master = Arc::new(master);
    for (place, db) in migrated().await {
        let mut replicas = JoinSet::new();
        for _ in 0..8 {
            let (db, master) = (db.clone(), Arc::clone(&master));
            replicas.spawn(async move { fingerprint(&open(&db, &master).await.unwrap(), "secrets") });
        }
        let mut keys = replicas.join_all().await;
        keys.dedup();
        assert_eq!(keys.len(), 1, "{place:?}");
    }
}

#[tokio::test]
async fn a_rotation_of_a_data_key_keeps_the_older_versions() {
    let (_dir, master) = master_key(1);
    for (place, db) in migrated().await {
        let before = open(&db, &master).await.unwrap();
        let (clock, random) = (test_clock(), test_random());
        let version = add_version(&db, &master, "secrets", &*clock, &*random)
            .await
            .unwrap();
        assert_eq!(version, 2, "{place:?}");
        // Everybody reads it before anybody uses it.
        let waiting = open(&db, &master).await.unwrap();
        assert_eq!(waiting.current("secrets").unwrap().version(), 1, "{place:?}");
        assert!(waiting.version("secrets", 2).is_some(), "{place:?}");
        clock.advance(DISTRIBUTION);
        let after = super::open(&db, &master, PURPOSES, &*clock, &SystemRandom)
            .await
            .unwrap();
        assert_eq!(after.current("secrets").unwrap().version(), 2);
        let keys = fingerprint(&after, "secrets");
        assert_eq!(
            keys.iter().map(|(version, _)| *version).collect::<Vec<_>>(),
            [2, 1]
        );
        assert_eq!(keys[1..], fingerprint(&before, "secrets"), "{place:?}");
        assert_eq!(fingerprint(&after, "names"), fingerprint(&before, "names"));
    }
}

#[tokio::test]
async fn another_master_key_opens_nothing() {
    let (_dir, master) = master_key(1);
    let (_other_dir, other) = master_key(2);
    for (place, db) in migrated().await {
        open(&db, &master).await.unwrap();
        let error = open(&db, &other).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Key(KeyError::OtherMasterKey { .. })),
            "{place:?}: {error}"
        );
        // A row that names the other key's id does not help.
        let claim = row::ActiveModel {
            master_key_id: Set(other.preferred(None).unwrap().id()),
            ..Default::default()
        };
        row::Entity::update_many()
            .set(claim)
            .exec(db.read())
            .await
            .unwrap();
        let error = open(&db, &other).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Key(KeyError::Sealed)),
            "{place:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_wrapped_key_does_not_open_in_another_row() {
    let (_dir, master) = master_key(1);
    for (place, db) in migrated().await {
        open(&db, &master).await.unwrap();
        let key = ("secrets".to_owned(), 1);
        let row = row::Entity::find_by_id(key)
            .one(db.read())
            .await
            .unwrap()
            .unwrap();
        let claim = row::ActiveModel {
            wrapped: Set(row.wrapped),
            ..Default::default()
        };
        row::Entity::update_many()
            .set(claim)
            .exec(db.read())
            .await
            .unwrap();
        assert!(
            matches!(open(&db, &master).await, Err(StoreError::Key(KeyError::Sealed))),
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn rotating_the_master_key_keeps_the_data_keys() {
    let (_old_dir, old) = master_key(1);
    let (_new_dir, new) = file_key(2);
    let (_third_dir, third) = master_key(3);
    let (clock, random) = (test_clock(), test_random());
    for (place, db) in migrated().await {
        let before = open(&db, &old).await.unwrap();
        let rewrap = async |from: &MasterKeys| rewrap(&db, from, &new, &*clock, &*random).await;
        // Neither of these keys wraps the rows: nothing happens.
        assert!(rewrap(&third).await.is_err(), "{place:?}");
        open(&db, &old).await.unwrap();

        assert_eq!(rewrap(&old).await.unwrap(), 2, "{place:?}");
        assert_eq!(rewrap(&old).await.unwrap(), 0, "{place:?}");
        assert!(matches!(
            open(&db, &old).await,
            Err(StoreError::Key(KeyError::OtherMasterKey { .. }))
        ));
        let path = _new_dir.path().join("master.key");
        let after = open(&db, &FileMasterKey::load(&path).unwrap().into())
            .await
            .unwrap();
        for purpose in PURPOSES {
            assert_eq!(
                fingerprint(&after, purpose),
                fingerprint(&before, purpose),
                "{place:?}"
            );
        }
        assert_eq!(format!("{after:?}").matches("[1]").count(), 2, "{after:?}");
    }
}

/// A master key in a token that is removed after some operations.
#[derive(Debug)]
struct Removed {
    key: FileMasterKey,
    left: AtomicUsize,
    /// How many operations have failed.
    failed: Arc<AtomicUsize>,
    /// Whether it keeps silent then.
    hangs: bool,
}

impl Removed {
    async fn operate(&self) -> Result<(), KeyError> {
        let left = self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Ok(());
        }
        self.failed.fetch_add(1, SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Err(KeyError::Token("CKR_DEVICE_REMOVED".to_owned()))
    }
}

#[async_trait::async_trait]
impl MasterKey for Removed {
    fn id(&self) -> String {
        self.key.id()
    }

    async fn wrap(&self, random: &dyn Random, plaintext: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.operate().await?;
        self.key.wrap(random, plaintext, context).await
    }

    async fn unwrap(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.operate().await?;
        self.key.unwrap(sealed, context).await
    }
}

#[tokio::test]
async fn a_master_key_that_goes_in_the_middle_of_a_rotation_changes_nothing() {
    let (_old_dir, old) = file_key(1);
    let (_new_dir, new) = file_key(2);
    let old_path = _old_dir.path().join("master.key");
    let (clock, random) = (test_clock(), test_random());
    for (place, db) in migrated().await {
        let masters = MasterKeys::from(FileMasterKey::load(&old_path).unwrap());
        let before = open(&db, &masters).await.unwrap();
        // One row opens, the second does not.
        let removed = MasterKeys::from(Removed {
            key: FileMasterKey::load(&old_path).unwrap(),
            left: AtomicUsize::new(1),
            failed: Arc::default(),
            hangs: false,
        });
        let error = rewrap(&db, &removed, &new, &*clock, &*random).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Key(KeyError::Token(_))),
            "{place:?}: {error}"
        );
        let after = open(&db, &masters).await.unwrap();
        assert_eq!(
            fingerprint(&after, "secrets"),
            fingerprint(&before, "secrets"),
            "{place:?}"
        );
        // When it is back, the rotation can be repeated.
        assert_eq!(
            rewrap(&db, &masters, &new, &*clock, &*random).await.unwrap(),
            2,
            "{place:?}"
        );
        assert_eq!(masters.preferred(None).unwrap().id(), old.id());
    }
}
