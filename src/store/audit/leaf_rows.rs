//! The rows that leaves of the log stand for.

use std::{
    cmp::{max, min},
    collections::HashMap,
};

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
}

/// Returns the rows of some leaves, by source and number. Leaves out those that are missing.
pub(super) async fn rows(
    conn: &impl ConnectionTrait,
    leaves: impl IntoIterator<Item = &leaf::Model>,
) -> Result<HashMap<(String, i64), Row>, StoreError> {
    let mut numbers: HashMap<&str, (i64, i64)> = HashMap::new();
    for leaf in leaves {
        let range = numbers.entry(&leaf.source).or_insert((leaf.number, leaf.number));
        *range = (min(range.0, leaf.number), max(range.1, leaf.number));
    }
    let mut rows = HashMap::new();
    for (source, (first, last)) in numbers {
        if source == OWN {
            let own = row::Entity::find().filter(row::Column::Number.between(first, last));
            for row in own.all(conn).await? {
                rows.insert((OWN.to_owned(), row.number), Row::Own(row));
            }
        } else {
            let groups = group::Entity::find()
                .filter(group::Column::Writer.eq(source))
                .filter(group::Column::Number.between(first, last));
            for row in groups.all(conn).await? {
                rows.insert((row.writer.clone(), row.number), Row::Group(row));
            }
        }
    }
    Ok(rows)
}
