#![allow(clippy::unwrap_used)]

use std::{collections::HashSet, sync::Arc};

use futures_util::FutureExt;
use sea_orm::{ConnectionTrait, DatabaseBackend};
use tokio::task::JoinSet;

use super::*;
use crate::{
    random::SystemRandom,
    store::{
        audit::{Actor, ActorKind, Event, Filter, Origin, list},
        batch::group_commit::GroupCommit,
        fixture::migrated,
    },
    testing::{edited_rows::drop_inserts, test_clock},
    text::page::PageRequest,
};

fn record(subject: usize) -> Record {
    let origin = Origin {
        certificate: None,
        session: None,
        address: None,
        actor: Actor {
            kind: ActorKind::System,
            id: "test".into(),
        },
        request_id: "req-1".into(),
    };
    let event = Event::test("test.event").subject(subject.to_string());
    Record::new(&*test_clock(), &SystemRandom, origin, event)
}

fn recording(db: &Database) -> RecordEvents {
    RecordEvents {
        db: db.clone(),
        writer: GroupWriter::new(test_clock(), Arc::new(SystemRandom)),
    }
}

async fn subjects(db: &Database) -> Vec<String> {
    let mut subjects = Vec::new();
    let mut token = String::new();
    loop {
        let page = PageRequest::test(500, &token);
        let page = list(db.read(), &Filter::default(), &page).await.unwrap();
        let events;
        (events, token) = page.into_parts();
        subjects.extend(events.into_iter().filter_map(|event| event.subject));
        if token.is_empty() {
            return subjects;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_event_is_written_once() {
    for (place, db) in migrated().await {
        let events = GroupCommit::start(recording(&db));
        let mut callers = JoinSet::new();
        for subject in 0..1500 {
            let events = events.clone();
            callers.spawn(async move { events.submit(record(subject)).await.unwrap() });
        }
        callers.join_all().await;
        let subjects = subjects(&db).await;
        assert_eq!(subjects.len(), 1500, "{place:?}");
        let distinct: HashSet<_> = subjects.into_iter().collect();
        assert_eq!(distinct.len(), 1500, "{place:?}");
    }
}

#[tokio::test]
async fn after_a_failed_write_every_caller_gets_an_error() {
    for (place, db) in migrated().await {
        let events = GroupCommit::start(recording(&db));
        db.read()
            .execute_unprepared("DROP TABLE audit_groups")
            .await
            .unwrap();
        let (one, other) = tokio::join!(events.submit(record(1)), events.submit(record(2)));
        assert!(one.is_err() && other.is_err(), "{place:?}");
        db.close().await;
        assert!(events.submit(record(3)).await.is_err(), "{place:?}");
    }
}

#[tokio::test]
async fn callers_that_wait_for_a_hanging_database_succeed_when_it_returns() {
    let (_database, db) = migrated().await.remove(0);
    assert_eq!(db.backend(), DatabaseBackend::Sqlite);
    let events = GroupCommit::start(recording(&db));
    // A transaction that holds the only writer blocks all others.
    let held = db.write().await.unwrap();
    let release = async {
        tokio::task::yield_now().await;
        assert_eq!(subjects(&db).await.len(), 0);
        held.rollback().await.unwrap();
    };
    let (written, ()) = tokio::join!(events.submit(record(0)), release);
    written.unwrap();
    assert_eq!(subjects(&db).await, ["0"]);
}

#[tokio::test]
async fn a_transaction_that_the_database_ended_does_not_affect_later_ones() {
    for (place, db) in migrated().await {
        // As SQLite does when its disk is full: the driver does not know.
        let ended = db.write().await.unwrap();
        ended.execute_unprepared("ROLLBACK").await.unwrap();
        drop(ended);
        let dropped = db.write().await.unwrap();
        dropped
            .execute_unprepared("DELETE FROM audit_groups")
            .await
            .unwrap();
        drop(dropped);
        let recording = recording(&db);
        recording.run(&[record(0)]).await.unwrap();
        let many: Vec<_> = (1..=64 + 1).map(record).collect();
        recording.run(&many).await.unwrap();
        assert_eq!(subjects(&db).await.len(), 64 + 2, "{place:?}");
    }
}

#[tokio::test]
async fn a_group_that_is_dropped_midway_does_not_affect_later_ones() {
    for (place, db) in migrated().await {
        let recording = recording(&db);
        let many: Vec<_> = (1..=2 * 64).map(record).collect();
        let mut expected = 0;
        for polls in 0..30 {
            let mut run = Box::pin(recording.run(&many));
            let mut is_done = false;
            for _ in 0..polls {
                is_done = is_done || (&mut run).now_or_never().is_some();
                if is_done {
                    break;
                }
                // What the database's own thread does in between is up to it.
                subjects(&db).await;
            }
            drop(run);
            recording.run(&[record(polls)]).await.unwrap();
            expected += 1;
            db.write().await.unwrap().rollback().await.unwrap();
            let written = subjects(&db).await.len() - expected;
            assert!([0, many.len()].contains(&written), "{place:?} {polls} {written}");
            if written > 0 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_group_that_is_not_written_lets_no_token_leave() {
    for (place, db) in migrated().await {
        let recording = recording(&db);
        recording.run(&[record(0)]).await.unwrap();
        drop_inserts(&db, "audit_groups").await;
        for _ in 0..2 {
            let written = recording.run(&[record(1)]).await;
            assert!(
                matches!(written, Err(StoreError::Altered("audit_groups"))),
                "{place:?}"
            );
        }
    }
}
