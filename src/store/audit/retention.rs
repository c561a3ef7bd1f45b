//! Retention: sealed events are deleted by age, from the first leaf on. Their hashes stay in the log, so that the rest can
//! still be proven complete.

use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    Event, Origin, group, record,
    record::decode,
    row,
    seal::{OWN, leaf},
};
use crate::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{Database, StoreError},
    text::id::{EventId, ulid_at},
};

/// How many leaves one transaction deletes.
const LEAVES: u64 = 500;
/// The action of the event that says which leaves were deleted.
const DELETE: &str = "audit_events.delete";

/// Deletes sealed events before `since`. An event in each transaction says up to which leaf, so that none is missing without
/// a word. Returns how many leaves it deletes: events with rows of their own, and groups.
pub async fn delete_before(
    db: &Database,
    clock: &dyn Clock,
    random: &dyn Random,
    since: UnixMillis,
) -> Result<u64, StoreError> {
    let first_kept = EventId::of(ulid_at(since, 0));
    let mut all = 0;
    loop {
        let deleted = delete_some(db, clock, random, since, &first_kept).await?;
        if deleted == 0 {
            return Ok(all);
        }
        all += deleted;
    }
}

async fn delete_some(
    db: &Database,
    clock: &dyn Clock,
    random: &dyn Random,
    since: UnixMillis,
    first_kept: &EventId,
) -> Result<u64, StoreError> {
    let tx = db.write().await?;
    let leaves = leaf::Entity::find()
        .order_by_asc(leaf::Column::LogId)
        .order_by_asc(leaf::Column::LeafIndex)
        .limit(LEAVES)
        .all(&tx)
        .await?;
    let mut last: Option<&leaf::Model> = None;
    let mut deleted = 0;
    for leaf in &leaves {
        // A log at a time: its leaves are numbered on their own.
        if last.is_some_and(|last| last.log_id != leaf.log_id) || !is_old(&tx, leaf, first_kept).await? {
            break;
        }
        match leaf.source.as_str() {
            OWN => row::Entity::delete_by_id(leaf.number).exec(&tx).await?,
            writer => {
                let key = (writer.to_owned(), leaf.number);
                group::Entity::delete_by_id(key).exec(&tx).await?
            }
        };
        last = Some(leaf);
        deleted += 1;
    }
    let Some(last) = last else { return Ok(0) };
    leaf::Entity::delete_many()
        .filter(leaf::Column::LogId.eq(last.log_id))
        .filter(leaf::Column::LeafIndex.lte(last.leaf_index))
        .exec(&tx)
        .await?;
    let event = Event::new(DELETE)
        .detail("count", deleted.to_string())
        .detail("log", last.log_id.to_string())
        .detail("through", last.leaf_index.to_string())
        .detail("until", since.to_timestamp().to_string());
    record(&tx, clock, random, &Origin::system("retention"), event).await;
    tx.commit().await?;
    Ok(deleted)
}

/// Returns whether all events of a leaf are older than the first that is kept.
async fn is_old(
    tx: &super::Transaction,
    leaf: &leaf::Model,
    first_kept: &EventId,
) -> Result<bool, StoreError> {
    let last = match leaf.source.as_str() {
        OWN => {
            let row = row::Entity::find_by_id(leaf.number).one(tx).await?;
            row.map(|row| row.event_id)
        }
        writer => {
            let row = group::Entity::find()
                .select_only()
                .column(group::Column::LastEventId)
                .filter(group::Column::Writer.eq(writer))
                .filter(group::Column::Number.eq(leaf.number));
            row.into_tuple().one(tx).await?
        }
    };
    // A row that is missing is a fault, which stays for a verification to name.
    Ok(last.is_some_and(|last| *last < *first_kept.as_str()))
}

/// Returns the last deleted leaf of a log that an event names, if it is one about deleted leaves.
pub(super) fn decode_deleted(encoded: &[u8], log_id: i64) -> Option<u64> {
    let event = decode(encoded).ok()?;
    let is_about = event.action == DELETE && event.detail.get("log")?.parse() == Ok(log_id);
    is_about.then(|| event.detail.get("through")?.parse().ok())?
}
