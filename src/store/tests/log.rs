#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, Statement};

use super::*;
use crate::{
    keys::FileMasterKey,
    random::{SeededRandom, SystemRandom},
    store::{Database, fixture::migrated, keyring},
    testing::{TEST_START, test_clock},
    tlog::{self, Checkpoint, ProofError, event_leaf},
};

#[path = "log/edited.rs"]
mod edited;

fn origin(number: u32) -> Origin {
    Origin::of_log("accord.example", "registry", "k7q2", number).unwrap()
}

fn signer() -> Signer {
    Signer::new(origin(1), &[7; 32]).unwrap()
}

fn key(version: i32) -> DataKey {
    DataKey::new(version, &[9; 32]).unwrap()
}

/// The leaves from one index to another.
fn leaves(range: std::ops::Range<u64>) -> Vec<Hash> {
    range.map(|index| event_leaf(&index.to_be_bytes())).collect()
}

/// The head of the log of `size` such leaves.
fn head(size: u64) -> TreeHead {
    TreeHead {
        size,
        root: tlog::root(&leaves(0..size)),
    }
}

async fn acquired(db: &Database) -> Lease {
    Election::new("test")
        .acquire(db, Instant::now())
        .await
        .unwrap()
        .unwrap()
}

/// Starts the first log, and takes the lease.
async fn started(db: &Database) -> (Log, Lease) {
    let tx = db.write().await.unwrap();
    let log = start(&tx, &origin(1), &key(1), "", TEST_START).await.unwrap();
    tx.commit().await.unwrap();
    (log, acquired(db).await)
}

/// Appends the next `count` leaves in a transaction of their own.
async fn seal(db: &Database, lease: &Lease, log: &Log, count: u64) -> Result<Option<Log>, StoreError> {
    let tx = db.write().await?;
    let sealed = sealing(&tx, lease, log, count).await?;
    match sealed {
        Some(_) => tx.commit().await?,
        None => tx.rollback().await?,
    }
    Ok(sealed)
}

async fn sealing(tx: &Transaction, lease: &Lease, log: &Log, count: u64) -> Result<Option<Log>, StoreError> {
    let size = log.head.size;
    let seal = Seal {
        lease,
        log,
        key: &key(log.key_version),
        leaves: &leaves(size..size + count),
        position: &(size + count).to_string(),
        sealed_at: TEST_START,
    };
    seal.commit(tx).await
}

/// The numbers of rows of a table.
async fn count(db: &Database, table: &str) -> i64 {
    let query = Statement::from_string(db.backend(), format!("SELECT count(*) AS n FROM {table}"));
    let row = db.read().query_one_raw(query).await.unwrap().unwrap();
    row.try_get("", "n").unwrap()
}

async fn execute(db: &Database, sql: &str) -> u64 {
    db.read().execute_unprepared(sql).await.unwrap().rows_affected()
}

#[tokio::test]
async fn a_log_grown_in_steps_has_the_roots_and_proofs_of_the_rfc() {
    for (place, db) in migrated().await {
        let (mut log, lease) = started(&db).await;
        assert_eq!(log.head, TreeHead::EMPTY);
        let mut heads = vec![log.head];
        // Tiles begin, fill up by one, are crossed, and are filled at once.
        for count in [1, 1, 5, 248, 1, 1, 255, 256, 300, 1024, 65_536 - 2_092, 1, 400] {
            log = seal(&db, &lease, &log, count).await.unwrap().unwrap();
            assert_eq!(current(db.read()).await.unwrap(), Some(log.clone()), "{place:?}");
            heads.push(log.head);
        }
        let size = log.head.size;
        assert_eq!(size, 65_937);
        let all = leaves(0..size);
        for older in &heads {
            let expected = tlog::root(&all[..older.size as usize]);
            assert_eq!(older.root, expected, "{place:?} {}", older.size);
            assert_eq!(
                root(db.read(), 1, older.size).await.unwrap(),
                expected,
                "{place:?}"
            );
        }
        for at in heads.iter().filter(|head| head.size > 0) {
            for index in [0, at.size / 7, at.size / 3, at.size / 2, at.size - 1] {
                let proof = inclusion_proof(db.read(), 1, index, *at).await.unwrap().unwrap();
                assert_eq!(
                    proof.leaf, all[index as usize],
                    "{place:?} {index} of {}",
                    at.size
                );
                at.check_inclusion(index, proof.leaf, &proof.hashes).unwrap();
            }
            assert_eq!(inclusion_proof(db.read(), 1, at.size, *at).await.unwrap(), None);
            for older in heads
                .iter()
                .filter(|older| 0 < older.size && older.size <= at.size)
            {
                let proof = consistency_proof(db.read(), 1, older.size, *at).await.unwrap();
                at.check_consistency(older, &proof.unwrap()).unwrap();
            }
            for size in [0, at.size + 1, u64::MAX] {
                assert_eq!(consistency_proof(db.read(), 1, size, *at).await.unwrap(), None);
            }
        }
        // 257 full tiles of leaves and a partial one, a full and a partial one of those, and one above.
        assert_eq!(count(&db, "audit_log_tiles").await, 258 + 2 + 1, "{place:?}");
    }
}

#[tokio::test]
async fn every_size_up_to_some_tiles_has_its_root_and_proofs() {
    for (place, db) in migrated().await {
        let (mut log, lease) = started(&db).await;
        let tx = db.write().await.unwrap();
        for size in 1..=600 {
            log = sealing(&tx, &lease, &log, 1).await.unwrap().unwrap();
            assert_eq!(log.head, head(size), "{place:?}");
        }
        tx.commit().await.unwrap();
        for size in (1..=600).step_by(7).chain([255, 256, 257, 511, 512, 513, 600]) {
            let at = head(size);
            assert_eq!(
                root(db.read(), 1, size).await.unwrap(),
                at.root,
                "{place:?} {size}"
            );
            let proof = inclusion_proof(db.read(), 1, size / 2, at)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(proof.leaf, leaves(size / 2..size / 2 + 1)[0], "{place:?} {size}");
            assert!(
                consistency_proof(db.read(), 1, size, log.head)
                    .await
                    .unwrap()
                    .is_some()
            );
        }
    }
}

#[tokio::test]
async fn a_log_begins_empty_and_goes_on_where_another_replica_left_it() {
    for (place, db) in migrated().await {
        assert_eq!(current(db.read()).await.unwrap(), None, "{place:?}");
        let (log, lease) = started(&db).await;
        assert_eq!(
            find(db.read(), &origin(1)).await.unwrap(),
            Some(log.clone()),
            "{place:?}"
        );
        assert_eq!(root(db.read(), 1, 0).await.unwrap(), TreeHead::EMPTY.root);
        assert_eq!(latest(db.read(), 1).await.unwrap(), None);
        assert_eq!(
            seal(&db, &lease, &log, 0).await.unwrap(),
            None,
            "{place:?}: no leaves, no head"
        );
        seal(&db, &lease, &log, 3).await.unwrap().unwrap();
        lease.release(&db).await.unwrap();
        let lease = acquired(&db).await;
        let log = current(db.read()).await.unwrap().unwrap();
        let log = seal(&db, &lease, &log, 3).await.unwrap().unwrap();
        assert_eq!(log.head, head(6), "{place:?}");
        assert_eq!(log.position, "6");
    }
}

#[tokio::test]
async fn a_lease_passes_on_when_it_was_not_renewed_for_its_time() {
    for (place, db) in migrated().await {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (mut one, mut other) = (Election::new("one"), Election::new("other"));
        let first = one.acquire(&db, at(0)).await.unwrap().unwrap();
        assert_eq!(first.generation(), 1, "{place:?}");
        assert!(other.acquire(&db, at(0)).await.unwrap().is_none(), "{place:?}");
        assert!(other.acquire(&db, at(14)).await.unwrap().is_none(), "{place:?}");
        assert!(first.renew(&db).await.unwrap());
        // The renewal counts from when it is seen.
        assert!(other.acquire(&db, at(15)).await.unwrap().is_none(), "{place:?}");
        assert!(other.acquire(&db, at(29)).await.unwrap().is_none(), "{place:?}");
        let second = other.acquire(&db, at(30)).await.unwrap().unwrap();
        assert_eq!(second.generation(), 2, "{place:?}");
        assert!(!first.renew(&db).await.unwrap(), "{place:?}");
        assert!(second.renew(&db).await.unwrap(), "{place:?}");
        // What is no longer its own can't be given back.
        first.release(&db).await.unwrap();
        assert!(one.acquire(&db, at(31)).await.unwrap().is_none(), "{place:?}");
        second.release(&db).await.unwrap();
        let third = one.acquire(&db, at(32)).await.unwrap().unwrap();
        assert_eq!(third.generation(), 3, "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_candidates_one_gets_the_lease() {
    for (place, db) in migrated().await {
        let mut candidates = tokio::task::JoinSet::new();
        for number in 0..8 {
            let db = db.clone();
            candidates.spawn(async move {
                let mut election = Election::new(number.to_string());
                election.acquire(&db, Instant::now()).await.unwrap()
            });
        }
        let leases: Vec<_> = candidates.join_all().await.into_iter().flatten().collect();
        assert_eq!(leases.len(), 1, "{place:?}");
        assert_eq!(leases[0].generation(), 1, "{place:?}");
    }
}

#[tokio::test]
async fn a_sealer_that_was_paused_commits_nothing_after_another_took_over() {
    for (place, db) in migrated().await {
        let (log, paused) = started(&db).await;
        let log = seal(&db, &paused, &log, 10).await.unwrap().unwrap();
        // It has read the log. Meanwhile another one waits for the lease to end, and seals.
        let mut election = Election::new("next");
        let now = Instant::now();
        assert!(election.acquire(&db, now).await.unwrap().is_none());
        let next = election.acquire(&db, now + LEASE).await.unwrap().unwrap();
        assert_eq!(
            seal(&db, &paused, &log, 20).await.unwrap(),
            None,
            "{place:?}: before"
        );
        let sealed = seal(&db, &next, &log, 5).await.unwrap().unwrap();
        assert_eq!(
            seal(&db, &paused, &log, 20).await.unwrap(),
            None,
            "{place:?}: after"
        );
        // Nor does a sealer whose lease is in force, from a head that is out of date.
        assert_eq!(seal(&db, &next, &log, 20).await.unwrap(), None, "{place:?}");
        let moved = Log {
            position: "elsewhere".to_owned(),
            ..sealed.clone()
        };
        assert_eq!(seal(&db, &next, &moved, 20).await.unwrap(), None, "{place:?}");
        assert_eq!(current(db.read()).await.unwrap(), Some(sealed), "{place:?}");
        assert_eq!(root(db.read(), 1, 15).await.unwrap(), head(15).root, "{place:?}");
        assert_eq!(count(&db, "audit_checkpoints").await, 2, "{place:?}");
    }
}

/// One has written its head, and not committed yet.
#[tokio::test]
async fn a_lease_does_not_pass_on_under_a_commit() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let mut election = Election::new("next");
        let now = Instant::now();
        assert!(election.acquire(&db, now).await.unwrap().is_none());
        let tx = db.write().await.unwrap();
        let sealed = sealing(&tx, &lease, &log, 10).await.unwrap().unwrap();
        let takes = election.acquire(&db, now + LEASE);
        let commits = async {
            tokio::task::yield_now().await;
            tx.commit().await.unwrap();
        };
        // It waits for the row, and then finds that it was renewed; or reads it afterwards, which is the same.
        let (taken, ()) = tokio::join!(takes, commits);
        assert!(taken.unwrap().is_none(), "{place:?}");
        assert_eq!(
            current(db.read()).await.unwrap(),
            Some(sealed.clone()),
            "{place:?}"
        );
        assert!(
            seal(&db, &lease, &sealed, 1).await.unwrap().is_some(),
            "{place:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_sealers_make_one_chain_of_heads() {
    for (place, db) in migrated().await {
        let (log, _) = started(&db).await;
        let mut sealers = tokio::task::JoinSet::new();
        for sealer in 0..4 {
            let (db, log) = (db.clone(), log.clone());
            sealers.spawn(async move {
                let (mut election, mut now) = (Election::new(sealer.to_string()), Instant::now());
                let mut committed = 0;
                for step in 0..20 {
                    // Takes the lease from the others all the time, and may go on with an older one.
                    now += LEASE;
                    let Ok(Some(lease)) = election.acquire(&db, now).await else {
                        continue;
                    };
                    let log = match current(db.read()).await {
                        Ok(Some(log)) => log,
                        _ => log.clone(),
                    };
                    tokio::task::yield_now().await;
                    match seal(&db, &lease, &log, 1 + (step + sealer) % 7).await {
                        Ok(sealed) => committed += i64::from(sealed.is_some()),
                        Err(error) => assert!(error.is_temporary(), "{error}"),
                    }
                }
                committed
            });
        }
        let committed: i64 = sealers.join_all().await.into_iter().sum();
        assert!(committed > 0, "{place:?}");
        assert_eq!(count(&db, "audit_checkpoints").await, committed, "{place:?}");
        let log = current(db.read()).await.unwrap().unwrap();
        assert_eq!(log.head, head(log.head.size), "{place:?}");
        assert_eq!(
            sign_heads(&db, &log, &key(1), &signer()).await.unwrap(),
            committed as u64,
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn what_was_committed_and_not_signed_is_signed_by_the_next_sealer() {
    for (place, db) in migrated().await {
        let (log, killed) = started(&db).await;
        let log = seal(&db, &killed, &log, 10).await.unwrap().unwrap();
        let log = seal(&db, &killed, &log, 300).await.unwrap().unwrap();
        assert_eq!(
            latest(db.read(), 1).await.unwrap(),
            None,
            "{place:?}: nothing is signed"
        );
        let read = current(db.read()).await.unwrap().unwrap();
        assert_eq!(read, log, "{place:?}");
        assert_eq!(
            sign_heads(&db, &read, &key(1), &signer()).await.unwrap(),
            2,
            "{place:?}"
        );
        assert_eq!(
            sign_heads(&db, &read, &key(1), &signer()).await.unwrap(),
            0,
            "{place:?}"
        );
        let signed = latest(db.read(), 1).await.unwrap().unwrap();
        assert_eq!(signed.head, log.head, "{place:?}");
        assert_eq!(signed.checkpoint, signer().sign(log.head), "{place:?}");
        let opened = Checkpoint::open(&signed.checkpoint, signer().verifier_key()).unwrap();
        assert_eq!((opened.origin, opened.head), (origin(1), head(310)), "{place:?}");
        let older = signed_head(db.read(), 1, Some(10)).await.unwrap().unwrap();
        assert_eq!((older.head, older.sealed_at), (head(10), TEST_START), "{place:?}");
        assert_eq!(
            signed_head(db.read(), 1, Some(11)).await.unwrap(),
            None,
            "{place:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_signers_store_the_same_checkpoints() {
    for (place, db) in migrated().await {
        let (mut log, lease) = started(&db).await;
        for count in 1..=10 {
            log = seal(&db, &lease, &log, count).await.unwrap().unwrap();
        }
        let mut signers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let (db, log) = (db.clone(), log.clone());
            signers.spawn(async move { sign_heads(&db, &log, &key(1), &signer()).await.unwrap() });
        }
        signers.join_all().await;
        let mut size = 0;
        for count in 1..=10 {
            size += count;
            let signed = signed_head(db.read(), 1, Some(size)).await.unwrap().unwrap();
            assert_eq!(signed.checkpoint, signer().sign(head(size)), "{place:?}");
        }
    }
}

#[tokio::test]
async fn a_new_log_ends_the_lease_and_keeps_the_older_one() {
    for (place, db) in migrated().await {
        let (first, lease) = started(&db).await;
        let first = seal(&db, &lease, &first, 300).await.unwrap().unwrap();
        sign_heads(&db, &first, &key(1), &signer()).await.unwrap();
        let tx = db.write().await.unwrap();
        let second = start(&tx, &origin(2), &key(2), "300", TEST_START).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!((second.log_id, second.key_version), (2, 2), "{place:?}");
        assert_eq!(
            current(db.read()).await.unwrap(),
            Some(second.clone()),
            "{place:?}"
        );
        assert_eq!(
            seal(&db, &lease, &first, 1).await.unwrap(),
            None,
            "{place:?}: the older log"
        );
        assert_eq!(
            seal(&db, &lease, &second, 1).await.unwrap(),
            None,
            "{place:?}: the older lease"
        );
        let lease = acquired(&db).await;
        let second = seal(&db, &lease, &second, 300).await.unwrap().unwrap();
        assert_eq!(second.head, head(300), "{place:?}");
        assert!(
            inclusion_proof(db.read(), 1, 7, first.head)
                .await
                .unwrap()
                .is_some(),
            "{place:?}"
        );
        assert_eq!(
            find(db.read(), &origin(1)).await.unwrap(),
            Some(first),
            "{place:?}"
        );
        assert!(latest(db.read(), 1).await.unwrap().is_some(), "{place:?}");
        assert_eq!(latest(db.read(), 2).await.unwrap(), None, "{place:?}");
        let tx = db.write().await.unwrap();
        let again = start(&tx, &origin(2), &key(2), "", TEST_START).await;
        assert!(matches!(again, Err(StoreError::Conflict)), "{place:?}");
    }
}

#[tokio::test]
async fn the_signing_key_stays_the_same_for_the_life_of_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let master = FileMasterKey::create(&directory.path().join("key"), &SeededRandom::new(1)).unwrap();
    let (master, clock) = (master.into(), test_clock());
    let purposes = [KEYRING_PURPOSE];
    for (place, db) in migrated().await {
        let (log, _) = started(&db).await;
        let open = async || {
            keyring::open(&db, &master, &purposes, &*clock, &SystemRandom)
                .await
                .unwrap()
        };
        let key = log.signer(&open().await).unwrap().verifier_key().clone();
        assert_eq!(key.origin(), &origin(1), "{place:?}");
        keyring::add_version(&db, &master, KEYRING_PURPOSE, &*clock, &SystemRandom)
            .await
            .unwrap();
        clock.advance(keyring::DISTRIBUTION);
        let rotated = open().await;
        assert_eq!(*log.signer(&rotated).unwrap().verifier_key(), key, "{place:?}");
        let next = Log {
            key_version: 2,
            ..log.clone()
        };
        let next = next.signer(&rotated).unwrap();
        assert_eq!(
            Checkpoint::open(&next.sign(log.head), &key),
            Err(ProofError::NotSigned),
            "{place:?}"
        );
        let unknown = Log {
            key_version: 3,
            ..log
        };
        assert!(
            matches!(unknown.signer(&rotated), Err(KeyError::UnknownVersion { .. })),
            "{place:?}"
        );
    }
}
