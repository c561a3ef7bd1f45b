//! Verification: whether the events are those that were sealed, and the log is the one that was signed.

use std::{
    cmp::{max, min},
    collections::HashMap,
    time::Duration,
};

use sea_orm::{
    Condition, ExprTrait, QueryOrder, QuerySelect, QueryTrait, entity::prelude::*, sea_query::Expr,
};
use tokio::time::sleep;

use super::{
    check, decode_deleted, group,
    leaf_rows::{Row, rows},
    row,
    seal::{OWN, SealError, leaf, unsealed},
};
use crate::{
    keys::Keyring,
    store::{
        Keyed, StoreError,
        log::{self, Log, Recomputed, SignedHead},
    },
    tlog::{Checkpoint, Hash, TreeHead, VerifierKey, event_leaf, group_leaf},
};

/// How many leaves are read at a time.
const LEAVES: u64 = 1_000;
/// How often the newest head is read until it is signed.
const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// What a verification has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many events were checked.
    pub events: u64,
    /// How many leaves retention has removed, from the first one on.
    pub removed_leaves: u64,
    /// The first fault; `None` if everything is as it was sealed.
    pub fault: Option<Fault>,
}

/// Why a record is not as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The event concerned, or the newest of its group; empty if it is missing or concerns the log as a whole.
    pub event_id: String,
    /// What is wrong, for people.
    pub what: String,
}

/// Verifies a log by a key from outside the database: every event that is sealed, in order, the signed head, and older
/// checkpoints that somebody has kept. `progress` is called with the number of leaves checked so far and of all.
///
/// With a keyring it checks the events that are not sealed yet, too.
///
/// # Errors
/// [`StoreError`] if the database is unavailable. A fault is no error.
pub async fn verify(
    conn: &impl Keyed,
    log: &Log,
    key: &VerifierKey,
    kept: &[Checkpoint],
    keyring: Option<&Keyring>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Report, StoreError> {
    let mut verification = Verification {
        conn,
        log: log.clone(),
        report: Report {
            events: 0,
            removed_leaves: 0,
            fault: None,
        },
        last: HashMap::new(),
        retained_from: None,
    };
    let result = verification.run(key, kept, keyring, &mut progress).await;
    match result {
        Ok(()) => {}
        Err(Stop::Fault(fault)) => verification.report.fault = Some(fault),
        Err(Stop::Store(error)) if error.is_temporary() => return Err(error),
        // Hashes that do not fit together, and values of another type, are a fault of the record, not of this check.
        Err(Stop::Store(error)) => {
            verification.report.fault = Some(Fault {
                event_id: String::new(),
                what: format!("it can't be read: {error}"),
            });
        }
    }
    Ok(verification.report)
}

enum Stop {
    Store(StoreError),
    Fault(Fault),
}

impl<E: Into<StoreError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

fn fault(event_id: &str, what: impl Into<String>) -> Stop {
    Stop::Fault(Fault {
        event_id: event_id.to_owned(),
        what: what.into(),
    })
}

struct Verification<'a, C> {
    conn: &'a C,
    log: Log,
    report: Report,
    /// The number of the last leaf of each source.
    last: HashMap<String, i64>,
    /// The first leaf that retention has kept, by the events that say so.
    retained_from: Option<u64>,
}

impl<C: Keyed> Verification<'_, C> {
    async fn run(
        &mut self,
        key: &VerifierKey,
        kept: &[Checkpoint],
        keyring: Option<&Keyring>,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<(), Stop> {
        let log_id = self.log.log_id;
        let signed = self.signed_head().await?;
        if let Some(keyring) = keyring {
            let key = self.log.key(keyring).map_err(StoreError::from)?;
            self.log.check(key)?;
        }
        let Some(signed) = signed else {
            return match kept {
                [] => self.unsealed(keyring).await,
                _ => Err(fault("", "the log is shorter than a checkpoint: it is empty")),
            };
        };
        let head = Checkpoint::open(&signed.checkpoint, key)
            .map_err(|error| fault("", format!("the signed head: {error}")))?
            .head;
        if head != signed.head {
            return Err(fault("", "the newest checkpoint is that of another head"));
        }
        let first = self.first_leaf().await?;
        self.report.removed_leaves = first;
        let mut recomputed = Recomputed::after(self.conn, log_id, first).await?;
        let mut older: Vec<_> = kept.iter().collect();
        older.sort_by_key(|checkpoint| checkpoint.head.size);
        let mut older = older.into_iter().peekable();
        let mut done = first;
        while done < head.size {
            let mut next = min(head.size, done + LEAVES);
            if let Some(checkpoint) = older.peek() {
                next = min(next, max(checkpoint.head.size, done));
            }
            if next > done {
                let leaves = self.leaves(done, next).await?;
                recomputed.append(&leaves);
                done = next;
                progress(done, head.size);
            }
            while let Some(checkpoint) = older.next_if(|checkpoint| checkpoint.head.size <= done) {
                self.check_kept(checkpoint, &recomputed, first).await?;
            }
        }
        for checkpoint in older {
            self.check_kept(checkpoint, &recomputed, first).await?;
        }
        if recomputed.head() != head {
            return Err(fault("", "the signed head is not that of the events"));
        }
        if first > 0 && self.retained_from != Some(first) {
            return Err(fault(
                "",
                format!("the first {first} leaves are missing, and no event says why"),
            ));
        }
        self.check_ends(first).await?;
        self.strays().await?;
        self.unsealed(keyring).await
    }

    /// Returns the signed head of the whole log; `None` if the log is empty. A head that was committed a moment ago is signed
    /// soon.
    async fn signed_head(&mut self) -> Result<Option<SignedHead>, Stop> {
        for _ in 0..ATTEMPTS {
            let signed = log::latest(self.conn, self.log.log_id).await?;
            let log = log::find(self.conn, &self.log.origin).await?;
            self.log = log.ok_or_else(|| fault("", "the log is gone"))?;
            match signed {
                None if self.log.head == TreeHead::EMPTY => return Ok(None),
                Some(signed) if signed.head == self.log.head => return Ok(Some(signed)),
                _ => sleep(PAUSE).await,
            }
        }
        Err(fault("", "the newest head of the log is not signed"))
    }

    /// Returns the first leaf that is there: retention removes leaves from the first one on.
    async fn first_leaf(&self) -> Result<u64, Stop> {
        let first = leaf::Entity::find()
            .filter(leaf::Column::LogId.eq(self.log.log_id))
            .order_by_asc(leaf::Column::LeafIndex)
            .one(self.conn)
            .await?;
        let first = first.map_or(0, |leaf| leaf.leaf_index);
        u64::try_from(first).map_err(|_| fault("", "a leaf has a negative index"))
    }

    /// Checks a checkpoint that was kept: the log must begin with it.
    async fn check_kept(&self, kept: &Checkpoint, recomputed: &Recomputed, first: u64) -> Result<(), Stop> {
        let is_other = match kept.head.size {
            size if size == recomputed.head().size => recomputed.head() != kept.head,
            // Its leaves were removed since; their hashes are there.
            size if size < first => log::root(self.conn, self.log.log_id, size).await? != kept.head.root,
            _ => {
                return Err(fault(
                    "",
                    format!(
                        "the log is shorter than the checkpoint of {} leaves",
                        kept.head.size
                    ),
                ));
            }
        };
        match is_other {
            true => Err(fault(
                "",
                format!(
                    "the log does not begin with the checkpoint of {} leaves",
                    kept.head.size
                ),
            )),
            false => Ok(()),
        }
    }

    /// Returns the hashes of some leaves, from the rows that they stand for.
    async fn leaves(&mut self, from: u64, to: u64) -> Result<Vec<Hash>, Stop> {
        let stored = log::leaves(self.conn, self.log.log_id, from..to).await?;
        let index = |number: u64| i64::try_from(number).map_err(|_| StoreError::Corrupt("audit_leaves"));
        let places = leaf::Entity::find()
            .filter(leaf::Column::LogId.eq(self.log.log_id))
            .filter(leaf::Column::LeafIndex.gte(index(from)?))
            .filter(leaf::Column::LeafIndex.lt(index(to)?))
            .order_by_asc(leaf::Column::LeafIndex)
            .all(self.conn)
            .await?;
        let mut rows = rows(self.conn, &places).await?;
        let mut hashes = Vec::with_capacity(stored.len());
        let mut places = places.into_iter();
        for (expected, stored) in (from..to).zip(stored) {
            let place = places
                .next()
                .filter(|place| place.leaf_index == expected.cast_signed());
            let Some(place) = place else {
                return Err(fault("", format!("leaf {expected} names no row")));
            };
            let last = self.last.insert(place.source.clone(), place.number);
            if last.is_some_and(|last| place.number != last + 1) {
                let what = format!("leaf {expected} does not continue `{}`", place.source);
                return Err(fault("", what));
            }
            let Some(row) = rows.remove(&(place.source.clone(), place.number)) else {
                let what = format!("number {} of `{}` is missing", place.number, place.source);
                return Err(fault("", what));
            };
            let (event_id, checked) = match &row {
                Row::Own(row) => (
                    &row.event_id,
                    check::check_columns(row).map(|()| (event_leaf(&row.record), 1)),
                ),
                Row::Group(row) => (
                    &row.last_event_id,
                    check::check_contents(row).map(|head| (group_leaf(&head), head.size)),
                ),
            };
            let (hash, events) = checked.map_err(|altered| fault(event_id, altered.0))?;
            if hash != stored {
                return Err(fault(event_id, "it differs from what was sealed"));
            }
            if let Row::Own(row) = &row
                && let Some(through) = decode_deleted(&row.record, self.log.log_id)
            {
                self.retained_from = max(self.retained_from, Some(through + 1));
            }
            self.report.events += events;
            hashes.push(hash);
        }
        Ok(hashes)
    }

    /// Checks that what counts as sealed ends where the leaves end, so that nobody has moved the sealer over events.
    async fn check_ends(&self, first: u64) -> Result<(), Stop> {
        let own = self.last.get(OWN);
        let position: i64 = self
            .log
            .position
            .parse()
            .map_err(|_| StoreError::Corrupt("audit_logs"))?;
        let is_first_log = self.log.log_id == 1 && first == 0;
        if own.map_or(is_first_log && position != 0, |last| *last != position) {
            return Err(fault("", "the log's position is not that of its last event"));
        }
        for writer in group::writer::Entity::find().all(self.conn).await? {
            let last = self.last.get(&writer.writer);
            if last.map_or(is_first_log && writer.sealed != 0, |last| *last != writer.sealed) {
                let what = format!(
                    "what is sealed of the writer {} is not what the log has",
                    writer.writer
                );
                return Err(fault("", what));
            }
        }
        Ok(())
    }

    /// Looks for rows that count as sealed and that no leaf names, and for leaves that no log has.
    async fn strays(&self) -> Result<(), Stop> {
        let size = i64::try_from(self.log.head.size).map_err(|_| StoreError::Corrupt("audit_logs"))?;
        let outside = Condition::any()
            .add(leaf::Column::LeafIndex.lt(0))
            .add(leaf::Column::LeafIndex.gte(size));
        let outside = Condition::all()
            .add(leaf::Column::LogId.eq(self.log.log_id))
            .add(outside);
        let of_no_log = leaf::Column::LogId.not_in_subquery(log::ids());
        let stray = leaf::Entity::find().filter(Condition::any().add(outside).add(of_no_log));
        if let Some(stray) = stray.one(self.conn).await? {
            return Err(fault("", format!("leaf {} is in no log", stray.leaf_index)));
        }
        self.stray_rows().await
    }

    async fn stray_rows(&self) -> Result<(), Stop> {
        let leaves = || leaf::Entity::find().select_only().expr(Expr::value(1));
        let own = |column| Expr::col((row::Entity, column));
        let named = leaves()
            .filter(leaf::Column::Source.eq(OWN))
            .filter(own(row::Column::Number).equals((leaf::Entity, leaf::Column::Number)))
            .into_query();
        let position: i64 = self
            .log
            .position
            .parse()
            .map_err(|_| StoreError::Corrupt("audit_logs"))?;
        let stray = row::Entity::find()
            .filter(row::Column::Number.lte(position))
            .filter(Expr::exists(named).not())
            .one(self.conn)
            .await?;
        if let Some(stray) = stray {
            return Err(fault(&stray.event_id, "it was never sealed where it stands"));
        }
        let of_group = |column| Expr::col((group::Entity, column));
        let named = leaves()
            .filter(of_group(group::Column::Writer).equals((leaf::Entity, leaf::Column::Source)))
            .filter(of_group(group::Column::Number).equals((leaf::Entity, leaf::Column::Number)))
            .into_query();
        let waits = group::writer::Entity::find()
            .select_only()
            .expr(Expr::value(1))
            .filter(
                of_group(group::Column::Writer)
                    .equals((group::writer::Entity, group::writer::Column::Writer)),
            )
            .filter(
                of_group(group::Column::Number)
                    .gt(Expr::col((group::writer::Entity, group::writer::Column::Sealed))),
            )
            .into_query();
        let stray = group::Entity::find()
            .filter(Expr::exists(named).not())
            .filter(Expr::exists(waits).not())
            .one(self.conn)
            .await?;
        match stray {
            Some(stray) => Err(fault(
                &stray.last_event_id,
                "its group was never sealed where it stands",
            )),
            None => Ok(()),
        }
    }

    /// Checks what is not sealed yet, as the sealer will.
    async fn unsealed(&mut self, keyring: Option<&Keyring>) -> Result<(), Stop> {
        let Some(keyring) = keyring else { return Ok(()) };
        match unsealed(self.conn, keyring, &self.log).await {
            Ok(events) => self.report.events += events,
            Err(SealError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(fault("", error.to_string())),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../tests/audit/verify.rs"]
mod tests;
