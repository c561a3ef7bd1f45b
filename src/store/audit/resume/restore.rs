//! What the record says of a restore: up to when the copy has events.

use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*};

use super::super::{Event, action, group, record::decode, row};
use crate::{
    clock::UnixMillis,
    store::{StoreError, is_epoch_unfinished},
    text::id::EventId,
};

/// The detail of its event with the time of the newest event before the restore.
const COPIED_AT: &str = "copied_at";

/// Returns the event with which a new epoch starts. Call it before the epoch is marked as unfinished.
pub async fn epoch_start(conn: &impl ConnectionTrait, epoch: &str) -> Result<Event, StoreError> {
    // An interrupted start has recorded events of its own.
    let copied_at = match is_epoch_unfinished(conn).await? {
        true => copied_at(conn).await?,
        false => newest_event(conn).await?.map(|event_id| event_id.time()),
    };
    let event = Event::new(action::EPOCH_START).subject(epoch);
    Ok(match copied_at {
        Some(copied_at) => event.detail(COPIED_AT, copied_at.to_timestamp().to_string()),
        None => event,
    })
}

/// Returns the time of the newest event that the restored copy had; `None` if the database is no copy, or its record does not say.
pub async fn copied_at(conn: &impl ConnectionTrait) -> Result<Option<UnixMillis>, StoreError> {
    let start = row::Entity::find()
        .filter(row::Column::Action.eq(action::EPOCH_START.as_str()))
        .order_by_desc(row::Column::Number)
        .limit(1)
        .one(conn)
        .await?;
    let Some(start) = start else { return Ok(None) };
    let copied_at = decode(&start.record)?.detail.remove(COPIED_AT);
    let copied_at = copied_at.and_then(|time| time.parse().ok());
    Ok(copied_at.and_then(|time| UnixMillis::from_timestamp(&time)))
}

async fn newest_event(conn: &impl ConnectionTrait) -> Result<Option<EventId>, StoreError> {
    let own = row::Entity::find()
        .select_only()
        .column(row::Column::EventId)
        .order_by_desc(row::Column::Number)
        .limit(1)
        .into_tuple::<String>()
        .one(conn)
        .await?;
    let group = group::Entity::find()
        .select_only()
        .column(group::Column::LastEventId)
        .order_by_desc(group::Column::LastEventId)
        .limit(1)
        .into_tuple::<String>()
        .one(conn)
        .await?;
    let newest = own.into_iter().chain(group).max();
    let newest = newest.map(|event_id| EventId::parse(&event_id)).transpose();
    newest.map_err(|_| StoreError::Corrupt("the id of an event"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::{
        clock::Clock,
        random::SystemRandom,
        store::{
            Database,
            audit::{self, Origin},
            fixture::migrated,
            mark_epoch_unfinished,
        },
        testing::test_clock,
    };

    async fn record(db: &Database, clock: &dyn Clock, event: Event, is_start: bool) {
        let tx = db.write().await.unwrap();
        if is_start {
            mark_epoch_unfinished(&tx).await.unwrap();
        }
        audit::record(&tx, clock, &SystemRandom, &Origin::system("test"), event).await;
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_new_epoch_records_up_to_when_the_copy_has_events() {
        for (place, db) in migrated().await {
            let clock = test_clock();
            let start = epoch_start(db.read(), "e1").await.unwrap();
            assert!(start.detail.is_empty(), "{place:?}: a copy without events");
            record(&db, &*clock, Event::test("client.suspend"), false).await;
            let newest = clock.now();
            clock.advance(Duration::from_secs(3600));
            assert_eq!(copied_at(db.read()).await.unwrap(), None, "{place:?}");
            // The second start goes on after an interrupted one, whose own event is none of the copy.
            for epoch in ["e1", "e2"] {
                let start = epoch_start(db.read(), epoch).await.unwrap();
                record(&db, &*clock, start, true).await;
                clock.advance(Duration::from_secs(60));
                assert_eq!(copied_at(db.read()).await.unwrap(), Some(newest), "{place:?}");
            }
        }
    }
}
