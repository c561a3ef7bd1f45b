//! Verification: whether the events are those that were sealed, and the log is the one that was signed.

use std::{
    cmp::{max, min},
    collections::HashMap,
    fmt,
    time::Duration,
};

use sea_orm::{QueryOrder, entity::prelude::*};
use tokio::time::sleep;

use super::{
    check, decode_deleted,
    leaf_rows::{Row, rows},
    resume::stepped::{Accepted, RESUME, decode_resume},
    retention::DELETE,
    seal::{SealError, leaf, unsealed},
};
use crate::{
    keys::Keyring,
    store::{
        Keyed, StoreError,
        log::{self, Log, Recomputed, SignedHead},
    },
    tlog::{Checkpoint, Hash, Origin, TreeHead, VerifierKey, event_leaf, group_leaf},
};

mod ends;
pub(super) mod row_versions;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The event concerned, or the newest of its group; empty if it is missing or concerns the log as a whole.
    pub event_id: String,
    /// What is wrong, for people.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.event_id.as_str() {
            "" => f.write_str(&self.what),
            event_id => write!(f, "event {event_id}: {}", self.what),
        }
    }
}

/// What a verification has found in one of several logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The log.
    pub origin: Origin,
    /// What was found.
    pub report: Report,
    /// Whether its fault is one that two persons have accepted, in a resume that a later log holds.
    pub is_accepted: bool,
}

/// Verifies several logs of a record, the oldest first, each by its key from outside. Of the open log it checks with a keyring
/// the events that are not sealed yet, too.
///
/// What retention removed of an older log, and what a resume has stepped over, stands in events of later logs: without those
/// logs it is a fault.
///
/// # Errors
/// [`StoreError`] if the database is unavailable. A fault is no error.
pub async fn verify_all(
    conn: &impl Keyed,
    logs: &[(Log, VerifierKey)],
    kept: &[Checkpoint],
    keyring: Option<&Keyring>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Vec<LogReport>, StoreError> {
    let open = log::current(conn).await?.map(|log| log.log_id);
    let (mut told, mut reports) = (Told::default(), Vec::new());
    for (log, key) in logs.iter().rev() {
        let is_of = |checkpoint: &&Checkpoint| checkpoint.origin == log.origin;
        let kept: Vec<_> = kept.iter().filter(is_of).cloned().collect();
        let mut verification = Verification {
            conn,
            log: log.clone(),
            is_open: open.is_none_or(|open| open == log.log_id),
            report: Report {
                events: 0,
                removed_leaves: 0,
                fault: None,
            },
            first: HashMap::new(),
            last: HashMap::new(),
            told: &mut told,
        };
        let result = verification.run(key, &kept, keyring, &mut progress).await;
        let mut report = verification.report;
        report.fault = fault_of(result)?;
        reports.push(LogReport {
            origin: log.origin.clone(),
            report,
            is_accepted: false,
        });
    }
    // All resumes are known now.
    let has_open = logs
        .last()
        .is_some_and(|(log, _)| open.is_none_or(|open| open == log.log_id));
    if let Some(newest) = reports
        .first_mut()
        .filter(|newest| has_open && newest.report.fault.is_none())
    {
        newest.report.fault = fault_of(ends::stray_groups(conn, &told.accepted).await)?;
    }
    for log in &mut reports {
        let fault = log.report.fault.as_ref().map(Fault::to_string);
        let is_of = |accepted: &Accepted| accepted.old_origin == log.origin.as_str();
        let mut accepted = told.accepted.iter().filter(|accepted| is_of(accepted));
        log.is_accepted = accepted.any(|accepted| Some(&accepted.fault) == fault.as_ref());
    }
    reports.reverse();
    Ok(reports)
}

/// Returns the fault that a check has found.
fn fault_of(result: Result<(), Stop>) -> Result<Option<Fault>, StoreError> {
    match result {
        Ok(()) => Ok(None),
        Err(Stop::Fault(fault)) => Ok(Some(fault)),
        Err(Stop::Store(error)) if error.is_temporary() => Err(error),
        // Hashes that do not fit together, and values of another type, are a fault of the record, not of this check.
        Err(Stop::Store(error)) => Ok(Some(Fault {
            event_id: String::new(),
            what: format!("it can't be read: {error}"),
        })),
    }
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
    let logs = [(log.clone(), key.clone())];
    let mut reports = verify_all(conn, &logs, kept, keyring, &mut progress).await?;
    let report = reports.pop().ok_or(StoreError::Corrupt("audit_logs"))?;
    Ok(report.report)
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
    /// Whether the sealer extends it.
    is_open: bool,
    report: Report,
    /// The number of the first leaf of each source.
    first: HashMap<String, i64>,
    /// The number of the last leaf of each source.
    last: HashMap<String, i64>,
    /// By the events of this log and later ones.
    told: &'a mut Told,
}

/// What events say about the record itself.
#[derive(Default)]
struct Told {
    /// The first leaf of each log that retention has kept.
    retained_from: HashMap<i64, u64>,
    /// What resumes have accepted.
    accepted: Vec<Accepted>,
}

impl Told {
    fn removed(&mut self, encoded: &[u8]) {
        if let Some((log_id, through)) = decode_deleted(encoded) {
            let first = self.retained_from.entry(log_id).or_default();
            *first = max(*first, through.saturating_add(1));
        }
    }
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
        self.read_retention(keyring).await?;
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
        if first > 0 && self.told.retained_from.get(&log_id) != Some(&first) {
            return Err(fault(
                "",
                format!("the first {first} leaves are missing, and no event says why"),
            ));
        }
        for _ in 0..ATTEMPTS {
            let found = match self.check_rest(first, keyring).await {
                Err(Stop::Fault(found)) => found,
                other => return other,
            };
            // A sealer that has gone on meanwhile makes the ends differ: they are compared again, with what it has sealed.
            let signed = self.signed_head().await?.filter(|_| self.is_open);
            let Some(signed) = signed.filter(|signed| signed.head.size > done) else {
                return Err(Stop::Fault(found));
            };
            let leaves = self.leaves(done, signed.head.size).await?;
            recomputed.append(&leaves);
            done = signed.head.size;
            if recomputed.head() != signed.head
                || Checkpoint::open(&signed.checkpoint, key).map(|opened| opened.head) != Ok(signed.head)
            {
                return Err(fault("", "the signed head is not that of the events"));
            }
        }
        self.check_rest(first, keyring).await
    }

    /// Checks what the leaves do not show: that they are the whole log, that nothing else counts as sealed, and the rows that wait
    /// to be sealed.
    async fn check_rest(&mut self, first: u64, keyring: Option<&Keyring>) -> Result<(), Stop> {
        self.check_begins(first).await?;
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
        match first {
            Some(leaf) => {
                u64::try_from(leaf.leaf_index).map_err(|_| fault("", "a leaf has a negative index"))
            }
            // Retention may have removed them all.
            None => Ok(self
                .told
                .retained_from
                .get(&self.log.log_id)
                .copied()
                .unwrap_or(0)),
        }
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
            self.first.entry(place.source.clone()).or_insert(place.number);
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
            match &row {
                Row::Own(row) if row.action == DELETE => self.told.removed(&row.record),
                Row::Own(row) if row.action == RESUME => {
                    self.told.accepted.extend(decode_resume(&row.record))
                }
                _ => {}
            }
            self.report.events += events;
            hashes.push(hash);
        }
        Ok(hashes)
    }

    /// Checks what is not sealed yet, as the sealer will.
    async fn unsealed(&mut self, keyring: Option<&Keyring>) -> Result<(), Stop> {
        let Some(keyring) = keyring.filter(|_| self.is_open) else {
            return Ok(());
        };
        match unsealed(self.conn, keyring, &self.log).await {
            Ok(events) => self.report.events += events,
            Err(SealError::Store(error)) => return Err(error.into()),
            Err(error) => return Err(fault("", error.to_string())),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/audit/verify.rs"]
mod tests;
