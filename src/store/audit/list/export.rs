//! The sealed events in the order of the log, for whoever copies the record. An event that was committed late is sealed
//! late, so that a reader who goes on from a position misses none.

use sea_orm::{ConnectionTrait, ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};

use super::super::{
    EventRow, LogPosition,
    leaf_rows::{Row, at, leaf, place, rows},
    record::decode,
};
use crate::store::{StoreError, log};

/// How many leaves are read at a time.
const LEAVES: u64 = 200;

/// What a position of the record holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Exported {
    /// An event.
    Event(Box<EventRow>),
    /// Leaves that are gone, from this one up to the position. Retention removes them, and only a verification tells whether it
    /// has removed these.
    Removed(i64),
    /// A leaf whose row is missing or can't be read, which a verification names.
    Unreadable,
}

/// Returns whether a log has had a leaf at this position. What is committed counts, signed or not, as it is exported.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub async fn has_position(conn: &impl ConnectionTrait, position: LogPosition) -> Result<bool, StoreError> {
    let logs = log::all(conn).await?.logs;
    let mut logs = logs.iter().filter(|log| log.log_id == position.log_id);
    Ok(logs.any(|log| position.leaf_index < log.head.size.cast_signed()))
}

/// Returns the next events after a position, or the first ones; none at the end. Goes on behind what retention removes
/// meanwhile, and behind a fault.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub async fn export(
    conn: &impl ConnectionTrait,
    after: Option<LogPosition>,
) -> Result<Vec<(LogPosition, Exported)>, StoreError> {
    loop {
        let leaves = leaves(conn, after).await?;
        if let Some(exported) = exported(conn, leaves, after).await? {
            return Ok(exported);
        }
    }
}

async fn leaves(
    conn: &impl ConnectionTrait,
    after: Option<LogPosition>,
) -> Result<Vec<leaf::Model>, StoreError> {
    let leaves = leaf::Entity::find()
        .apply_if(after, |find, after| {
            find.filter(place().gte(at(after.log_id, after.leaf_index)))
        })
        .order_by_asc(leaf::Column::LogId)
        .order_by_asc(leaf::Column::LeafIndex)
        .limit(LEAVES)
        .all(conn);
    Ok(leaves.await?)
}

/// Returns what leaves hold after a position; `None` if retention has removed all of that since they were read, so that others may
/// follow.
async fn exported(
    conn: &impl ConnectionTrait,
    leaves: Vec<leaf::Model>,
    after: Option<LogPosition>,
) -> Result<Option<Vec<(LogPosition, Exported)>>, StoreError> {
    let mut rows = rows(conn, &leaves).await?;
    let (mut exported, mut is_overtaken) = (Vec::new(), false);
    let mut last = after.map(|after| (after.log_id, after.leaf_index));
    for leaf in leaves {
        let position = leaf.position(0);
        let row = rows.remove(&(leaf.source.clone(), leaf.number));
        let events = row.as_ref().and_then(|row| decoded(row).ok());
        let events = events.filter(|events| !events.is_empty());
        if events.is_none() && !is_there(conn, &leaf).await? {
            // The next leaf that is there shows the gap.
            is_overtaken = true;
            continue;
        }
        let expected = match last {
            Some((log_id, leaf_index)) if log_id == leaf.log_id => leaf_index + 1,
            _ => 0,
        };
        if leaf.leaf_index > expected {
            let gap = LogPosition {
                leaf_index: leaf.leaf_index - 1,
                index: u32::MAX,
                ..position
            };
            exported.push((gap, Exported::Removed(expected)));
        }
        last = Some((leaf.log_id, leaf.leaf_index));
        let is_new = |position: &LogPosition| after.is_none_or(|after| *position > after);
        match events {
            Some(events) => {
                let events = (0..).zip(events).map(|(index, event)| {
                    let position = LogPosition { index, ..position };
                    (position, Exported::Event(Box::new(event)))
                });
                exported.extend(events.filter(|(position, _)| is_new(position)));
            }
            None if is_new(&position) => exported.push((position, Exported::Unreadable)),
            None => {}
        }
    }
    Ok((!is_overtaken || !exported.is_empty()).then_some(exported))
}

fn decoded(row: &Row) -> Result<Vec<EventRow>, StoreError> {
    row.events()?.into_iter().map(decode).collect()
}

async fn is_there(conn: &impl ConnectionTrait, leaf: &leaf::Model) -> Result<bool, StoreError> {
    let found = leaf::Entity::find_by_id((leaf.log_id, leaf.leaf_index))
        .one(conn)
        .await?;
    Ok(found.is_some())
}

#[cfg(test)]
#[path = "../../tests/audit/export.rs"]
mod tests;
