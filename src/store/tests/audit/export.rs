#![allow(clippy::unwrap_used)]

use super::*;
use crate::store::audit::seal::tests::Sealed;

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
        let exported: Vec<_> = all.iter().map(|(_, event)| event.event_id.clone()).collect();
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
        assert_eq!(rest[0].1.action, "unsealed");
    }
}
