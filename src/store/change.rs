//! The change feed of a database: one row with a counter, and one row for each change, keyed by the change's number.
//!
//! A transaction increments the counter *last*. It then holds the counter's row lock (on SQLite, the write lock) until
//! it commits. So the order of numbers is the order of commits, without gaps: a reader that has read up to `seq` has
//! missed no change committed before.

use std::time::Duration;

use sea_orm::{IntoActiveModel, QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    Database, Keyed, StoreError, Transaction,
    removal::delete_where,
    rows::{self, Authentic, Locked, Protected, ProtectedRows, Recorded, all_written},
};
use crate::{
    clock::UnixMillis,
    log_limit::LogLimit,
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
        pub event_number: i64,
        /// The number of the newest log of the audit record; 0 before the first.
        pub log_id: i64,
        /// Whether no log was started in this epoch.
        pub awaits_log: bool,
        pub mac: Vec<u8>,
    }

    crate::no_relations!();

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;

        /// The log's position and the numbers of events show that an older row was put back.
        const RECORDED: super::Recorded<Model> = super::Recorded::Never;
    }
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
        pub mac: Vec<u8>,
    }

    crate::no_relations!();

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;
        /// A change is never edited, and is deleted by age.
        const RECORDED: super::Recorded<Model> = super::Recorded::Never;
    }
}

/// The id of the counter's only row.
pub(super) const COUNTER: i32 = 1;
/// The most rows in one insert. Each has six parameters, and SQLite allows 32,766 in a statement.
const ROWS_PER_INSERT: usize = 1_000;
/// How often the log repeats that a change was edited: readers poll.
const LOG_PERIOD: Duration = Duration::from_secs(60);
const MISSING_COUNTER: StoreError = StoreError::Corrupt("the change counter is missing");

/// A change to publish in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The kind of change, such as `client` or `client.tokens_ended`.
    pub kind: &'static str,
    /// The id of the resource.
    pub id: String,
    /// The tenant that the resource belongs to, if any.
    pub tenant_id: Option<TenantId>,
}

/// A change in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRow {
    /// The number of the change: 1 for the first, then without gaps.
    pub seq: i64,
    /// The kind of change. A newer version of the service may write kinds that this one doesn't know.
    pub kind: String,
    /// The id of the resource.
    pub id: String,
    /// The tenant that the resource belongs to, if any.
    pub tenant_id: Option<TenantId>,
    /// The time by the clock of the replica that made the change. `seq` gives the order.
    pub changed_at: UnixMillis,
}

impl Database {
    /// Returns the feed's position for a decision. Fails if the database can't be written: what an old primary still answers
    /// is out of date.
    pub async fn position(&self) -> Result<Position, StoreError> {
        self.check_current().await?;
        position(self.read()).await
    }
}

/// Returns the position of the last committed change.
///
/// A reader that reads the position *before* it lists changes to the end has all changes up to that position.
pub async fn position(conn: &impl Keyed) -> Result<Position, StoreError> {
    let row = read_counter(conn).await?.ok_or(MISSING_COUNTER)?;
    position_of(&row)
}

fn position_of(row: &counter::Model) -> Result<Position, StoreError> {
    Ok(Position {
        epoch: Epoch::parse(&row.epoch).map_err(|_| StoreError::Corrupt("the change feed's epoch"))?,
        seq: row.seq,
    })
}

async fn read_counter(conn: &impl Keyed) -> Result<Option<Authentic<counter::Entity>>, StoreError> {
    counter::Entity::look_up_by_id(COUNTER).read_one(conn).await
}

/// Locks the counter until the transaction ends.
async fn lock_counter(tx: &Transaction) -> Result<Locked<counter::Entity>, StoreError> {
    let row = counter::Entity::look_up_by_id(COUNTER).lock_one(tx).await?;
    row.ok_or(MISSING_COUNTER)
}

/// Publishes changes with the transaction, and returns the number of the last one. Without changes, returns the number
/// of the last committed change. Call it as late as possible: all other writers wait from here to the commit.
pub async fn publish(tx: &Transaction, changes: &[Change], now: UnixMillis) -> Result<i64, StoreError> {
    let count = i64::try_from(changes.len()).map_err(|_| MISSING_COUNTER)?;
    if count == 0 {
        return Ok(position(tx).await?.seq);
    }
    let mut counter = lock_counter(tx).await?;
    counter.seq += count;
    counter.save(tx).await?;
    let last = counter.seq;

    rows::remove_beyond::<entry::Entity>(tx, entry::Column::Seq, (last - count, last), now).await?;
    let key = rows::current(tx)?;
    let mut seq = last - count;
    for changes in changes.chunks(ROWS_PER_INSERT) {
        let mut rows = Vec::with_capacity(changes.len());
        for change in changes {
            seq += 1;
            let mut row = entry::Model {
                seq,
                kind: change.kind.to_owned(),
                id: change.id.clone(),
                tenant_id: change.tenant_id.clone().map(String::from),
                changed_at: now.as_millis(),
                mac: Vec::new(),
            };
            rows::protect::<entry::Entity>(&key, &mut row)?;
            rows.push(row.into_active_model().reset_all());
        }
        let insert = entry::Entity::insert_many(rows);
        all_written("changes", insert.exec_without_returning(tx).await?, changes.len())?;
    }
    Ok(last)
}

/// Reserves numbers for audit events of the transaction, and returns the first. They have no gaps, because a transaction that
/// rolls back returns them. As [`publish`], it holds up all other writers from here to the commit.
pub(super) async fn next_event_numbers(tx: &Transaction, count: usize) -> Result<i64, StoreError> {
    let count = i64::try_from(count).map_err(|_| MISSING_COUNTER)?;
    let mut counter = lock_counter(tx).await?;
    let first = counter.event_number + 1;
    counter.event_number += count;
    counter.save(tx).await?;
    Ok(first)
}

/// Checks that what the counter has counted is not behind the number of the last event in the log.
pub(super) fn check_sealed(sealed: Option<i64>, counted: i64) -> Result<(), StoreError> {
    match sealed.is_some_and(|sealed| counted < sealed) {
        true => Err(StoreError::Altered("change_counter")),
        false => Ok(()),
    }
}

/// Returns the number of the last committed audit event that has a row of its own.
pub(super) async fn last_event_number(conn: &impl Keyed) -> Result<i64, StoreError> {
    let row = read_counter(conn).await?;
    Ok(row.ok_or(MISSING_COUNTER)?.event_number)
}

/// Counts a log that is started, and returns its number: above those of all logs that were counted and above `newest`, which the
/// database has.
pub(super) async fn count_log(tx: &Transaction, newest: i64) -> Result<i64, StoreError> {
    let mut counter = lock_counter(tx).await?;
    counter.log_id = counter.log_id.max(newest) + 1;
    counter.awaits_log = false;
    counter.save(tx).await?;
    Ok(counter.log_id)
}

/// What the counter says of the logs of the audit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CountedLogs {
    /// The number of the newest one; 0 before the first.
    pub(super) newest: i64,
    /// Whether the epoch has none yet.
    pub(super) awaits_next: bool,
    /// The number of the last event that has a row of its own.
    pub(super) events: i64,
}

impl CountedLogs {
    /// Returns whether the newest log is gone, if this is the newest that the database has: somebody has removed it.
    pub(super) fn is_gone(&self, newest: Option<i64>) -> bool {
        !self.awaits_next && newest.unwrap_or(0) < self.newest
    }
}

/// Returns what was counted of the logs of the audit record. Checks the MAC if there are keys to check it with.
pub(super) async fn counted_logs(conn: &impl Keyed) -> Result<CountedLogs, StoreError> {
    let row = match conn.keys() {
        Some(_) => read_counter(conn).await?.map(Authentic::into_row),
        None => counter::Entity::find_by_id(COUNTER).one(conn).await?,
    };
    let row = row.ok_or(MISSING_COUNTER)?;
    Ok(CountedLogs {
        newest: row.log_id,
        awaits_next: row.awaits_log,
        events: row.event_number,
    })
}

/// Lists at most `limit` changes after number `after`, oldest first.
///
/// # Errors
/// [`StoreError::Altered`] for a change that somebody without the keys has edited.
pub async fn list_after(conn: &impl Keyed, after: i64, limit: u64) -> Result<Vec<ChangeRow>, StoreError> {
    let rows = entry::Entity::look_up()
        .filter(entry::Column::Seq.gt(after), move |row| row.seq > after)
        .order_by_asc(entry::Column::Seq)
        .limit(limit)
        .read_all(conn)
        .await?;
    rows.iter().map(change_row).collect()
}

/// A part of the feed.
#[derive(Clone, Debug)]
pub struct FeedPage {
    /// The changes, in commit order.
    pub changes: Vec<ChangeRow>,
    /// The position up to which the reader now has all changes.
    pub position: Position,
    /// The number of the feed's last change, whether or not the page reaches it.
    pub head: i64,
    /// Whether the reader must start again: its position is of another epoch, ahead of the feed, or older than the
    /// oldest change that is kept; or somebody without the keys has edited or removed a change after it.
    pub reset: bool,
    /// Whether more changes follow `position`.
    pub more: bool,
}

/// Reads at most `limit` changes after a position. Without a position, or with one that the reader can't go on from
/// ([`FeedPage::reset`]), returns no changes and the feed's own position.
///
/// `sealed` is the number of the last event in the log, read before: the log follows the counter.
///
/// # Errors
/// [`StoreError::Altered`] for a counter behind it: somebody has put back an older one.
pub async fn read(
    conn: &impl Keyed,
    sealed: Option<i64>,
    after: Option<&Position>,
    limit: u64,
) -> Result<FeedPage, StoreError> {
    // Reads the position before the list, so that the list lacks no change up to the position. It may contain later
    // ones.
    let counter = read_counter(conn).await?.ok_or(MISSING_COUNTER)?;
    check_sealed(sealed, counter.event_number)?;
    let mut position = position_of(&counter)?;
    let head = position.seq;
    let mut reset = after.is_some_and(|after| after.epoch != position.epoch || after.seq > position.seq);
    let (mut changes, mut more) = (Vec::new(), false);
    if let Some(after) = after.filter(|after| !reset && after.seq < position.seq) {
        match list_after(conn, after.seq, limit.saturating_add(1)).await {
            Ok(found) => {
                reset = !is_complete(&found, after.seq, position.seq, limit);
                changes = found;
            }
            // An error would keep the reader at this change for ever.
            Err(error @ StoreError::Altered(_)) => {
                static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
                let reason = error.to_string();
                if let Some(unlogged) = LIMIT.check(&reason) {
                    tracing::error!(%reason, unlogged, "readers of the change feed start again");
                }
                reset = true;
            }
            Err(error) => return Err(error),
        }
    }
    if reset {
        changes.clear();
    } else if let Some(after) = after.filter(|after| after.seq < position.seq) {
        more = changes.len() as u64 > limit;
        changes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let last = changes.last().map_or(after.seq, |change| change.seq);
        position.seq = if more { last } else { Ord::max(last, position.seq) };
    }
    Ok(FeedPage {
        changes,
        position,
        head,
        reset,
        more,
    })
}

/// Returns whether no change is missing of those after `after`, up to `last` or beyond `limit`. Numbers have no gaps, except where
/// [`delete_before`] deleted the oldest ones.
fn is_complete(changes: &[ChangeRow], after: i64, last: i64, limit: u64) -> bool {
    let is_next = |(change, seq): (&ChangeRow, i64)| change.seq == seq;
    let reached = changes.last().map_or(after, |change| change.seq);
    changes.iter().zip(after + 1..).all(is_next) && (reached >= last || changes.len() as u64 > limit)
}

/// Deletes the changes before `since`, but for the last of them, which [`seq_before`] needs. A reader that has not read
/// them must start again.
pub async fn delete_before(db: &Database, since: UnixMillis) -> Result<u64, StoreError> {
    let last = seq_before(db.read(), since).await?;
    delete_where::<entry::Entity>(db, entry::Column::Seq.lt(last)).await
}

/// Returns the number of the last change before `since`; 0 if there is none. Trusts the replicas' clocks: pass a time
/// well before the one that matters.
///
/// Returns 0, too, if somebody without the keys has edited that change: the earliest position is right for all that follows.
pub async fn seq_before(conn: &impl Keyed, since: UnixMillis) -> Result<i64, StoreError> {
    let since = since.as_millis();
    let last_before = entry::Entity::look_up()
        .filter(entry::Column::ChangedAt.lt(since), move |row| {
            row.changed_at < since
        })
        .order_by_desc(entry::Column::Seq)
        .read_one(conn)
        .await;
    match last_before {
        Err(StoreError::Altered(_)) => Ok(0),
        last_before => Ok(last_before?.map_or(0, |row| row.seq)),
    }
}

fn change_row(row: &Authentic<entry::Entity>) -> Result<ChangeRow, StoreError> {
    let tenant_id = row.tenant_id.as_deref().map(TenantId::parse).transpose();
    Ok(ChangeRow {
        seq: row.seq,
        kind: row.kind.clone(),
        id: row.id.clone(),
        tenant_id: tenant_id.map_err(|_| StoreError::Corrupt("tenant of a change"))?,
        changed_at: UnixMillis::from_millis(row.changed_at),
    })
}

/// Creates the counter with a random epoch in a new database, unless it exists. If replicas race, the epoch of one stays.
pub(super) async fn ensure(db: &Database, random: &dyn Random) -> Result<(), StoreError> {
    if read_counter(db.read()).await?.is_some() {
        return Ok(());
    }
    let tx = db.write().await?;
    match rows::insert::<counter::Entity>(&tx, new_counter(random, 0)).await {
        Ok(_) => tx.commit().await,
        Err(StoreError::Conflict) => tx.rollback().await,
        Err(error) => Err(error),
    }
}

/// Starts a new epoch, for a database restored from a backup. Without one, positions from between backup and restore
/// would name changes that are made after the restore. Numbers continue from the backup's.
pub async fn start_epoch(tx: &Transaction, random: &dyn Random) -> Result<Position, StoreError> {
    let mut counter = lock_counter(tx).await?;
    counter.epoch = Epoch::generate(random).into();
    counter.awaits_log = true;
    counter.save(tx).await?;
    position_of(&counter)
}

/// Puts a new counter in the place of one that no holder of the keys has written, in a new epoch. Both of its numbers go on
/// behind `reached`, which must be beyond all that was counted: then no event and no change gets the number of an earlier one.
pub(super) async fn replace_counter(
    tx: &Transaction,
    random: &dyn Random,
    reached: i64,
) -> Result<Position, StoreError> {
    counter::Entity::delete_many().exec(tx).await?;
    let inserted = rows::insert::<counter::Entity>(tx, new_counter(random, reached)).await?;
    position_of(&inserted)
}

/// Returns a counter in a new epoch, both of whose numbers go on behind `reached`.
fn new_counter(random: &dyn Random, reached: i64) -> counter::Model {
    counter::Model {
        id: COUNTER,
        epoch: Epoch::generate(random).into(),
        seq: reached,
        event_number: reached,
        log_id: 0,
        awaits_log: true,
        mac: Vec::new(),
    }
}

#[cfg(test)]
#[path = "tests/change.rs"]
mod tests;
