#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use sea_orm::QueryOrder;

use super::*;
use crate::{
    clock::{Clock, ManualClock},
    random::SystemRandom,
    store::{
        Database,
        audit::{Event, Origin},
        fixture::{event_keys, migrated},
    },
    testing::test_clock,
};

fn record(clock: &ManualClock) -> Record {
    Record::new(
        clock,
        &SystemRandom,
        Origin::system("test"),
        Event::test("test.event"),
    )
}

async fn rows(db: &Database) -> Vec<row::Model> {
    let rows = Entity::find()
        .order_by_asc(Column::Writer)
        .order_by_asc(Column::Number);
    rows.all(db.read()).await.unwrap()
}

#[tokio::test]
async fn numbers_of_a_writer_have_no_gaps() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let writer = GroupWriter::new(clock.clone(), Arc::new(SystemRandom));
        let append = async |is_committed: bool| {
            let tx = db.write().await.unwrap();
            let appended = writer.append(&tx, &[record(&clock)]).await.unwrap().unwrap();
            if is_committed {
                tx.commit().await.unwrap();
                appended.committed();
            } else {
                tx.rollback().await.unwrap();
            }
            clock.advance(Duration::from_secs(1));
        };
        append(true).await;
        append(true).await;
        append(false).await;
        append(true).await;
        let rows = rows(&db).await;
        let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
        assert_eq!(numbers, [1, 2, 1], "{place:?}");
        assert_eq!(rows[0].writer, rows[1].writer, "{place:?}");
        assert_ne!(rows[1].writer, rows[2].writer, "{place:?}");
    }
}

#[tokio::test]
async fn a_group_holds_its_events_and_their_root() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let writer = GroupWriter::new(clock.clone(), Arc::new(SystemRandom));
        let records: Vec<_> = (0..300).map(|_| record(&clock)).collect();
        let tx = db.write().await.unwrap();
        assert!(writer.append(&tx, &[] as &[Record]).await.unwrap().is_none());
        let appended = writer.append(&tx, &records).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        appended.committed();
        let row = rows(&db).await.remove(0);
        let events = events(&row.events).unwrap();
        let encoded: Vec<_> = records.iter().map(encode).collect();
        assert_eq!(events, encoded, "{place:?}");
        assert_eq!(row.root, GroupTree::new(&encoded).head().root.0, "{place:?}");
        assert_eq!(row.size, 300, "{place:?}");
        let ids = || records.iter().map(|record| record.event_id.as_str());
        assert_eq!(Some(row.first_event_id.as_str()), ids().min(), "{place:?}");
        assert_eq!(Some(row.last_event_id.as_str()), ids().max(), "{place:?}");
    }
}

#[tokio::test]
async fn events_of_one_group_have_about_the_same_time() {
    let clock = test_clock();
    let writer = GroupWriter::new(clock.clone(), Arc::new(SystemRandom));
    let keys = event_keys();
    let old = record(&clock);
    clock.advance(Duration::from_millis(MAX_SPAN_MILLIS - 1));
    writer
        .group(Some(&keys), &[old.clone(), record(&clock)])
        .await
        .unwrap();
    clock.advance(Duration::from_millis(1));
    let result = writer.group(Some(&keys), &[old, record(&clock)]).await;
    assert!(matches!(result, Err(StoreError::Conflict)));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = events(&bytes);
    }
}

#[tokio::test]
async fn a_writer_gives_way_after_a_day_and_its_row_goes_with_its_groups() {
    for (place, db) in migrated().await {
        let clock = test_clock();
        let groups = GroupWriter::new(clock.clone(), Arc::new(SystemRandom));
        let append = async || {
            let tx = db.write().await.unwrap();
            let appended = groups.append(&tx, &[record(&clock)]).await.unwrap().unwrap();
            tx.commit().await.unwrap();
            appended.committed();
        };
        let rows = async || {
            let rows = writer::Entity::find().order_by_asc(writer::Column::Writer);
            let rows = rows.all(db.read()).await.unwrap();
            rows.into_iter().map(|row| row.writer).collect::<Vec<_>>()
        };
        append().await;
        clock.advance(WRITER_LIFETIME - Duration::from_secs(1));
        append().await;
        let first = rows().await;
        assert_eq!(first.len(), 1, "{place:?}");
        clock.advance(Duration::from_secs(1));
        append().await;
        let both = rows().await;
        assert_eq!((both.len(), &both[0]), (2, &first[0]), "{place:?}");

        // Its groups are still there.
        clock.advance(WRITER_LIFETIME * 30);
        assert_eq!(
            delete_ended_writers(&db, clock.now()).await.unwrap(),
            0,
            "{place:?}"
        );
        let of_first = Column::Writer.eq(first[0].as_str());
        Entity::delete_many()
            .filter(of_first)
            .exec(db.read())
            .await
            .unwrap();
        // Another replica may still take it for living.
        let early = clock.now().minus(WRITER_LIFETIME * 30);
        assert_eq!(delete_ended_writers(&db, early).await.unwrap(), 0, "{place:?}");
        assert_eq!(
            delete_ended_writers(&db, clock.now()).await.unwrap(),
            1,
            "{place:?}"
        );
        assert_eq!(rows().await, both[1..], "{place:?}");
    }
}
