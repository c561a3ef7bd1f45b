#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use super::*;
use crate::{
    clock::Clock,
    random::SystemRandom,
    store::audit::{delete_before, seal::tests::Sealed},
};

fn event(found: &Exported) -> &EventRow {
    let Exported::Event(event) = found else {
        panic!("{found:?}");
    };
    event
}

#[tokio::test]
async fn every_sealed_event_is_exported_once_and_from_any_position_on() {
    for mut record in Sealed::each().await {
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(record.change("a").await);
            record.seal().await;
            ids.extend(record.group(4).await);
            record.seal().await;
        }
        record.change("unsealed").await;
        let all = export(record.db.read(), None).await.unwrap();
        let exported: Vec<_> = all
            .iter()
            .map(|(_, found)| event(found).event_id.clone())
            .collect();
        assert_eq!(exported, ids, "{:?}", record.place);
        for (after, (position, _)) in all.iter().enumerate() {
            let rest = export(record.db.read(), Some(*position)).await.unwrap();
            assert_eq!(rest, all[after + 1..], "{:?} {position}", record.place);
        }
        // An event that was committed meanwhile comes later.
        let last = all.last().unwrap().0;
        record.seal().await;
        let rest = export(record.db.read(), Some(last)).await.unwrap();
        assert_eq!(rest.len(), 1, "{:?}", record.place);
        assert_eq!(event(&rest[0].1).action, "unsealed");
    }
}

/// A sealer may end between both: what it has committed is exported, so that its position is known.
#[tokio::test]
async fn an_export_goes_on_from_what_is_sealed_and_not_signed() {
    for mut record in Sealed::each().await {
        record.change("a").await;
        record.group(2).await;
        record.try_seal().await.unwrap();
        let (db, place) = (record.db.read(), record.place.label);
        let last = export(db, None).await.unwrap().last().unwrap().0;
        assert!(has_position(db, last).await.unwrap(), "{place}");
        assert!(export(db, Some(last)).await.unwrap().is_empty(), "{place}");
        let leaf_index = last.leaf_index + 1;
        assert!(
            !has_position(db, LogPosition { leaf_index, ..last })
                .await
                .unwrap()
        );
        let log_id = last.log_id + 1;
        assert!(!has_position(db, LogPosition { log_id, ..last }).await.unwrap());
    }
}

/// Leaves that retention removes while their rows are read are not the end.
#[tokio::test]
async fn an_export_that_retention_overtakes_reads_again() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("old").await;
        record.seal().await;
        let old = leaves(record.db.read(), None).await.unwrap();
        record.clock.advance(Duration::from_secs(100));
        record.change("kept").await;
        record.seal().await;
        let first = export(record.db.read(), None).await.unwrap()[0].0;
        let both = leaves(record.db.read(), None).await.unwrap();
        let since = record.clock.now();
        let deleted = delete_before(&record.db, &*record.clock, &SystemRandom, since).await;
        assert_eq!(deleted.unwrap().leaves, 1, "{place}");
        let db = record.db.read();
        assert_eq!(exported(db, old, None).await.unwrap(), None, "{place}");
        let rest = exported(db, both, Some(first)).await.unwrap();
        assert_eq!(rest.map(|rest| rest.len()), Some(1), "{place}");
        assert_eq!(
            exported(db, Vec::new(), None).await.unwrap(),
            Some(vec![]),
            "{place}"
        );
    }
}

#[tokio::test]
async fn an_export_goes_on_behind_what_retention_removes_and_behind_a_fault() {
    for mut record in Sealed::each().await {
        let place = record.place.label;
        record.change("old").await;
        record.group(2).await;
        record.change("old").await;
        record.seal().await;
        let first = export(record.db.read(), None).await.unwrap()[0].0;
        record.clock.advance(Duration::from_secs(100));
        record.change("kept").await;
        record.change("altered").await;
        record.change("last").await;
        record.seal().await;
        let since = record.clock.now();
        let deleted = delete_before(&record.db, &*record.clock, &SystemRandom, since)
            .await
            .unwrap();
        assert_eq!((deleted.leaves, deleted.stopped_at), (3, None), "{place}");
        record
            .edit("UPDATE audit_events SET record = mac WHERE action = 'altered'")
            .await;
        let rest = export(record.db.read(), Some(first)).await.unwrap();
        let told: Vec<_> = rest
            .iter()
            .map(|(position, found)| {
                let what = match found {
                    Exported::Event(event) => event.action.clone(),
                    Exported::Removed(from) => format!("removed from {from}"),
                    Exported::Unreadable => "unreadable".to_owned(),
                };
                (position.leaf_index, what)
            })
            .collect();
        let expected = [(2, "removed from 1"), (3, "kept"), (4, "unreadable"), (5, "last")];
        assert_eq!(
            told,
            expected.map(|(leaf, what)| (leaf, what.to_owned())),
            "{place}"
        );
        let begun = export(record.db.read(), None).await.unwrap();
        assert_eq!(begun[0].1, Exported::Removed(0), "{place}");
        let next = export(record.db.read(), Some(rest[0].0)).await.unwrap();
        assert_eq!(next, rest[1..], "{place}");
    }
}
