//! The change feed of a database: one counter row, and a row per change under its number.
//!
//! The counter is bumped *last* in the transaction that makes the change. Its row lock (on SQLite,
//! the write lock) is then held until the commit, so the order of numbers is the order of commits,
//! without gaps: who has read up to `seq` has missed nothing that was committed before.

use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DatabaseTransaction, EntityTrait, ExprTrait, QueryFilter, QueryOrder,
    QuerySelect, entity::prelude::*,
};
use sea_orm_migration::{
    SchemaManager,
    prelude::{ColumnDef, Expr, OnConflict, Query, Table},
};

use super::StoreError;
use crate::{
    clock::UnixMillis,
    position::{Epoch, Position},
    random::Random,
    text::id::TenantId,
};

mod counter {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "change_counter")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub epoch: String,
        pub seq: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod entry {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "changes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        pub kind: String,
        pub id: String,
        pub tenant_id: Option<String>,
        pub changed_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The one row of the counter.
const COUNTER: i32 = 1;
/// Rows in one insert; five parameters each, and SQLite allows 32,766.
const ROWS_PER_INSERT: usize = 1_000;

/// A change to publish in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What changed, such as `client`; readers match on it.
    pub kind: &'static str,
    /// The id of what changed.
    pub id: String,
    /// The tenant it belongs to, if it belongs to one.
    pub tenant_id: Option<TenantId>,
}

/// A change as the feed gives it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// Its number, at least 1: one more than that of the change before.
    pub seq: i64,
    /// What changed; newer versions may write kinds that this one doesn't know.
    pub kind: String,
    /// The id of what changed.
    pub id: String,
    /// The tenant it belongs to, if it belongs to one.
    pub tenant_id: Option<TenantId>,
    /// When, by the clock of the replica that changed it. Order comes from `seq`, not from this.
    pub changed_at: UnixMillis,
}

/// Where the feed stands.
///
/// A reader that asks for the position *before* it lists knows that the list, followed to its end,
/// holds all up to the position.
///
/// # Errors
/// [`StoreError::Corrupt`] before the first [`ensure`].
pub async fn position(conn: &impl ConnectionTrait) -> Result<Position, StoreError> {
    let row = counter::Entity::find_by_id(COUNTER).one(conn).await?;
    let row = row.ok_or(MISSING_COUNTER)?;
    Ok(Position {
        epoch: Epoch::parse(&row.epoch).map_err(|_| StoreError::Corrupt("the change feed's epoch"))?,
        seq: row.seq,
    })
}

const MISSING_COUNTER: StoreError = StoreError::Corrupt("the change counter is missing");

/// Publishes changes with the transaction, and returns the number of the last.
///
/// Call it last: everything after it lengthens the time that all other writers wait. Without
/// changes it does nothing and returns the number of the last committed change.
///
/// # Errors
/// [`StoreError::Corrupt`] before the first [`ensure`]; what the database says.
pub async fn bump(tx: &DatabaseTransaction, changes: &[Change], now: UnixMillis) -> Result<i64, StoreError> {
    let count = i64::try_from(changes.len()).map_err(|_| MISSING_COUNTER)?;
    if count == 0 {
        return Ok(position(tx).await?.seq);
    }
    let update = Query::update()
        .table(counter::Entity)
        .value(counter::Column::Seq, Expr::col(counter::Column::Seq).add(count))
        .and_where(Expr::col(counter::Column::Id).eq(COUNTER))
        .returning_col(counter::Column::Seq)
        .to_owned();
    let row = tx.query_one(&update).await?.ok_or(MISSING_COUNTER)?;
    let last: i64 = row.try_get("", "seq")?;

    let mut seq = last - count;
    for chunk in changes.chunks(ROWS_PER_INSERT) {
        let rows = chunk.iter().map(|change| {
            seq += 1;
            entry::ActiveModel {
                seq: Set(seq),
                kind: Set(change.kind.to_owned()),
                id: Set(change.id.clone()),
                tenant_id: Set(change.tenant_id.as_ref().map(|t| t.as_str().to_owned())),
                changed_at: Set(now.as_millis()),
            }
        });
        let rows: Vec<_> = rows.collect();
        entry::Entity::insert_many(rows)
            .exec_without_returning(tx)
            .await?;
    }
    Ok(last)
}

/// The changes after number `after`, oldest first, at most `limit`. Fewer than `limit` means that
/// there were no more when the question was asked.
///
/// # Errors
/// [`StoreError::Corrupt`] for a row whose tenant is no tenant id; what the database says.
pub async fn list_after(
    conn: &impl ConnectionTrait,
    after: i64,
    limit: u64,
) -> Result<Vec<ChangeRow>, StoreError> {
    let rows = entry::Entity::find()
        .filter(entry::Column::Seq.gt(after))
        .order_by_asc(entry::Column::Seq)
        .limit(limit)
        .all(conn)
        .await?;
    rows.into_iter().map(ChangeRow::try_from).collect()
}

/// What a reader of the feed is told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The changes, in commit order.
    pub changes: Vec<ChangeRow>,
    /// Up to where this is complete.
    pub position: Position,
    /// The reader's position is of another epoch, or ahead of this database.
    pub reset: bool,
    /// More changes wait behind `position`.
    pub more: bool,
}

/// The changes after a position, at most `limit`; without one, and for one that is of another epoch or
/// ahead of the feed, none but the feed's own position.
///
/// # Errors
/// As [`position`] and [`list_after`].
pub async fn tell(
    conn: &impl ConnectionTrait,
    after: Option<&Position>,
    limit: u64,
) -> Result<Told, StoreError> {
    // First the position: what commits in between may show in the list, and what is in no list is never
    // claimed.
    let now_at = position(conn).await?;
    let reset = after.is_some_and(|after| after.epoch != now_at.epoch || after.seq > now_at.seq);
    let Some(after) = after.filter(|after| !reset && after.seq < now_at.seq) else {
        return Ok(Told {
            changes: Vec::new(),
            position: now_at,
            reset,
            more: false,
        });
    };
    let mut changes = list_after(conn, after.seq, limit.saturating_add(1)).await?;
    let more = changes.len() as u64 > limit;
    changes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    // Changes that committed after the position was read may be there already: then it is further.
    let last = changes.last().map_or(after.seq, |change| change.seq);
    let seq = if more { last } else { Ord::max(last, now_at.seq) };
    Ok(Told {
        changes,
        position: Position {
            epoch: now_at.epoch,
            seq,
        },
        reset: false,
        more,
    })
}

/// A position such that all changes from `since` on come after it, as far as the replicas' clocks agree:
/// ask for a time well before the one that matters.
///
/// # Errors
/// What the database says.
pub async fn seq_before(conn: &impl ConnectionTrait, since: UnixMillis) -> Result<i64, StoreError> {
    let last_before = entry::Entity::find()
        .filter(entry::Column::ChangedAt.lt(since.as_millis()))
        .order_by_desc(entry::Column::Seq)
        .one(conn)
        .await?;
    Ok(last_before.map_or(0, |row| row.seq))
}

impl TryFrom<entry::Model> for ChangeRow {
    type Error = StoreError;

    fn try_from(row: entry::Model) -> Result<Self, StoreError> {
        let tenant_id = row.tenant_id.as_deref().map(TenantId::parse).transpose();
        Ok(Self {
            seq: row.seq,
            kind: row.kind,
            id: row.id,
            tenant_id: tenant_id.map_err(|_| StoreError::Corrupt("tenant of a change"))?,
            changed_at: UnixMillis::from_millis(row.changed_at),
        })
    }
}

/// Makes the counter with a random epoch if there is none. Replicas may race: one epoch stays.
///
/// # Errors
/// What the database says.
pub async fn ensure(conn: &impl ConnectionTrait, random: &dyn Random) -> Result<(), StoreError> {
    let row = counter::ActiveModel {
        id: Set(COUNTER),
        epoch: Set(Epoch::generate(random).into()),
        seq: Set(0),
    };
    counter::Entity::insert(row)
        .on_conflict(OnConflict::column(counter::Column::Id).do_nothing().to_owned())
        .exec_without_returning(conn)
        .await?;
    Ok(())
}

/// Starts a new epoch, for a database that was restored from a copy: positions that were handed
/// out after the copy was made must not be mistaken for those to come. The numbers go on.
///
/// # Errors
/// [`StoreError::Corrupt`] before the first [`ensure`]; what the database says.
pub async fn start_epoch(tx: &DatabaseTransaction, random: &dyn Random) -> Result<Position, StoreError> {
    let changed = counter::Entity::update_many()
        .col_expr(
            counter::Column::Epoch,
            Expr::value(Epoch::generate(random).as_str()),
        )
        .filter(counter::Column::Id.eq(COUNTER))
        .exec(tx)
        .await?;
    if changed.rows_affected == 0 {
        return Err(MISSING_COUNTER);
    }
    position(tx).await
}

/// Creates `change_counter` and `changes`.
///
/// # Errors
/// What the database says.
pub async fn create_tables(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    use counter::Column as Counter;
    use entry::Column as Entry;

    let counter = Table::create()
        .table(counter::Entity)
        .col(ColumnDef::new(Counter::Id).integer().not_null().primary_key())
        .col(ColumnDef::new(Counter::Epoch).text().not_null())
        .col(ColumnDef::new(Counter::Seq).big_integer().not_null())
        .check(Expr::col(Counter::Id).eq(COUNTER))
        .to_owned();
    manager.create_table(counter).await?;

    let changes = Table::create()
        .table(entry::Entity)
        .col(ColumnDef::new(Entry::Seq).big_integer().not_null().primary_key())
        .col(ColumnDef::new(Entry::Kind).text().not_null())
        .col(ColumnDef::new(Entry::Id).text().not_null())
        .col(ColumnDef::new(Entry::TenantId).text())
        .col(ColumnDef::new(Entry::ChangedAt).big_integer().not_null())
        .to_owned();
    manager.create_table(changes).await
}

#[cfg(test)]
#[path = "tests/change.rs"]
mod tests;
