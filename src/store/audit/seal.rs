//! Sealing: committed events become leaves of the open log, in the order in which each source committed them.
//!
//! A source is the sequence of events that have rows of their own, or a writer of groups. Sealing stops at the first gap and
//! at the first row that no holder of the keys has written, so that it never makes a forgery legitimate.

use std::collections::BTreeMap;

use sea_orm::{
    ActiveValue::Set, ConnectionTrait, ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*,
    sea_query::Expr,
};

use super::{
    Rollup, TokenUse,
    check::{self, Altered},
    group::{self, writer},
    leaf_rows::{OWN, Row, leaf, rows_after},
    record::token_use,
};
use crate::{
    clock::UnixMillis,
    keys::{DataKey, Keyring},
    store::{
        Database, Keyed, StoreError, Transaction, change,
        log::{Lease, Log, Seal},
        rows::all_written,
    },
    tlog::Hash,
};

/// The most rows that one seal takes from each source.
const ROWS: u64 = 500;
/// The most leaves of one seal.
const MOST_LEAVES: usize = 4_000;
/// The most rows in one insert. Each has four parameters.
const ROWS_PER_INSERT: usize = 1_000;

/// Why the record was not sealed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SealError {
    /// The database failed. A later attempt may succeed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row is missing. Nothing after it is sealed.
    #[error("{} has no number {number}", source_name(.source_id))]
    Missing {
        /// The writer; empty for events in rows of their own.
        source_id: String,
        /// The number.
        number: i64,
    },
    /// A row is not what a holder of the keys has written. Neither it nor anything after it is sealed.
    #[error("number {number} of {} was altered: {what}", source_name(.source_id))]
    Altered {
        /// The writer; empty for events in rows of their own.
        source_id: String,
        /// The number.
        number: i64,
        /// The event, or the newest of its group, as the row names it.
        event_id: String,
        /// What is wrong.
        what: &'static str,
    },
}

fn source_name(source: &str) -> String {
    match source {
        OWN => "audit_events".to_owned(),
        writer => format!("the writer {writer} of audit_groups"),
    }
}

impl From<sea_orm::DbErr> for SealError {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// A row to seal.
struct Entry {
    row: Row,
    leaf: Hash,
    /// The id of its last event, which says when it was written.
    last_event_id: String,
}

/// Seals what is committed, and returns the log with its new head; `None` if there is nothing to seal, or another sealer has
/// taken over. Call it again until it returns `None`: one call takes a bounded number of rows. The rollup counts what is
/// sealed, in the same transaction.
///
/// # Errors
/// [`SealError`]. What comes before a fault is sealed first.
pub async fn seal(
    db: &Database,
    keyring: &Keyring,
    (lease, log): (&Lease, &Log),
    rollup: &impl Rollup,
    now: UnixMillis,
) -> Result<Option<Log>, SealError> {
    // An old primary may lack rows that another one has.
    db.check_current().await?;
    let Unsealed {
        mut entries, fault, ..
    } = Unsealed::read(db.read(), keyring, log).await?;
    if entries.is_empty() {
        return fault.map_or(Ok(None), Err);
    }
    // Each source keeps its order.
    entries.sort_by(|one, other| one.last_event_id.cmp(&other.last_event_id));
    entries.truncate(MOST_LEAVES);
    let key = log.key(keyring).map_err(StoreError::from)?;
    let seal = SealBatch {
        lease,
        log,
        key,
        entries,
    };
    seal.commit(db, rollup, now).await
}

/// Rows that a transaction seals.
struct SealBatch<'a> {
    lease: &'a Lease,
    log: &'a Log,
    key: &'a DataKey,
    entries: Vec<Entry>,
}

impl SealBatch<'_> {
    /// Seals the rows, and writes their sums with them. No sum is worth the record: without those that can't be computed or written,
    /// the rows are sealed all the same, and their tokens stay uncounted.
    async fn commit(
        &self,
        db: &Database,
        rollup: &impl Rollup,
        now: UnixMillis,
    ) -> Result<Option<Log>, SealError> {
        let uses = token_uses(&self.entries)?;
        let error = match rollup.prepare(db, uses).await {
            Ok(changes) => {
                let Some((tx, next)) = self.append(db, now).await? else {
                    return Ok(None);
                };
                let Err(error) = rollup.write(&tx, changes).await else {
                    tx.commit().await?;
                    return Ok(Some(next));
                };
                tx.rollback().await?;
                error
            }
            Err(error) => error,
        };
        // Not one that only may pass: somebody may have edited a row.
        if error.is_temporary() {
            return Err(error.into());
        }
        tracing::error!(%error, "the use of tokens can't be summed up");
        let Some((tx, next)) = self.append(db, now).await? else {
            return Ok(None);
        };
        tx.commit().await?;
        Ok(Some(next))
    }

    /// Begins the transaction that seals the rows. Returns with it the log with its new head.
    async fn append(&self, db: &Database, now: UnixMillis) -> Result<Option<(Transaction, Log)>, SealError> {
        let (log, entries) = (self.log, &self.entries);
        let mut sealed = BTreeMap::new();
        for entry in entries {
            sealed.insert(entry.row.source(), entry.row.number());
        }
        let position = match sealed.get(OWN) {
            Some(number) => number.to_string(),
            None => log.position.clone(),
        };
        let leaves: Vec<_> = entries.iter().map(|entry| entry.leaf).collect();
        let seal = Seal {
            lease: self.lease,
            log,
            key: self.key,
            leaves: &leaves,
            position: &position,
            sealed_at: now,
        };
        let tx = db.write().await?;
        let Some(next) = seal.commit(&tx).await? else {
            return Ok(None);
        };
        let indexes = i64::try_from(log.head.size).map_err(|_| StoreError::Corrupt("audit_logs"))?..;
        let mut rows = indexes.zip(entries).map(|(leaf_index, entry)| leaf::ActiveModel {
            log_id: Set(log.log_id),
            leaf_index: Set(leaf_index),
            source: Set(entry.row.source().to_owned()),
            number: Set(entry.row.number()),
        });
        for _ in entries.chunks(ROWS_PER_INSERT) {
            let rows: Vec<_> = rows.by_ref().take(ROWS_PER_INSERT).collect();
            let count = rows.len();
            let insert = leaf::Entity::insert_many(rows);
            all_written("audit_leaves", insert.exec_without_returning(&tx).await?, count)?;
        }
        for (writer, number) in sealed.into_iter().filter(|(source, _)| *source != OWN) {
            let update = writer::Entity::update_many()
                .col_expr(writer::Column::Sealed, Expr::value(number))
                .filter(writer::Column::Writer.eq(writer));
            all_written("audit_writers", update.exec(&tx).await?.rows_affected, 1)?;
        }
        Ok(Some((tx, next)))
    }
}

/// Returns the number of the last event with a row of its own that is sealed.
pub(super) fn last_own(log: &Log) -> Result<i64, StoreError> {
    let number = log.position.parse();
    number.map_err(|_| StoreError::Corrupt("audit_logs"))
}

/// Returns the uses of grants that rows record.
fn token_uses(entries: &[Entry]) -> Result<Vec<TokenUse>, StoreError> {
    let mut uses = Vec::new();
    for entry in entries {
        for event in entry.row.events()? {
            uses.extend(token_use(event)?);
        }
    }
    Ok(uses)
}

/// Rows that can be sealed, and the fault that comes after them.
#[derive(Default)]
struct Unsealed {
    entries: Vec<Entry>,
    /// How many events the entries hold.
    events: u64,
    fault: Option<SealError>,
}

impl Unsealed {
    /// Reads the rows of each source that come after the sealed ones, a bounded number.
    async fn read(conn: &impl Keyed, keyring: &Keyring, log: &Log) -> Result<Self, SealError> {
        let mut unsealed = Self::default();
        unsealed.events(conn, keyring, last_own(log)?).await?;
        for writer in unsealed_writers(conn).await? {
            unsealed.groups(conn, keyring, &writer).await?;
        }
        Ok(unsealed)
    }

    /// Adds the events after a number that have rows of their own.
    async fn events(&mut self, conn: &impl Keyed, keyring: &Keyring, after: i64) -> Result<(), SealError> {
        // Before the rows: they reach it, or one of them is gone.
        let (counted, lost) = match change::last_event_number(conn).await {
            Ok(counted) if counted < after => (after, Some(StoreError::Altered("change_counter"))),
            Ok(counted) => (counted, None),
            // Somebody has edited the counter. What it has counted before is sealed all the same.
            Err(error @ (StoreError::Altered(_) | StoreError::Corrupt(_))) => (after, Some(error)),
            Err(error) => return Err(error.into()),
        };
        let rows = rows_after(conn, OWN, after, ROWS).await?;
        let last = rows.last().map_or(after, Row::number);
        let is_cut = last < counted && (rows.len() as u64) < ROWS;
        self.add(keyring, OWN, after, rows);
        if is_cut {
            self.fault.get_or_insert(SealError::Missing {
                source_id: OWN.to_owned(),
                number: last + 1,
            });
        }
        if let Some(error) = lost {
            self.fault.get_or_insert(error.into());
        }
        Ok(())
    }

    /// Adds the groups of a writer that are not sealed.
    async fn groups(
        &mut self,
        conn: &impl ConnectionTrait,
        keyring: &Keyring,
        writer: &writer::Model,
    ) -> Result<(), SealError> {
        let rows = rows_after(conn, &writer.writer, writer.sealed, ROWS).await?;
        self.add(keyring, &writer.writer, writer.sealed, rows);
        Ok(())
    }

    /// Counts the events of one source. Returns the number of the last row if more may follow.
    fn count(self, events: &mut u64) -> Result<Option<i64>, SealError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        *events += self.events;
        let is_full = self.entries.len() as u64 == ROWS;
        Ok(self
            .entries
            .last()
            .filter(|_| is_full)
            .map(|last| last.row.number()))
    }

    /// Adds rows of a source, up to the first that is not the next one, or that no holder of the keys has written.
    fn add(&mut self, keyring: &Keyring, source: &str, after: i64, rows: Vec<Row>) {
        // A source whose clock was set back keeps its order.
        let mut last = String::new();
        for (expected, row) in (after + 1..).zip(rows) {
            let (source_id, number) = (source.to_owned(), row.number());
            let fault = match check::check(keyring, &row) {
                _ if number != expected => SealError::Missing {
                    source_id,
                    number: expected,
                },
                Err(Altered(what)) => SealError::Altered {
                    source_id,
                    number,
                    event_id: row.event_id().to_owned(),
                    what,
                },
                Ok(contents) => {
                    last = Ord::max(last, row.event_id().to_owned());
                    self.events += contents.events;
                    self.entries.push(Entry {
                        row,
                        leaf: contents.leaf,
                        last_event_id: last.clone(),
                    });
                    continue;
                }
            };
            self.fault.get_or_insert(fault);
            return;
        }
    }
}

/// Checks the rows of each source that come after the sealed ones, a bounded number: a fault stops its source there.
///
/// # Errors
/// [`SealError`].
pub async fn check_unsealed(conn: &impl Keyed, keyring: &Keyring, log: &Log) -> Result<(), SealError> {
    let unsealed = Unsealed::read(conn, keyring, log).await?;
    unsealed.fault.map_or(Ok(()), Err)
}

/// Checks the rows that are not sealed yet, and returns how many events they hold.
///
/// # Errors
/// [`SealError`].
pub(super) async fn unsealed(conn: &impl Keyed, keyring: &Keyring, log: &Log) -> Result<u64, SealError> {
    let (mut events, mut after) = (0, last_own(log)?);
    loop {
        let mut unsealed = Unsealed::default();
        unsealed.events(conn, keyring, after).await?;
        match unsealed.count(&mut events)? {
            Some(last) => after = last,
            None => break,
        }
    }
    for mut writer in unsealed_writers(conn).await? {
        loop {
            let mut unsealed = Unsealed::default();
            unsealed.groups(conn, keyring, &writer).await?;
            match unsealed.count(&mut events)? {
                Some(last) => writer.sealed = last,
                None => break,
            }
        }
    }
    Ok(events)
}

/// Returns the writers that have written more than is sealed.
pub(super) async fn unsealed_writers(conn: &impl ConnectionTrait) -> Result<Vec<writer::Model>, StoreError> {
    let of_group = |column| Expr::col((group::Entity, column));
    let later = group::Entity::find()
        .select_only()
        .expr(Expr::value(1))
        .filter(of_group(group::Column::Writer).equals((writer::Entity, writer::Column::Writer)))
        .filter(of_group(group::Column::Number).gt(Expr::col((writer::Entity, writer::Column::Sealed))))
        .into_query();
    let writers = writer::Entity::find()
        .filter(Expr::exists(later))
        .order_by_asc(writer::Column::Writer);
    Ok(writers.all(conn).await?)
}

#[cfg(test)]
#[path = "../tests/audit/seal.rs"]
pub(super) mod tests;
