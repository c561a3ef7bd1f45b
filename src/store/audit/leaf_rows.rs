//! The rows that leaves of the log stand for.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, entity::prelude::*, sea_query::Expr};

use super::{
    group, row,
    seal::{OWN, leaf},
};
use crate::store::StoreError;

/// Returns the place of a leaf in all logs, to compare it with [`at`]. Both databases look it up in the primary key.
pub(super) fn place() -> Expr {
    Expr::tuple([Expr::col(leaf::Column::LogId), Expr::col(leaf::Column::LeafIndex)])
}

/// Returns a place to compare leaves with.
pub(super) fn at(log_id: i64, leaf_index: i64) -> Expr {
    Expr::tuple([Expr::value(log_id), Expr::value(leaf_index)])
}

/// A row that a leaf stands for.
pub(super) enum Row {
    /// An event.
    Own(row::Model),
    /// A group of events.
    Group(group::Model),
}

impl Row {
    /// Returns the group; `None` for an event.
    pub(super) fn into_group(self) -> Option<group::Model> {
        match self {
            Self::Group(group) => Some(group),
            Self::Own(_) => None,
        }
    }

    /// Returns the id of the event, or of the newest of the group, as its column has it.
    pub(super) fn event_id(&self) -> &str {
        match self {
            Self::Own(row) => &row.event_id,
            Self::Group(row) => &row.last_event_id,
        }
    }
}

/// Returns the rows of some leaves, by source and number. Leaves out those that are missing.
pub(super) async fn rows(
    conn: &impl ConnectionTrait,
    leaves: impl IntoIterator<Item = &leaf::Model>,
) -> Result<HashMap<(String, i64), Row>, StoreError> {
    let mut numbers: HashMap<&str, Vec<i64>> = HashMap::new();
    for leaf in leaves {
        numbers.entry(&leaf.source).or_default().push(leaf.number);
    }
    let mut rows = HashMap::new();
    for (source, numbers) in numbers {
        if source == OWN {
            let own = row::Entity::find().filter(among(row::Column::Number, &numbers));
            for row in own.all(conn).await? {
                rows.insert((OWN.to_owned(), row.number), Row::Own(row));
            }
        } else {
            let groups = group::Entity::find()
                .filter(group::Column::Writer.eq(source))
                .filter(among(group::Column::Number, &numbers));
            for row in groups.all(conn).await? {
                rows.insert((row.writer.clone(), row.number), Row::Group(row));
            }
        }
    }
    Ok(rows)
}

/// Returns the row of a source with a number.
pub(super) async fn find(
    conn: &impl ConnectionTrait,
    source: &str,
    number: i64,
) -> Result<Option<Row>, StoreError> {
    if source == OWN {
        let found = row::Entity::find_by_id(number).one(conn).await?;
        return Ok(found.map(Row::Own));
    }
    let key = (source.to_owned(), number);
    Ok(group::Entity::find_by_id(key).one(conn).await?.map(Row::Group))
}

/// The condition for some numbers. One range, as they are next to each other, unless somebody has edited them: a range would
/// then read the whole table.
fn among(column: impl ColumnTrait, numbers: &[i64]) -> Expr {
    match (numbers.iter().min(), numbers.iter().max()) {
        (Some(first), Some(last)) if last.saturating_sub(*first) < 2 * numbers.len() as i64 + 64 => {
            column.between(*first, *last)
        }
        _ => column.is_in(numbers.iter().copied()),
    }
}
