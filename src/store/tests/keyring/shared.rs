//! Keyrings of replicas that serve while keys are added and rotated.

use super::*;
use crate::{clock::ManualClock, keys::MasterKeySource};

async fn shared(db: &Database, masters: MasterKeys, clock: &Arc<ManualClock>) -> SharedKeyring {
    let opened = SharedKeyring::open(db.clone(), masters, PURPOSES, clock.clone(), &SystemRandom);
    opened.await.unwrap()
}

#[tokio::test]
async fn a_serving_replica_reads_a_new_version_before_any_uses_it() {
    let (dir, master) = file_key(1);
    let path = dir.path().join("master.key");
    let masters = || MasterKeys::from(FileMasterKey::load(&path).unwrap());
    drop(master);
    for (place, db) in migrated().await {
        let clock = test_clock();
        let [one, other] = [
            shared(&db, masters(), &clock).await,
            shared(&db, masters(), &clock).await,
        ];
        let version = add_version(&db, &masters(), "secrets", &*clock, &SystemRandom).await;
        assert_eq!(version.unwrap(), 2, "{place:?}");
        let current = async |keyring: &SharedKeyring| {
            keyring.get().await.unwrap().current("secrets").unwrap().version()
        };
        one.refresh().await.unwrap();
        assert_eq!(current(&one).await, 1, "{place:?}: not before the others have it");
        clock.advance(DISTRIBUTION);
        one.refresh().await.unwrap();
        assert_eq!(current(&one).await, 2, "{place:?}");
        // The other one missed all that. A row that names the version makes it read again.
        assert_eq!(current(&other).await, 1, "{place:?}");
        let sealed = one
            .get()
            .await
            .unwrap()
            .current("secrets")
            .unwrap()
            .hmac(&[b"row"]);
        tokio::time::pause();
        tokio::time::advance(shared::RETRY_UNKNOWN).await;
        tokio::time::resume();
        let keyring = other.with_version("secrets", 2).await.unwrap();
        assert_eq!(
            keyring.require("secrets", 2).unwrap().hmac(&[b"row"]),
            sealed,
            "{place:?}"
        );
        // A version that nobody has is no fault of this program.
        let missing = other.with_version("secrets", 3).await.unwrap_err();
        assert!(missing.is_temporary(), "{place:?}: {missing}");
    }
}

#[tokio::test]
async fn a_keyring_that_was_not_read_for_long_is_read_before_it_is_used() {
    let (dir, _) = file_key(1);
    let path = dir.path().join("master.key");
    let masters = || MasterKeys::from(FileMasterKey::load(&path).unwrap());
    for (place, db) in migrated().await {
        let clock = test_clock();
        let keyring = shared(&db, masters(), &clock).await;
        add_version(&db, &masters(), "names", &*clock, &SystemRandom)
            .await
            .unwrap();
        clock.advance(DISTRIBUTION);
        let versions = async || {
            let names = keyring.get().await.unwrap();
            names.versions("names").map(DataKey::version).collect::<Vec<_>>()
        };
        assert_eq!(versions().await, [1], "{place:?}");
        tokio::time::pause();
        tokio::time::advance(shared::MAX_AGE + Duration::from_millis(1)).await;
        tokio::time::resume();
        // No call waits for a master key.
        assert_eq!(versions().await, [1], "{place:?}");
        assert!(keyring.complete().await.is_err(), "{place:?}");
        keyring.refresh().await.unwrap();
        assert_eq!(versions().await, [2, 1], "{place:?}");
    }
}

#[tokio::test]
async fn a_token_that_does_not_answer_keeps_no_known_version_from_its_use() {
    let (dir, _) = file_key(1);
    let path = dir.path().join("master.key");
    let key = || FileMasterKey::load(&path).unwrap();
    for (place, db) in migrated().await {
        let clock = test_clock();
        open(&db, &key().into()).await.unwrap();
        let failed = Arc::<AtomicUsize>::default();
        let removed = |hangs| Removed {
            key: key(),
            left: AtomicUsize::new(PURPOSES.len()),
            failed: Arc::clone(&failed),
            hangs,
        };
        let fails = shared(&db, removed(false).into(), &clock).await;
        let hangs = shared(&db, removed(true).into(), &clock).await;
        for purpose in PURPOSES {
            let added = add_version(&db, &key().into(), purpose, &*clock, &SystemRandom).await;
            assert_eq!(added.unwrap(), 2, "{place:?}");
        }
        // It is asked again for the first version alone.
        fails.refresh().await.unwrap();
        assert_eq!(failed.load(SeqCst), 2, "{place:?}");
        let refreshing = tokio::spawn({
            let hangs = hangs.clone();
            async move { hangs.refresh().await }
        });
        while failed.load(SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        for keyring in [&fails, &hangs] {
            tokio::time::pause();
            tokio::time::advance(shared::MAX_AGE + Duration::from_millis(1)).await;
            tokio::time::resume();
            assert_eq!(
                keyring.complete().await.unwrap().versions("names").count(),
                1,
                "{place:?}"
            );
        }
        clock.advance(DISTRIBUTION);
        for keyring in [&fails, &hangs] {
            tokio::time::pause();
            tokio::time::advance(shared::MAX_AGE + Duration::from_millis(1)).await;
            tokio::time::resume();
            let known = keyring.get().await.unwrap();
            assert_eq!(known.current("names").unwrap().version(), 1, "{place:?}");
            // What may miss a value of another replica must wait.
            let incomplete = keyring.complete().await.unwrap_err();
            assert!(incomplete.is_temporary(), "{place:?}: {incomplete}");
        }
        refreshing.abort();
    }
}

#[tokio::test]
async fn a_rotation_of_the_master_key_leaves_serving_replicas_alone() {
    let (old_dir, _) = file_key(1);
    let (new_dir, new) = file_key(2);
    let (old_path, new_path) = (
        old_dir.path().join("master.key"),
        new_dir.path().join("master.key"),
    );
    let source = |path: &std::path::Path| MasterKeySource::File(path.to_owned());
    for (place, db) in migrated().await {
        let clock = test_clock();
        // A file of this replica's own, which an operator replaces while it serves.
        let mounted = new_dir.path().join("mounted");
        let copy = |from: &std::path::Path| {
            let _ = std::fs::remove_file(&mounted);
            std::fs::copy(from, &mounted).unwrap();
        };
        copy(&old_path);
        let only_old = MasterKeys::open(vec![source(&mounted)]).await.unwrap();
        let both = || async {
            MasterKeys::open(vec![source(&old_path), source(&new_path)])
                .await
                .unwrap()
        };
        let alone = shared(&db, only_old, &clock).await;
        let prepared = shared(&db, both().await, &clock).await;
        let before = fingerprint(&alone.get().await.unwrap(), "secrets");
        rewrap(&db, &both().await, &new, &*clock, &SystemRandom)
            .await
            .unwrap();
        for replica in [&alone, &prepared] {
            replica.refresh().await.unwrap();
            assert_eq!(
                fingerprint(&replica.get().await.unwrap(), "secrets"),
                before,
                "{place:?}"
            );
        }
        // A replica with both keys can start at any time.
        shared(&db, both().await, &clock).await;

        // A new version is wrapped by the new key, also by a command that has both.
        add_version(&db, &both().await, "secrets", &*clock, &SystemRandom)
            .await
            .unwrap();
        let only_new = MasterKeys::open(vec![source(&new_path)]).await.unwrap();
        check(&db, &only_new).await.unwrap();
        for replica in [&alone, &prepared] {
            replica.refresh().await.unwrap();
        }
        assert!(
            prepared.get().await.unwrap().version("secrets", 2).is_some(),
            "{place:?}"
        );
        // The replica without the new key goes on, and is not ready once others use the version.
        assert!(
            alone.get().await.unwrap().version("secrets", 2).is_none(),
            "{place:?}"
        );
        alone.check_complete().unwrap();
        clock.advance(DISTRIBUTION);
        alone.refresh().await.unwrap();
        let why = alone.check_complete().unwrap_err();
        assert!(why.contains("secrets version 2"), "{place:?}: {why}");
        let unknown = alone.with_version("secrets", 2).await.unwrap_err();
        assert!(unknown.is_temporary(), "{place:?}: {unknown}");
        // Its file is read again when a row names another key.
        copy(&new_path);
        alone.refresh().await.unwrap();
        alone.check_complete().unwrap();
        assert!(
            alone.get().await.unwrap().version("secrets", 2).is_some(),
            "{place:?}"
        );
    }
}
