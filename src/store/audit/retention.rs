//! Retention: sealed events are deleted by age, from the first leaf on. Their hashes stay in the log, so that the rest can
//! still be proven complete.

use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    Event, Origin,
    check::{check_columns, check_contents},
    group,
    leaf_rows::{Row, rows},
    list::actions,
    record,
    record::decode,
    resume::stepped::{Stepped, decode_resume},
    row,
    seal::{OWN, leaf},
};
use crate::{
    clock::{Clock, UnixMillis},
    random::Random,
    store::{Database, StoreError, Transaction, log},
    text::id::{EventId, ulid_at},
    tlog::{Hash, event_leaf, group_leaf},
};

/// How many leaves one transaction deletes.
const LEAVES: u64 = 500;
/// The action of the event that says which leaves were deleted.
pub(super) const DELETE: &str = "audit_events.delete";

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
            actions::delete_before(db, since).await?;
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
    // A log at a time: its leaves are numbered on their own.
    let Some(first) = leaves.first() else { return Ok(0) };
    let leaves: Vec<_> = leaves
        .iter()
        .take_while(|leaf| leaf.log_id == first.log_id)
        .collect();
    let sealed = sealed(&tx, first, leaves.len()).await?;
    let mut rows = rows(&tx, leaves.iter().copied()).await?;
    let mut last: Option<&leaf::Model> = None;
    let mut deleted = 0;
    for ((leaf, sealed), index) in leaves.into_iter().zip(sealed).zip(first.leaf_index..) {
        let row = rows.remove(&(leaf.source.clone(), leaf.number));
        // A row that is missing, or is not what was sealed, is a fault: it stays, for a verification to name.
        let Some(row) = row.filter(|row| leaf.leaf_index == index && is_old(row, sealed, first_kept)) else {
            break;
        };
        if let Row::Own(row) = &row
            && let Some(resume) = decode_resume(&row.record)
        {
            delete_stepped(&tx, &resume.rows).await?;
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

/// Deletes the rows that a resume has stepped over, whose event goes: they are as old, and nothing else says why no log has
/// them.
async fn delete_stepped(tx: &Transaction, rows: &[Stepped]) -> Result<(), StoreError> {
    for stepped in rows {
        let (from, through) = (stepped.from, stepped.through);
        match stepped.writer.as_str() {
            OWN => {
                let numbers = row::Column::Number.between(from, through);
                row::Entity::delete_many().filter(numbers).exec(tx).await?
            }
            writer => {
                let numbers = group::Column::Number.between(from, through);
                group::Entity::delete_many()
                    .filter(group::Column::Writer.eq(writer))
                    .filter(numbers)
                    .exec(tx)
                    .await?
            }
        };
    }
    Ok(())
}

/// Returns the hashes that were sealed from a leaf on, of so many leaves; none if the log does not have them.
async fn sealed(tx: &Transaction, first: &leaf::Model, count: usize) -> Result<Vec<Hash>, StoreError> {
    let Ok(from) = u64::try_from(first.leaf_index) else {
        return Ok(Vec::new());
    };
    log::leaves(tx, first.log_id, from..from + count as u64).await
}

/// Returns whether a row is what was sealed, and all its events are older than the first that is kept.
fn is_old(row: &Row, sealed: Hash, first_kept: &EventId) -> bool {
    let (checked, last) = match row {
        Row::Own(row) => (
            check_columns(row).map(|()| event_leaf(&row.record)),
            &row.event_id,
        ),
        Row::Group(row) => (
            check_contents(row).map(|head| group_leaf(&head)),
            &row.last_event_id,
        ),
    };
    checked == Ok(sealed) && **last < *first_kept.as_str()
}

/// Returns the log, and the last deleted leaf of it, that an event names, if it is one about deleted leaves.
pub(super) fn decode_deleted(encoded: &[u8]) -> Option<(i64, u64)> {
    let event = decode(encoded).ok()?;
    if event.action != DELETE {
        return None;
    }
    Some((
        event.detail.get("log")?.parse().ok()?,
        event.detail.get("through")?.parse().ok()?,
    ))
}
