//! The rows that leaves of the log stand for.

use std::{
    cmp::{max, min},
    collections::HashMap,
};

use sea_orm::{ConnectionTrait, entity::prelude::*};

use super::{
    group, row,
    seal::{OWN, leaf},
};
use crate::store::StoreError;

/// A row that a leaf stands for.
pub(super) enum Row {
    /// An event.
    Own(row::Model),
    /// A group of events.
    Group(group::Model),
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
