//! The rows that leaves of the log stand for.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, QueryOrder, QuerySelect, entity::prelude::*, sea_query::Expr};

use super::{LogPosition, group, row};
use crate::store::{StoreError, Transaction};

/// The source of the events that have rows of their own.
pub(super) const OWN: &str = "";

/// The leaves, and what each of them stands for.
pub(super) mod leaf {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_leaves")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub log_id: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub leaf_index: i64,
        pub source: String,
        pub number: i64,
    }

    crate::no_relations!();
}

impl leaf::Model {
    /// Returns the position of an event of the leaf, by its place in the group.
    pub(super) fn position(&self, index: u32) -> LogPosition {
        LogPosition {
            log_id: self.log_id,
            leaf_index: self.leaf_index,
            index,
        }
    }
}

/// Returns a query for the leaf of a source with the highest number.
pub(super) fn last_leaf(source: &str) -> Select<leaf::Entity> {
    leaf::Entity::find()
        .filter(leaf::Column::Source.eq(source))
        .order_by_desc(leaf::Column::Number)
        .limit(1)
}

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

    /// Returns the source: the writer of a group.
    pub(super) fn source(&self) -> &str {
        match self {
            Self::Own(_) => OWN,
            Self::Group(row) => &row.writer,
        }
    }

    /// Returns the number in the source.
    pub(super) fn number(&self) -> i64 {
        match self {
            Self::Own(row) => row.number,
            Self::Group(row) => row.number,
        }
    }

    /// Returns the encoded event, or those of the group in the order of its tree.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] for bytes that are no list of events.
    pub(super) fn events(&self) -> Result<Vec<&[u8]>, StoreError> {
        match self {
            Self::Own(row) => Ok(vec![&row.record]),
            Self::Group(row) => group::events(&row.events),
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

/// Returns the rows of a source with these numbers, the first `limit` of them, in the order of the numbers.
pub(super) async fn rows_between(
    conn: &impl ConnectionTrait,
    source: &str,
    (from, through): (i64, i64),
    limit: u64,
) -> Result<Vec<Row>, StoreError> {
    if source == OWN {
        let rows = row::Entity::find()
            .filter(row::Column::Number.between(from, through))
            .order_by_asc(row::Column::Number)
            .limit(limit);
        return Ok(rows.all(conn).await?.into_iter().map(Row::Own).collect());
    }
    let rows = group::Entity::find()
        .filter(group::Column::Writer.eq(source))
        .filter(group::Column::Number.between(from, through))
        .order_by_asc(group::Column::Number)
        .limit(limit);
    Ok(rows.all(conn).await?.into_iter().map(Row::Group).collect())
}

/// Returns the rows of a source after a number, the first `limit` of them, in the order of the numbers.
pub(super) async fn rows_after(
    conn: &impl ConnectionTrait,
    source: &str,
    after: i64,
    limit: u64,
) -> Result<Vec<Row>, StoreError> {
    rows_between(conn, source, (after.saturating_add(1), i64::MAX), limit).await
}

/// Deletes the rows of a source with these numbers.
pub(super) async fn delete(
    tx: &Transaction,
    source: &str,
    (from, through): (i64, i64),
) -> Result<(), StoreError> {
    match source {
        OWN => {
            let numbers = row::Column::Number.between(from, through);
            row::Entity::delete_many().filter(numbers).exec(tx).await?
        }
        writer => {
            let numbers = group::Column::Number.between(from, through);
            let groups = group::Entity::delete_many().filter(group::Column::Writer.eq(writer));
            groups.filter(numbers).exec(tx).await?
        }
    };
    Ok(())
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
