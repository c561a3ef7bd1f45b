#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::*;
use crate::{
    random::SeededRandom,
    store::{
        audit::{self, ActorKind, Filter},
        fixture::migrated,
    },
    testing::{
        TEST_START,
        edited_rows::{drop_inserts, replace},
        test_random,
    },
    text::page::PageRequest,
};

fn change(id: &str) -> Change {
    Change {
        kind: "client",
        id: id.to_owned(),
        tenant_id: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_are_the_order_of_commits_without_gaps() {
    const WRITERS: usize = 16;
    const ROUNDS: usize = 5;

    for (place, db) in migrated().await {
        // A reader that follows the feed while it grows has all changes up to its position.
        let following = {
            let db = db.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while seen.len() < WRITERS * ROUNDS * 2 {
                    let after = seen.last().copied().unwrap_or(0);
                    let position = position(db.read()).await.unwrap().seq;
                    let rows = list_after(db.read(), after, 1_000).await.unwrap();
                    seen.extend(rows.iter().map(|row| row.seq));
                    assert!(seen.last().copied().unwrap_or(0) >= position);
                    tokio::task::yield_now().await;
                }
                seen
            })
        };
        let committed = Arc::new(Mutex::new(Vec::new()));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (db, committed) = (db.clone(), Arc::clone(&committed));
            writers.spawn(async move {
                for round in 0..ROUNDS {
                    let tx = db.write().await.unwrap();
                    let changes = [change(&format!("{writer}-{round}")), change("second")];
                    let last = publish(&tx, &changes, TEST_START).await.unwrap();
                    // Recorded under the lock, so that the list is in the order of the commits.
                    committed.lock().unwrap().push(last);
                    tx.commit().await.unwrap();
                }
            });
        }
        writers.join_all().await;

        let committed = committed.lock().unwrap().clone();
        let expected: Vec<i64> = (1..=(WRITERS * ROUNDS) as i64).map(|n| n * 2).collect();
        assert_eq!(committed, expected, "{place:?}");
        let all: Vec<i64> = (1..=(WRITERS * ROUNDS * 2) as i64).collect();
        assert_eq!(following.await.unwrap(), all, "{place:?}");
        assert_eq!(position(db.read()).await.unwrap().seq, all.len() as i64);
    }
}

#[tokio::test]
async fn changes_round_trip() {
    for (place, db) in migrated().await {
        let tenant = TenantId::parse("acme").unwrap();
        let changes = [
            Change {
                kind: "user",
                id: "usr_1".to_owned(),
                tenant_id: Some(tenant.clone()),
            },
            change("cli_1"),
            change("cli_2"),
        ];
        let tx = db.write().await.unwrap();
        assert_eq!(publish(&tx, &changes, TEST_START).await.unwrap(), 3);
        tx.commit().await.unwrap();

        let rows = list_after(db.read(), 0, 2).await.unwrap();
        assert_eq!(
            rows[0],
            ChangeRow {
                seq: 1,
                kind: "user".to_owned(),
                id: "usr_1".to_owned(),
                tenant_id: Some(tenant),
                changed_at: TEST_START,
            },
            "{place:?}"
        );
        assert_eq!(rows.len(), 2);
        let rest = list_after(db.read(), 2, 2).await.unwrap();
        assert_eq!(
            rest.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(),
            ["cli_2"]
        );
    }
}

#[tokio::test]
async fn a_rolled_back_change_takes_no_number() {
    for (place, db) in migrated().await {
        let tx = db.write().await.unwrap();
        publish(&tx, &[change("a"), change("b")], TEST_START)
            .await
            .unwrap();
        tx.rollback().await.unwrap();
        let tx = db.write().await.unwrap();
        assert_eq!(publish(&tx, &[], TEST_START).await.unwrap(), 0, "{place:?}");
        assert_eq!(
            publish(&tx, &[change("c")], TEST_START).await.unwrap(),
            1,
            "{place:?}"
        );
        tx.commit().await.unwrap();
        assert_eq!(list_after(db.read(), 0, 10).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn more_changes_than_fit_one_insert() {
    for (place, db) in migrated().await {
        let changes: Vec<_> = (0..ROWS_PER_INSERT + 1).map(|n| change(&n.to_string())).collect();
        let tx = db.write().await.unwrap();
        let last = publish(&tx, &changes, TEST_START).await.unwrap();
        tx.commit().await.unwrap();
        let rows = list_after(db.read(), 0, u64::MAX >> 1).await.unwrap();
        assert_eq!(rows.len() as i64, last, "{place:?}");
        assert!(rows.iter().all(|row| row.id == (row.seq - 1).to_string()));
    }
}

#[tokio::test]
async fn seq_before_returns_the_last_position_before_a_time() {
    for (place, db) in migrated().await {
        assert_eq!(seq_before(db.read(), TEST_START).await.unwrap(), 0, "{place:?}");
        for minutes in [0, 10, 20] {
            let tx = db.write().await.unwrap();
            let at = TEST_START.plus(std::time::Duration::from_secs(60 * minutes));
            publish(&tx, &[change("a")], at).await.unwrap();
            tx.commit().await.unwrap();
        }
        for (minutes, expected) in [(0, 0), (1, 1), (10, 1), (15, 2), (20, 2), (21, 3)] {
            let since = TEST_START.plus(std::time::Duration::from_secs(60 * minutes));
            let seq = seq_before(db.read(), since).await.unwrap();
            assert_eq!(seq, expected, "{place:?} {minutes}");
        }
    }
}

#[tokio::test]
async fn a_reader_behind_the_oldest_change_must_start_again() {
    for (place, db) in migrated().await {
        for minutes in 0..10 {
            let tx = db.write().await.unwrap();
            let at = TEST_START.plus(std::time::Duration::from_secs(60 * minutes));
            publish(&tx, &[change("a")], at).await.unwrap();
            tx.commit().await.unwrap();
        }
        let now = position(db.read()).await.unwrap();
        let read_after = async |seq| {
            let after = Position { seq, ..now.clone() };
            read(db.read(), None, Some(&after), 100).await.unwrap()
        };
        // Keeps the change of minute 4, so that the last change before a time after it is known.
        let since = TEST_START.plus(std::time::Duration::from_secs(60 * 5));
        assert_eq!(delete_before(&db, since).await.unwrap(), 4, "{place:?}");
        assert_eq!(seq_before(db.read(), since).await.unwrap(), 5);
        for seq in 0..=3 {
            let page = read_after(seq).await;
            assert!(page.reset && page.changes.is_empty(), "{place:?} {seq}");
            assert_eq!(page.position, now);
        }
        for seq in 4..=10 {
            let page = read_after(seq).await;
            assert!(!page.reset, "{place:?} {seq}");
            assert_eq!(page.changes.len() as i64, 10 - seq);
        }
        // However old the last change is, it stays.
        let late = TEST_START.plus(std::time::Duration::from_secs(1_000_000));
        delete_before(&db, late).await.unwrap();
        let page = read_after(9).await;
        assert_eq!((page.reset, page.changes.len()), (false, 1), "{place:?}");
        assert!(!read_after(10).await.reset);
    }
}

#[tokio::test]
async fn the_epoch_stays_until_a_new_one_is_started() {
    for (place, db) in migrated().await {
        let first = position(db.read()).await.unwrap();
        let other = SeededRandom::new(99);
        ensure(&db, &other).await.unwrap();
        assert_eq!(position(db.read()).await.unwrap(), first, "{place:?}");

        let tx = db.write().await.unwrap();
        publish(&tx, &[change("a")], TEST_START).await.unwrap();
        let next = start_epoch(&tx, &other).await.unwrap();
        tx.commit().await.unwrap();
        assert_ne!(next.epoch, first.epoch);
        assert_eq!(next.seq, 1);
        assert_eq!(position(db.read()).await.unwrap(), next, "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_replicas_agree_on_an_epoch() {
    for (place, db) in migrated().await {
        counter::Entity::delete_many().exec(db.read()).await.unwrap();
        let mut replicas = JoinSet::new();
        for seed in 0..8 {
            let db = db.clone();
            replicas.spawn(async move {
                ensure(&db, &SeededRandom::new(seed)).await.unwrap();
                position(db.read()).await.unwrap()
            });
        }
        let mut positions = replicas.join_all().await;
        positions.dedup();
        assert_eq!(positions.len(), 1, "{place:?}");
    }
}

#[tokio::test]
async fn a_missing_counter_is_an_error() {
    for (place, db) in migrated().await {
        counter::Entity::delete_many().exec(db.read()).await.unwrap();
        let tx = db.write().await.unwrap();
        let error = publish(&tx, &[change("a")], TEST_START).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(_)), "{place:?}");
        assert!(start_epoch(&tx, &*test_random()).await.is_err());
        tx.rollback().await.unwrap();
        assert!(matches!(position(db.read()).await, Err(StoreError::Corrupt(_))));
    }
}

#[tokio::test]
async fn an_edited_counter_is_rejected() {
    for (place, db) in migrated().await {
        let tx = db.write().await.unwrap();
        publish(&tx, &[change("a"), change("b")], TEST_START)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        for edit in ["epoch = 'other'", "seq = 1", "event_number = 5", "mac = ''"] {
            let tx = db.write().await.unwrap();
            let edit = format!("UPDATE change_counter SET {edit}");
            tx.execute_unprepared(&edit).await.unwrap();
            let read = position(&tx).await;
            assert!(
                matches!(read, Err(StoreError::Altered("change_counter"))),
                "{place:?}: {edit}"
            );
            let published = publish(&tx, &[change("c")], TEST_START).await;
            assert!(
                matches!(published, Err(StoreError::Altered("change_counter"))),
                "{place:?}: {edit}"
            );
            tx.rollback().await.unwrap();
        }
        assert_eq!(position(db.read()).await.unwrap().seq, 2, "{place:?}");
    }
}

#[tokio::test]
async fn readers_start_again_after_an_edited_or_a_removed_change() {
    for (place, db) in migrated().await {
        let start = position(db.read()).await.unwrap();
        let tx = db.write().await.unwrap();
        let changes = ["a", "b", "c", "d"].map(change);
        publish(&tx, &changes, TEST_START).await.unwrap();
        tx.commit().await.unwrap();
        let second = Position {
            seq: 2,
            ..start.clone()
        };
        let whole = read(db.read(), None, Some(&start), 10).await.unwrap();
        assert_eq!((whole.changes.len(), whole.reset), (4, false), "{place:?}");
        for edit in [
            "UPDATE changes SET id = 'other' WHERE seq = 2",
            "UPDATE changes SET kind = 'other' WHERE seq = 2",
            "UPDATE changes SET tenant_id = 'acme' WHERE seq = 2",
            "UPDATE changes SET changed_at = changed_at + 1 WHERE seq = 2",
            "UPDATE changes SET mac = (SELECT mac FROM changes WHERE seq = 1) WHERE seq = 2",
            "DELETE FROM changes WHERE seq = 2",
        ] {
            let before = entry::Entity::find_by_id(2).one(db.read()).await.unwrap();
            db.read().execute_unprepared(edit).await.unwrap();
            let page = read(db.read(), None, Some(&start), 10).await.unwrap();
            assert_eq!((page.changes.len(), page.reset), (0, true), "{place:?}: {edit}");
            // What comes after it is whole, and so is the page before it.
            let page = read(db.read(), None, Some(&second), 10).await.unwrap();
            assert_eq!((page.changes.len(), page.reset), (2, false), "{place:?}: {edit}");
            entry::Entity::delete_by_id(2).exec(db.read()).await.unwrap();
            let row = before.unwrap().into_active_model().reset_all();
            entry::Entity::insert(row)
                .exec_without_returning(db.read())
                .await
                .unwrap();
        }
        // The last one.
        let edit = "DELETE FROM changes WHERE seq = 4";
        db.read().execute_unprepared(edit).await.unwrap();
        for after in [&start, &second] {
            let page = read(db.read(), None, Some(after), 10).await.unwrap();
            assert_eq!((page.changes.len(), page.reset), (0, true), "{place:?}");
        }
        let page = read(db.read(), None, Some(&start), 2).await.unwrap();
        assert_eq!(
            (page.changes.len(), page.reset, page.more),
            (2, false, true),
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn the_last_position_before_a_time_does_not_rest_on_an_edited_change() {
    for (place, db) in migrated().await {
        let tx = db.write().await.unwrap();
        publish(&tx, &[change("a"), change("b")], TEST_START)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let later = TEST_START.plus(Duration::from_secs(1));
        assert_eq!(seq_before(db.read(), later).await.unwrap(), 2, "{place:?}");
        let edit = "UPDATE changes SET changed_at = 0 WHERE seq = 2";
        db.read().execute_unprepared(edit).await.unwrap();
        assert_eq!(seq_before(db.read(), later).await.unwrap(), 0, "{place:?}");
    }
}

#[tokio::test]
async fn a_change_that_is_not_written_is_not_published() {
    for (place, db) in migrated().await {
        drop_inserts(&db, "changes").await;
        let tx = db.write().await.unwrap();
        let published = publish(&tx, &[change("a")], TEST_START).await;
        assert!(
            matches!(published, Err(StoreError::Altered("changes"))),
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn a_forged_change_at_the_next_number_is_replaced() {
    for (place, db) in migrated().await {
        let publish_one = async |id| {
            let tx = db.write().await.unwrap();
            let last = publish(&tx, &[change(id)], TEST_START).await?;
            tx.commit().await.unwrap();
            Ok::<_, StoreError>(last)
        };
        publish_one("a").await.unwrap();
        let old = counter::Entity::find().one(db.read()).await.unwrap().unwrap();
        let forge = "INSERT INTO changes (seq, kind, id, changed_at, mac)
            SELECT seq + 1, kind, 'x', changed_at, mac FROM changes";
        db.read().execute_unprepared(forge).await.unwrap();
        assert_eq!(publish_one("b").await.unwrap(), 2, "{place:?}");
        let changes = list_after(db.read(), 0, 10).await.unwrap();
        let ids: Vec<_> = changes.iter().map(|change| change.id.as_str()).collect();
        assert_eq!(ids, ["a", "b"], "{place:?}");
        // Nothing else was recorded, so that the removal has an event of its own.
        let page = PageRequest::first(500);
        let events = audit::list(db.read(), &Filter::default(), &page).await.unwrap();
        let (events, _) = events.into_parts();
        let [repair] = &events[..] else {
            panic!("{place:?} {events:?}")
        };
        assert_eq!(
            (repair.action.as_str(), repair.actor.kind, repair.occurred_at),
            ("changes.repair", ActorKind::System, TEST_START),
            "{place:?}"
        );
        assert_eq!(repair.detail["altered"], "changes", "{place:?}");
        // What a holder of the keys has written is never replaced: it is the counter that was put back.
        let new = counter::Entity::find().one(db.read()).await.unwrap().unwrap();
        replace::<counter::Entity>(&db, &new, &old).await;
        let published = publish_one("c").await;
        assert!(
            matches!(published, Err(StoreError::Altered("change_counter"))),
            "{place:?}"
        );
    }
}
