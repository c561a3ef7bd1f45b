#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;

use futures_util::FutureExt;
use sea_orm::ConnectionTrait;
use tokio::task::JoinSet;

use super::*;
use crate::{
    page::PageRequest,
    random::SystemRandom,
    store::{
        audit::{Actor, ActorKind, Event, Filter, Origin, list},
        fixture::migrated,
    },
    testing::test_clock,
};

fn record(subject: usize) -> Record {
    let origin = Origin {
        actor: Actor {
            kind: ActorKind::System,
            id: "test".into(),
        },
        request_id: "req-1".into(),
    };
    let event = Event::new("test.event").subject(subject.to_string());
    Record::new(&*test_clock(), &SystemRandom, &origin, event).unwrap()
}

async fn subjects(db: &Database) -> Vec<String> {
    let mut subjects = Vec::new();
    let mut token = String::new();
    loop {
        let page = PageRequest::parse("audit", &[], 500, &token).unwrap();
        let page = list(db.read(), &Filter::default(), &page).await.unwrap();
        subjects.extend(page.items.into_iter().filter_map(|event| event.subject));
        token = page.next_page_token;
        if token.is_empty() {
            return subjects;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_is_told_that_it_is_written_finds_it_written_once() {
    for (place, db) in migrated().await {
        let writer = GroupWriter::start(db.clone());
        let mut callers = JoinSet::new();
        for subject in 0..1500 {
            let writer = writer.clone();
            callers.spawn(async move { writer.record(record(subject)).await.unwrap() });
        }
        callers.join_all().await;
        let subjects = subjects(&db).await;
        assert_eq!(subjects.len(), 1500, "{place:?}");
        let distinct: HashSet<_> = subjects.into_iter().collect();
        assert_eq!(distinct.len(), 1500, "{place:?}");
    }
}

#[tokio::test]
async fn one_event_that_is_refused_takes_no_other_along() {
    for (place, db) in migrated().await {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let writer = GroupWriter { queue };
        let known = record(0);
        insert_group(&db, vec![known.clone()]).await.unwrap();
        // All three wait before anything writes.
        let three = async {
            tokio::join!(
                writer.record(record(1)),
                writer.record(known),
                writer.record(record(2))
            )
        };
        let mut three = Box::pin(three);
        assert!((&mut three).now_or_never().is_none());
        let writing = tokio::spawn(write(db.clone(), waiting));
        let told = three.await;
        assert!(
            matches!(told, (Ok(()), Err(StoreError::Conflict), Ok(()))),
            "{place:?} {told:?}"
        );
        let mut subjects = subjects(&db).await;
        subjects.sort_unstable();
        assert_eq!(subjects, ["0", "1", "2"], "{place:?}");
        drop(writer);
        writing.await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_fails_writes_nothing_and_says_so_to_each() {
    for (place, db) in migrated().await {
        let writer = GroupWriter::start(db.clone());
        db.read()
            .execute_unprepared("DROP TABLE audit_events")
            .await
            .unwrap();
        let (one, other) = tokio::join!(writer.record(record(1)), writer.record(record(2)));
        assert!(one.is_err() && other.is_err(), "{place:?}");
        db.close().await.unwrap();
        assert!(writer.record(record(3)).await.is_err(), "{place:?}");
    }
}

#[tokio::test]
async fn a_hanging_database_makes_no_queue_without_bound_and_tells_everybody_in_time() {
    let (_database, db) = migrated().await.remove(0);
    assert_eq!(db.backend(), DatabaseBackend::Sqlite);
    let writer = GroupWriter::start(db.clone());
    // Whoever holds the one writer lets everybody else hang.
    let held = db.write().await.unwrap();
    let mut callers: Vec<_> = (0..=MOST_WAITING + MOST)
        .map(|subject| Box::pin(writer.record(record(subject))))
        .collect();
    let mut refused = 0;
    for caller in &mut callers {
        if let Some(told) = caller.now_or_never() {
            assert!(matches!(told, Err(StoreError::Unavailable)));
            refused += 1;
        }
    }
    assert!(refused > 0, "the queue has an end");
    callers.truncate(MOST_WAITING - 1);
    // Who gives up is not written, even if the database comes back.
    let gave_up = callers.split_off(1);
    drop(gave_up);
    held.rollback().await.unwrap();
    callers.remove(0).await.unwrap();
    let written = subjects(&db).await;
    assert!(written.contains(&"0".to_owned()));
    assert!(written.len() <= 1 + MOST, "{}", written.len());
}
