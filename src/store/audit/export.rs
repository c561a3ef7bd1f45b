//! The sealed events in the order of the log, for whoever copies the record. An event that was committed late is sealed
//! late, so that a reader who goes on from a position misses none.

use std::{fmt, str::FromStr};

use sea_orm::{Condition, ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    EventRow,
    group::events,
    leaf_rows::{Row, rows},
    record::decode,
    seal::leaf,
};
use crate::store::StoreError;

/// How many leaves are read at a time.
const LEAVES: u64 = 200;

/// The place of an event in the record: its log, its leaf in the log, and its place in a group. Its text is
/// `<log>/<leaf>/<place>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// The number of the log in its database.
    pub log_id: i64,
    /// The index of the leaf.
    pub leaf_index: i64,
    /// The place in the group; 0 for an event of its own.
    pub index: u32,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.log_id, self.leaf_index, self.index)
    }
}

impl FromStr for LogPosition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be three numbers with slashes between them";
        let mut parts = text.split('/');
        let mut next = || parts.next().ok_or(RULE);
        let (log_id, leaf_index, index) = (next()?, next()?, next()?);
        let position = Self {
            log_id: log_id.parse().map_err(|_| RULE)?,
            leaf_index: leaf_index.parse().map_err(|_| RULE)?,
            index: index.parse().map_err(|_| RULE)?,
        };
        match position.to_string() == text {
            true => Ok(position),
            false => Err(RULE),
        }
    }
}

/// Returns the next events after a position, or the first ones; none at the end.
///
/// # Errors
/// [`StoreError::Corrupt`] for a leaf whose row is missing, and for a row that is no event.
pub async fn export(
    conn: &impl ConnectionTrait,
    after: Option<LogPosition>,
) -> Result<Vec<(LogPosition, EventRow)>, StoreError> {
    let mut find = leaf::Entity::find();
    if let Some(after) = after {
        let same_log = Condition::all()
            .add(leaf::Column::LogId.eq(after.log_id))
            .add(leaf::Column::LeafIndex.gte(after.leaf_index));
        let later = Condition::any()
            .add(same_log)
            .add(leaf::Column::LogId.gt(after.log_id));
        find = find.filter(later);
    }
    let leaves = find
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
#[path = "../tests/audit/export.rs"]
mod tests;
