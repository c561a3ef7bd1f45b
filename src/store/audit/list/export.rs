//! The sealed events in the order of the log, for whoever copies the record. An event that was committed late is sealed
//! late, so that a reader who goes on from a position misses none.

use sea_orm::{ConnectionTrait, ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};

use super::super::{
    EventRow, LogPosition,
    group::events,
    leaf_rows::{Row, at, place, rows},
    record::decode,
    seal::leaf,
};
use crate::store::StoreError;

/// How many leaves are read at a time.
const LEAVES: u64 = 200;

/// Returns the next events after a position, or the first ones; none at the end.
///
/// # Errors
/// [`StoreError::Corrupt`] for a leaf whose row is missing, and for a row that is no event.
pub async fn export(
    conn: &impl ConnectionTrait,
    after: Option<LogPosition>,
) -> Result<Vec<(LogPosition, EventRow)>, StoreError> {
    let leaves = leaf::Entity::find()
        .apply_if(after, |find, after| {
            find.filter(place().gte(at(after.log_id, after.leaf_index)))
        })
        .order_by_asc(leaf::Column::LogId)
        .order_by_asc(leaf::Column::LeafIndex)
        .limit(LEAVES)
        .all(conn)
        .await?;
    let mut rows = rows(conn, &leaves).await?;
    let mut exported = Vec::new();
    for leaf in leaves {
        let row = rows.remove(&(leaf.source, leaf.number));
        let encoded = match row
            .as_ref()
            .ok_or(StoreError::Corrupt("a leaf without its row"))?
        {
            Row::Own(row) => vec![row.record.as_slice()],
            Row::Group(row) => events(&row.events)?,
        };
        for (index, event) in (0..).zip(encoded) {
            let position = LogPosition {
                log_id: leaf.log_id,
                leaf_index: leaf.leaf_index,
                index,
            };
            if after.is_none_or(|after| position > after) {
                exported.push((position, decode(event)?));
            }
        }
    }
    Ok(exported)
}

#[cfg(test)]
#[path = "../../tests/audit/export.rs"]
mod tests;
