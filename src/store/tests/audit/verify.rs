#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend};

use super::{super::seal::tests::Sealed, *};
use crate::{
    clock::Clock,
    random::SystemRandom,
    store::{
        audit::{self, Event, EventProof, check_rows, delete_before, prove},
        fixture::{event_keys, migrated},
    },
    testing::{edited_rows::drop_inserts, test_clock},
};

async fn report(record: &Sealed, kept: &[Checkpoint]) -> Report {
    let conn = record.db.read();
    let logs = [(log::current(conn).await.unwrap().unwrap(), record.key())];
    let verified = verify_all(conn, &logs, kept, Some(&record.keyring), |_, _| {}).await;
    let mut verified = verified.unwrap();
    let mut report = verified.logs.pop().unwrap().report;
    report.fault = report.fault.or(verified.beside);
    report
}

/// Returns whether a verification without the keys of the service names something.
async fn is_named_without_keys(record: &Sealed, kept: &[Checkpoint]) -> bool {
    let db = record.place.connect().await;
    let logs = [(record.log.clone(), record.key())];
    let verified = verify_all(db.read(), &logs, kept, None, |_, _| {}).await.unwrap();
    let is_named = verified.faults().count() > 0 || !verified.unverified.is_empty();
    db.close().await;
    is_named
}

async fn checkpoint(record: &Sealed) -> Checkpoint {
    let signed = log::latest(record.db.read(), record.log.log_id)
        .await
        .unwrap()
        .unwrap();
    Checkpoint::open(&signed.checkpoint, &record.key()).unwrap()
}

/// Two events and two groups, sealed.
async fn half_written(record: &mut Sealed) {
    record.change("one").await;
    record.group(4).await;
    record.change("two").await;
    record.group(4).await;
    record.seal().await;
}

/// Three events and three groups, sealed in two steps, and one event that is not sealed.
async fn written(record: &mut Sealed) -> Checkpoint {
    half_written(record).await;
    let kept = checkpoint(record).await;
    record.change("three").await;
    record.group(4).await;
    record.seal().await;
    record.change("four").await;
    kept
}

#[tokio::test]
async fn a_record_that_nobody_has_edited_is_intact() {
    for mut record in Sealed::each().await {
        assert_eq!(report(&record, &[]).await.fault, None);
        let kept = written(&mut record).await;
        let report = report(&record, &[kept.clone(), kept, checkpoint(&record).await]).await;
        assert_eq!(
            (report.events, report.fault),
            (3 + 12 + 1, None),
            "{:?}",
            record.place
        );
        assert!(!is_named_without_keys(&record, &[]).await, "{:?}", record.place);
    }
}

/// What somebody can do who writes to the database and has no key.
#[tokio::test]
async fn every_edit_of_a_sealed_record_is_named() {
    for edit in [
        "UPDATE audit_events SET record = (SELECT record FROM audit_events WHERE number = 1) WHERE number = 2",
        "UPDATE audit_events SET action = 'nothing' WHERE number = 1",
        "UPDATE audit_events SET mac = (SELECT mac FROM audit_events WHERE number = 2) WHERE number = 1",
        "UPDATE audit_groups SET mac = root WHERE number = 2",
        "UPDATE audit_events SET tenant_id = 'other' WHERE number = 1",
        "UPDATE audit_events SET event_id = '00000000000000000000000000' WHERE number = 1",
        "DELETE FROM audit_events WHERE number = 1",
        "DELETE FROM audit_events WHERE number = 3",
        "DELETE FROM audit_events WHERE number = 4",
        "UPDATE audit_events SET mac = record WHERE number = 4",
        "INSERT INTO audit_events SELECT 0, 'x', action, outcome, actor_id, tenant_id, client_id, subject, record, key_version, mac FROM audit_events WHERE number = 1",
        "INSERT INTO audit_events SELECT 5, 'x', action, outcome, actor_id, tenant_id, client_id, subject, record, key_version, mac FROM audit_events WHERE number = 1",
        "UPDATE audit_groups SET size = 3 WHERE number = 2",
        "UPDATE audit_groups SET events = (SELECT events FROM audit_groups WHERE number = 1) WHERE number = 2",
        "UPDATE audit_groups SET events = (SELECT events FROM audit_groups WHERE number = 1), root = (SELECT root FROM audit_groups WHERE number = 1), first_event_id = (SELECT first_event_id FROM audit_groups WHERE number = 1), last_event_id = (SELECT last_event_id FROM audit_groups WHERE number = 1) WHERE number = 2",
        "DELETE FROM audit_groups WHERE number = 1",
        "DELETE FROM audit_groups WHERE number = 3",
        "INSERT INTO audit_groups SELECT writer, 0, size, first_event_id, last_event_id, root, events, key_version, mac FROM audit_groups WHERE number = 1",
        "INSERT INTO audit_groups SELECT writer, 4, size, first_event_id, last_event_id, root, events, key_version, mac FROM audit_groups WHERE number = 1",
        "INSERT INTO audit_groups SELECT 'stranger', 1, size, first_event_id, last_event_id, root, events, key_version, mac FROM audit_groups WHERE number = 1",
        "UPDATE audit_writers SET sealed = 9",
        "UPDATE audit_leaves SET number = 9 WHERE leaf_index = 1",
        "UPDATE audit_logs SET position = '4'",
        "INSERT INTO audit_logs SELECT 2, 'auth.example/token/2', key_version, 0, root, '4', started_at, mac FROM audit_logs",
        "DELETE FROM audit_leaves WHERE leaf_index = 0",
        "INSERT INTO audit_leaves VALUES (1, 6, '', 0)",
        "INSERT INTO audit_leaves VALUES (99, 0, '', -1)",
        "UPDATE audit_checkpoints SET checkpoint = (SELECT checkpoint FROM audit_checkpoints WHERE size = 4) WHERE size = 6",
        "DELETE FROM audit_leaves WHERE leaf_index = 3",
        "UPDATE audit_log_tiles SET hashes = (SELECT root FROM audit_groups WHERE number = 1)",
        "DELETE FROM audit_log_tiles",
        "UPDATE audit_checkpoints SET checkpoint = NULL",
        "UPDATE audit_checkpoints SET checkpoint = 'auth.example/token/x'",
        "DELETE FROM audit_checkpoints WHERE size > 5",
    ] {
        for mut record in Sealed::each().await {
            let kept = written(&mut record).await;
            let last = checkpoint(&record).await;
            record.edit(edit).await;
            let kept = [kept, last];
            let report = report(&record, &kept).await;
            assert!(report.fault.is_some(), "{:?}: {edit}", record.place);
            // What is not sealed has its MAC alone, and no leaf covers that of what is.
            let takes_keys = ["WHERE number = 4", "SELECT 5", "writer, 4", "SET mac"];
            let takes_keys = takes_keys.iter().any(|part| edit.contains(part));
            let is_named = is_named_without_keys(&record, &kept).await;
            assert_eq!(is_named, !takes_keys, "{:?}: {edit}", record.place);
        }
    }
}

/// SQLite keeps a text in a column of numbers.
#[tokio::test]
async fn an_edit_that_makes_a_row_unreadable_is_named() {
    for edit in [
        "UPDATE audit_leaves SET leaf_index = 'x' WHERE leaf_index = 2",
        "UPDATE audit_leaves SET leaf_index = 'x' WHERE leaf_index IN (SELECT max(leaf_index) FROM audit_leaves WHERE source <> '')",
        "UPDATE audit_leaves SET log_id = 'x' WHERE leaf_index = 2",
    ] {
        for mut record in Sealed::each().await {
            if record.db.backend() == DatabaseBackend::Sqlite {
                let kept = written(&mut record).await;
                record.edit(edit).await;
                assert!(report(&record, &[kept]).await.fault.is_some(), "{edit}");
            }
        }
    }
}

#[tokio::test]
async fn an_edit_of_what_is_not_sealed_yet_names_its_event() {
    for mut record in Sealed::each().await {
        record.change("one").await;
        record.seal().await;
        let two = record.change("two").await;
        record
            .edit("UPDATE audit_events SET actor_id = 'opr_other' WHERE action = 'two'")
            .await;
        let fault = report(&record, &[]).await.fault.unwrap();
        assert_eq!(fault.event_id, two.as_str(), "{:?}: {fault}", record.place);
        assert!(fault.what.contains("differs from the event"), "{fault}");
    }
}

#[tokio::test]
async fn events_after_a_head_that_was_removed_are_not_taken_as_verified() {
    for mut record in Sealed::each().await {
        written(&mut record).await;
        record.edit("DELETE FROM audit_checkpoints WHERE size > 4").await;
        let fault = report(&record, &[]).await.fault.unwrap();
        assert!(
            fault.what.contains("is not signed"),
            "{:?} {fault:?}",
            record.place
        );
    }
}

#[tokio::test]
async fn old_heads_are_deleted_but_the_newest() {
    for mut record in Sealed::each().await {
        let kept = written(&mut record).await;
        record.clock.advance(Duration::from_secs(60));
        let now = record.clock.now();
        assert_eq!(
            log::delete_heads_before(&record.db, now).await.unwrap(),
            1,
            "{:?}",
            record.place
        );
        assert_eq!(log::delete_heads_before(&record.db, now).await.unwrap(), 0);
        let last = checkpoint(&record).await;
        assert_eq!(
            report(&record, &[kept, last]).await.fault,
            None,
            "{:?}",
            record.place
        );
    }
}

#[tokio::test]
async fn the_event_that_was_changed_is_named() {
    for mut record in Sealed::each().await {
        let id = record.change("one").await;
        let ids = record.group(4).await;
        record.seal().await;
        record.edit("UPDATE audit_events SET outcome = 'refused'").await;
        assert_eq!(report(&record, &[]).await.fault.unwrap().event_id, id.as_str());
        record.edit("UPDATE audit_events SET outcome = 'success'").await;
        record.edit("UPDATE audit_groups SET size = 9").await;
        let newest = ids.iter().max().unwrap();
        assert_eq!(
            report(&record, &[]).await.fault.unwrap().event_id,
            newest.as_str()
        );
    }
}

#[tokio::test]
async fn a_sealed_row_whose_mac_was_edited_is_named_while_its_key_is_there() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        let id = record.change("one").await;
        let ids = record.group(4).await;
        record.seal().await;
        let newest = ids.iter().max().unwrap();
        for (table, other, event_id) in [("audit_events", "record", &id), ("audit_groups", "root", newest)] {
            let set = async |what: &str| record.edit(&format!("UPDATE {table} SET {what}")).await;
            let copy = format!("CREATE TABLE {table}_before AS SELECT mac FROM {table}");
            record.db.read().execute_unprepared(&copy).await.unwrap();
            set(&format!("mac = {other}")).await;
            let found = report(&record, &[]).await;
            let fault = found.fault.unwrap();
            assert_eq!(
                (fault.event_id.as_str(), &*fault.what),
                (event_id.as_str(), "its MAC is wrong"),
                "{place}"
            );
            assert_eq!(found.events, 5, "{place}");
            // Another key may have been lost since, and what was sealed does not need it.
            set("key_version = 9").await;
            assert_eq!(report(&record, &[]).await.fault, None, "{place}");
            set(&format!(
                "key_version = 1, mac = (SELECT mac FROM {table}_before)"
            ))
            .await;
            assert_eq!(report(&record, &[]).await.fault, None, "{place}");
        }
    }
}

/// Somebody with the database alone rolls it back, or signs another one with a key of their own.
#[tokio::test]
async fn a_checkpoint_that_was_kept_finds_a_cut_and_a_fork() {
    for (mut record, mut other) in Sealed::each().await.into_iter().zip(Sealed::each().await) {
        half_written(&mut record).await;
        let copy = "CREATE TABLE before AS SELECT size, position, root, mac FROM audit_logs";
        record.db.read().execute_unprepared(copy).await.unwrap();
        let copy = "CREATE TABLE counter_before AS SELECT mac FROM change_counter";
        record.db.read().execute_unprepared(copy).await.unwrap();
        record.change("three").await;
        record.group(4).await;
        record.seal().await;
        let last = checkpoint(&record).await;
        // A database as it was before.
        for edit in [
            "DELETE FROM audit_events WHERE number > 2",
            "DELETE FROM audit_groups WHERE number > 2",
            "DELETE FROM audit_leaves WHERE leaf_index > 3",
            "DELETE FROM audit_checkpoints WHERE size > 4",
            "UPDATE audit_writers SET sealed = 2",
            "UPDATE change_counter SET event_number = 2, mac = (SELECT mac FROM counter_before)",
            "UPDATE audit_logs SET size = 4, position = '2', root = (SELECT root FROM before), mac = (SELECT mac FROM before)",
        ] {
            record.edit(edit).await;
        }
        let hashes = record.log.head.size as usize * 32;
        assert_eq!(hashes, 6 * 32);
        let cut = match record.db.backend() {
            sea_orm::DatabaseBackend::Postgres => {
                "UPDATE audit_log_tiles SET hashes = substring(hashes FROM 1 FOR 128)"
            }
            _ => "UPDATE audit_log_tiles SET hashes = substr(hashes, 1, 128)",
        };
        record.edit(cut).await;
        assert_eq!(report(&record, &[]).await.fault, None, "{:?}", record.place);
        let fault = report(&record, std::slice::from_ref(&last)).await.fault.unwrap();
        assert!(fault.what.contains("shorter than the checkpoint"), "{fault:?}");

        // Another history under the same key, as after a database was put back.
        written(&mut other).await;
        let fork = Checkpoint {
            origin: other.log.origin.clone(),
            head: last.head,
        };
        let fault = report(&other, &[fork]).await.fault.unwrap();
        assert!(fault.what.contains("does not begin with"), "{fault:?}");
    }
}

#[tokio::test]
async fn retention_leaves_a_record_that_is_intact() {
    for mut record in Sealed::each().await {
        written(&mut record).await;
        let unsealed = record.change("unsealed").await;
        record.clock.advance(Duration::from_secs(100));
        let since = record.clock.now();
        let deleted = delete_before(&record.db, &*record.clock, &SystemRandom, since)
            .await
            .unwrap();
        assert_eq!(deleted.leaves, 6, "{:?}", record.place);
        // What is not sealed stays, whatever its age.
        assert!(matches!(
            prove_now(&mut record, &unsealed).await,
            EventProof::Sealed(_)
        ));
        let checked = report(&record, &[]).await;
        assert_eq!(
            (checked.removed_leaves, checked.fault),
            (6, None),
            "{:?}",
            record.place
        );
        // Retention deletes nothing that is not what was sealed, whatever its columns say.
        record
            .edit("UPDATE audit_events SET event_id = '00000000000000000000000000' WHERE number = 4")
            .await;
        let deleted = delete_before(&record.db, &*record.clock, &SystemRandom, since)
            .await
            .unwrap();
        assert_eq!(
            (deleted.leaves, deleted.stopped_at),
            (0, Some((1, 6))),
            "{:?}",
            record.place
        );
        // More is gone than the event says.
        record.edit("DELETE FROM audit_leaves WHERE leaf_index = 6").await;
        record.edit("DELETE FROM audit_events WHERE number = 4").await;
        assert!(report(&record, &[]).await.fault.is_some(), "{:?}", record.place);
    }
}

/// PostgreSQL lets two transactions read the same leaves.
#[tokio::test]
async fn replicas_that_delete_at_the_same_time_delete_each_leaf_once() {
    for mut record in Sealed::each().await {
        let tx = record.db.write().await.unwrap();
        for _ in 0..1_200 {
            let (event, origin) = (Event::test("one"), audit::Origin::system("test"));
            audit::record(&tx, &*record.clock, &SystemRandom, &origin, event).await;
        }
        tx.commit().await.unwrap();
        record.seal().await;
        record.clock.advance(Duration::from_secs(100));
        let other = record.place.connect().await;
        other.use_keys(event_keys());
        let (clock, since) = (&*record.clock, record.clock.now());
        let (one, two) = tokio::join!(
            delete_before(&record.db, clock, &SystemRandom, since),
            delete_before(&other, clock, &SystemRandom, since),
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.leaves + two.leaves, 1_200, "{:?}", record.place);
        assert_eq!(
            (one.stopped_at, two.stopped_at),
            (None, None),
            "{:?}",
            record.place
        );
        record.seal().await;
        let checked = report(&record, &[]).await;
        assert_eq!((checked.removed_leaves, checked.fault), (1_200, None));
    }
}

async fn prove_now(record: &mut Sealed, event_id: &crate::text::id::EventId) -> EventProof {
    record.seal().await;
    prove(record.db.read(), None, event_id).await.unwrap()
}

#[tokio::test]
async fn every_event_is_proven_with_the_public_key_alone() {
    for mut record in Sealed::each().await {
        let mut ids = vec![record.change("one").await];
        ids.extend(record.group(5).await);
        ids.push(record.change("two").await);
        for id in &ids {
            let EventProof::Sealed(proven) = prove_now(&mut record, id).await else {
                panic!("{id} is not proven");
            };
            let proof = proven.file;
            let head = proof.verify(&record.key()).unwrap().head;
            assert_eq!(head.size, 3, "{:?}", record.place);
            let mut other = proof.clone();
            other.event[3] ^= 1;
            assert!(other.verify(&record.key()).is_err());
        }
        let unknown = crate::text::id::EventId::generate(&*record.clock, &SystemRandom);
        assert!(matches!(
            prove_now(&mut record, &unknown).await,
            EventProof::Unknown
        ));
    }
}

#[tokio::test]
async fn an_object_that_no_migration_creates_is_named() {
    for (place, db) in migrated().await {
        let check = async || {
            let now = test_clock().now();
            check_rows(db.read(), &[], &Verified::default(), now)
                .await
                .unwrap()
        };
        assert_eq!(check().await.faults, [], "{place:?}");
        drop_inserts(&db, "changes").await;
        let faults = check().await.faults;
        assert_eq!(faults.len(), 1, "{place:?}: {faults:?}");
        assert!(faults[0].what.contains(" dropped"), "{place:?}: {faults:?}");
    }
}
