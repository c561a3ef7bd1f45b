#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

use super::*;
use crate::{
    keys::FileMasterKey,
    random::{SeededRandom, SystemRandom},
    store::{fixture::migrated, keyring},
    testing::{TEST_START, test_clock},
    tlog::{self, ProofError, event_leaf},
};

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
        let older = at_size(db.read(), 1, 10).await.unwrap().unwrap();
        assert_eq!((older.head, older.sealed_at), (head(10), TEST_START), "{place:?}");
        assert_eq!(at_size(db.read(), 1, 11).await.unwrap(), None, "{place:?}");
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
            let signed = at_size(db.read(), 1, size).await.unwrap().unwrap();
            assert_eq!(signed.checkpoint, signer().sign(head(size)), "{place:?}");
        }
    }
}

#[tokio::test]
async fn an_edited_log_is_neither_extended_nor_signed_nor_proven() {
    for (what, table, column, rows) in [
        (
            "the newest leaves",
            "audit_log_tiles",
            "hashes",
            "level = 0 AND tile = 2",
        ),
        ("the tile above", "audit_log_tiles", "hashes", "level = 1"),
        ("the root of the log", "audit_logs", "root", "log_id = 1"),
    ] {
        for (place, db) in migrated().await {
            let (log, lease) = started(&db).await;
            let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
            let zeros = match db.backend() {
                DatabaseBackend::Postgres => format!("decode(repeat('00', length({column})), 'hex')"),
                _ => format!("CAST(zeroblob(length({column})) AS BLOB)"),
            };
            let edit = format!("UPDATE {table} SET {column} = {zeros} WHERE {rows}");
            assert_eq!(execute(&db, &edit).await, 1, "{place:?} {what}");
            refused(&db, &lease, &log, what).await;
        }
    }
    for rows in ["level = 0 AND tile = 2", "level = 1"] {
        for (_place, db) in migrated().await {
            let (log, lease) = started(&db).await;
            let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
            let edit = format!("DELETE FROM audit_log_tiles WHERE {rows}");
            assert_eq!(execute(&db, &edit).await, 1, "{rows}");
            refused(&db, &lease, &log, rows).await;
        }
    }
}

/// Checks that nobody goes on with an edited log: neither who has read it before nor who reads it now.
async fn refused(db: &Database, lease: &Lease, log: &Log, what: &str) {
    let read = current(db.read()).await.unwrap().unwrap();
    let is_root_edited = read.head != log.head;
    let sealed = seal(db, lease, &read, 1).await;
    assert!(matches!(sealed, Err(StoreError::Corrupt(_))), "{what}");
    let sealed = seal(db, lease, log, 1).await;
    let is_refused = matches!(sealed, Err(StoreError::Corrupt(_)));
    assert!(
        is_refused || is_root_edited && matches!(sealed, Ok(None)),
        "{what}"
    );
    let head = read.head;
    let inclusion = inclusion_proof(db.read(), 1, 3, head).await;
    assert!(matches!(inclusion, Err(StoreError::Corrupt(_))), "{what}");
    let consistency = consistency_proof(db.read(), 1, 300, head).await;
    assert!(matches!(consistency, Err(StoreError::Corrupt(_))), "{what}");
    if !is_root_edited {
        let signed = sign_heads(db, log, &key(1), &signer()).await;
        assert!(matches!(signed, Err(StoreError::Corrupt(_))), "{what}");
        assert_eq!(latest(db.read(), 1).await.unwrap(), None, "{what}");
    }
}

#[tokio::test]
async fn an_edited_head_is_not_signed() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
        execute(&db, "UPDATE audit_checkpoints SET size = 599").await;
        let signed = sign_heads(&db, &log, &key(1), &signer()).await;
        assert!(matches!(signed, Err(StoreError::Corrupt(_))), "{place:?}");
        assert_eq!(latest(db.read(), 1).await.unwrap(), None, "{place:?}");
    }
}

/// Somebody who has no key commits a head with all that belongs to it, or moves the log.
#[tokio::test]
async fn what_no_holder_of_the_keys_has_committed_is_neither_signed_nor_extended() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 10).await.unwrap().unwrap();
        sign_heads(&db, &log, &key(1), &signer()).await.unwrap();
        let mut edge = tiles::Edge::read(db.read(), 1, 10).await.unwrap();
        edge.append(&leaves(10..11));
        let root = edge.root().0.to_vec();
        let tx = db.write().await.unwrap();
        edge.write(&tx, 1).await.unwrap();
        let row = head::ActiveModel {
            log_id: Set(1),
            size: Set(11),
            root: Set(root.clone()),
            checkpoint: Set(None),
            generation: Set(1),
            sealed_at: Set(0),
            mac: Set(vec![0; 32]),
        };
        head::Entity::insert(row)
            .exec_without_returning(&tx)
            .await
            .unwrap();
        row::Entity::update_many()
            .col_expr(row::Column::Size, Expr::value(11))
            .col_expr(row::Column::Root, Expr::value(root))
            .exec(&tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let read = current(db.read()).await.unwrap().unwrap();
        assert_eq!(read.head, head(11), "{place:?}: all but the MACs is right");
        assert!(
            matches!(read.check(&key(1)), Err(StoreError::Corrupt(_))),
            "{place:?}"
        );
        let sealed = seal(&db, &lease, &read, 1).await;
        assert!(matches!(sealed, Err(StoreError::Corrupt(_))), "{place:?}");
        let signed = sign_heads(&db, &read, &key(1), &signer()).await;
        assert!(matches!(signed, Err(StoreError::Corrupt(_))), "{place:?}");
        assert_eq!(
            latest(db.read(), 1).await.unwrap().unwrap().head,
            head(10),
            "{place:?}"
        );
    }
}

/// An old tile is read only for proofs of its own leaves.
#[tokio::test]
async fn an_edited_full_tile_fails_the_proofs_that_need_it() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 600).await.unwrap().unwrap();
        let edit = "UPDATE audit_log_tiles SET hashes = (SELECT hashes FROM audit_log_tiles WHERE level = 0 AND tile = 1) \
                    WHERE level = 0 AND tile = 0";
        assert_eq!(execute(&db, edit).await, 1, "{place:?}");
        for index in [0, 100, 255] {
            let proof = inclusion_proof(db.read(), 1, index, log.head).await;
            assert!(matches!(proof, Err(StoreError::Corrupt(_))), "{place:?} {index}");
        }
        assert!(
            inclusion_proof(db.read(), 1, 256, log.head)
                .await
                .unwrap()
                .is_some(),
            "{place:?}"
        );
        assert!(
            consistency_proof(db.read(), 1, 100, log.head).await.is_err(),
            "{place:?}"
        );
        assert!(
            consistency_proof(db.read(), 1, 512, log.head)
                .await
                .unwrap()
                .is_some(),
            "{place:?}"
        );
    }
}

/// Whoever rewrites the whole log, unsigned heads included, gets no signature that contradicts an older one.
#[tokio::test]
async fn a_rewritten_log_is_not_signed() {
    for (place, db) in migrated().await {
        let (log, lease) = started(&db).await;
        let log = seal(&db, &lease, &log, 10).await.unwrap().unwrap();
        sign_heads(&db, &log, &key(1), &signer()).await.unwrap();
        let signed = latest(db.read(), 1).await.unwrap().unwrap();
        execute(&db, "DELETE FROM audit_log_tiles").await;
        execute(&db, "UPDATE audit_logs SET size = 0").await;
        let empty = Log {
            head: TreeHead::EMPTY,
            ..log.clone()
        };
        let forged = leaves(100..120);
        let mut edge = tiles::Edge::read(db.read(), 1, 0).await.unwrap();
        edge.append(&forged);
        let tx = db.write().await.unwrap();
        let row = head::ActiveModel {
            log_id: Set(1),
            size: Set(20),
            root: Set(edge.root().0.to_vec()),
            checkpoint: Set(None),
            generation: Set(1),
            sealed_at: Set(0),
            // Even under a MAC of the keys.
            mac: Set(log
                .head_mac(
                    &key(1),
                    TreeHead {
                        size: 20,
                        root: edge.root(),
                    },
                )
                .to_vec()),
        };
        head::Entity::insert(row)
            .exec_without_returning(&tx)
            .await
            .unwrap();
        edge.write(&tx, 1).await.unwrap();
        tx.commit().await.unwrap();
        let result = sign_heads(&db, &empty, &key(1), &signer()).await;
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{place:?}");
        assert_eq!(latest(db.read(), 1).await.unwrap(), Some(signed), "{place:?}");
        // Another key's signature is no reason to go on either.
        let other = Signer::new(origin(1), &[8; 32]).unwrap();
        assert!(
            sign_heads(&db, &empty, &key(1), &other).await.is_err(),
            "{place:?}"
        );
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
