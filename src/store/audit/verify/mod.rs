//! Verification: whether the events are those that were sealed, and the log is the one that was signed.
//!
//! A verification goes on after a fault, with the hash that the log has. So the rest of the log is checked against its signed
//! head all the same, and what two persons have accepted is compared with all that is wrong now.

use std::{collections::HashMap, fmt};

use super::{
    decode_deleted,
    resume::stepped::{Accepted, AcceptedFault, Stepped, decode_resume},
};
use crate::{
    keys::Keyring,
    store::{
        Keyed, StoreError, change,
        error::lasting,
        log::{self, Log, Logs},
    },
    tlog::{Checkpoint, Origin, VerifierKey},
};

mod ends;
mod findings;
mod one_log;
mod page;
mod renewals;
pub(super) mod row_report;
pub(super) mod row_versions;
mod strays;

use findings::Findings;
pub(super) use findings::Untrusted;
use one_log::Verification;
use renewals::Renewals;

/// How often a log is verified while retention removes leaves of it.
const ATTEMPTS: usize = 5;

/// What a verification has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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

impl Fault {
    fn new(event_id: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            event_id: event_id.into(),
            what: what.into(),
        }
    }
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
    /// Whether all that is wrong is what two persons have accepted, in a resume that a later log holds.
    pub is_accepted: bool,
}

/// What a verification of several logs has found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// The logs, the oldest first.
    pub logs: Vec<LogReport>,
    /// What is wrong beside them: what is in no log, and rows of logs that no holder of the keys has started.
    pub beside: Option<Fault>,
    /// The logs of the database whose keys are not given.
    pub unverified: Vec<Origin>,
    /// The events that nothing is taken from.
    pub(super) untrusted: Untrusted,
    /// The refresh tokens that the events hand out.
    renewals: Renewals,
    /// What a resume would have to accept.
    pub(super) unaccepted: Vec<Unaccepted>,
}

impl Verified {
    /// Returns what is wrong and was not accepted, with the origin of the log; empty for what is in none.
    pub fn faults(&self) -> impl Iterator<Item = (&str, &Fault)> {
        let of_logs = self.logs.iter().filter(|log| !log.is_accepted);
        let of_logs = of_logs.filter_map(|log| Some((log.origin.as_str(), log.report.fault.as_ref()?)));
        of_logs.chain(self.beside.as_ref().map(|fault| ("", fault)))
    }
}

/// What is wrong with sealed events and was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unaccepted {
    /// The origin of the log; empty for what is in no log.
    pub(super) log: String,
    /// The first fault.
    pub(super) fault: String,
    /// The digest of the faults, which stays the same while the log grows.
    pub(super) pin: String,
    /// The digests of the faults and of the log as it is: of what shows without keys, and of all if that is more.
    pub(super) extents: Vec<String>,
}

/// Verifies several logs of a record, the oldest first, each by its key from outside the database: every event that is sealed, in
/// order, the signed head, and older checkpoints that somebody has kept. `progress` is called with the number of leaves checked so
/// far and of all. Of the open log it checks with a keyring the events that are not sealed yet, too. Without a keyring, a log that is
/// not given is reported as unverified. With one, it is a fault unless a holder of the keys has started it.
///
/// Deletions and resumes of an older log are recorded in later logs. Without these they look like faults.
///
/// # Errors
/// [`StoreError`] if the database is unavailable. A fault is no error.
pub async fn verify_all(
    conn: &impl Keyed,
    logs: &[(Log, VerifierKey)],
    kept: &[Checkpoint],
    keyring: Option<&Keyring>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified, StoreError> {
    // Before the logs: one may be started meanwhile. An edited counter is a fault of what is not sealed.
    let counted = lasting(change::counted_logs(conn).await)?.ok();
    let all = log::all(conn).await?;
    // Whoever has no key may add a log: that makes no other one end.
    let mut newest = all.logs.iter().rev();
    let newest = newest.find(|log| keyring.is_none_or(|keyring| log.key(keyring).is_ok()));
    let open = newest.map(|log| log.log_id);
    let (mut facts, mut found) = (RecordedFacts::default(), Vec::new());
    let mut renewals = Renewals::default();
    for (log, key) in logs.iter().rev() {
        let is_of = |checkpoint: &&Checkpoint| checkpoint.origin == log.origin;
        let kept: Vec<_> = kept.iter().filter(is_of).cloned().collect();
        let is_open = open.is_none_or(|open| open == log.log_id);
        let mut attempts = 0;
        found.push(loop {
            let mut verification = Verification::new(conn, log.clone(), is_open, &mut facts);
            verification.run(key, &kept, keyring, &mut progress).await?;
            attempts += 1;
            if attempts == ATTEMPTS || !verification.was_overtaken().await? {
                break verification.finish(&mut renewals);
            }
        });
    }
    // All resumes are known now.
    let has_open = logs
        .last()
        .is_some_and(|(log, _)| open.is_none_or(|open| open == log.log_id));
    let mut rest = Findings::none();
    if has_open && let Err(error) = lasting(strays::find(conn, &facts, &mut rest).await)? {
        rest.add_whole(format!("whether the log lacks events can't be told: {error}"));
    }
    let others = all.logs.iter();
    let others = others.filter(|log| logs.iter().all(|(given, _)| given.log_id != log.log_id));
    let mut unverified = Vec::new();
    match keyring {
        Some(keyring) => {
            for log in others.filter(|log| !log.is_authentic(keyring)) {
                rest.add_whole(format!("no key of the service is that of the log {}", log.origin));
            }
        }
        None => unverified.extend(others.map(|log| log.origin.clone())),
    }
    for log_id in &all.unreadable {
        rest.add_whole(format!("the row {log_id} of audit_logs can't be read"));
    }
    if let Some(counted) = counted {
        gone(&all, counted.newest, &mut rest);
    }
    facts.untrusted.sort();
    if keyring.is_none() {
        facts.untrusted.leave_out_after(facts.sealed_through);
    }
    Ok(Verified {
        unverified,
        renewals,
        ..summary(found, &rest, facts)
    })
}

/// Looks for logs that were started and that the database does not have. Their numbers have no gaps.
fn gone(all: &Logs, counted: i64, findings: &mut Findings) {
    let mut ids: Vec<_> = all.logs.iter().map(|log| log.log_id).collect();
    ids.extend(&all.unreadable);
    ids.retain(|log_id| (1..=counted).contains(log_id));
    ids.push(counted.saturating_add(1));
    ids.sort_unstable();
    let mut expected = 1;
    for log_id in ids {
        match log_id - expected {
            ..=0 => {}
            1 => findings.add_whole(format!("log {expected} is gone")),
            _ => findings.add_whole(format!("logs {expected} to {} are gone", log_id - 1)),
        }
        expected = log_id.saturating_add(1);
    }
}

/// Says of each log whether what is wrong was accepted.
fn summary(found: Vec<LogOutcome>, rest: &Findings, facts: RecordedFacts) -> Verified {
    let (mut logs, mut unaccepted) = (Vec::new(), Vec::new());
    for log in found.into_iter().rev() {
        let origin = log.origin.as_str();
        let is_accepted = log.extents.last().is_some_and(|all| facts.accepts(origin, all));
        if let Some(fault) = log.sealed.as_ref().filter(|_| !is_accepted) {
            unaccepted.push(Unaccepted {
                log: origin.to_owned(),
                fault: fault.to_string(),
                pin: log.pin,
                extents: log.extents,
            });
        }
        let mut report = log.report;
        let is_accepted = is_accepted && log.sealed.is_some() && log.outside.is_none();
        // Accepted faults are reported only if there is no other fault.
        report.fault = match is_accepted {
            true => log.sealed,
            false => unaccepted
                .last()
                .filter(|last| last.log == origin)
                .and(log.sealed)
                .or(log.outside),
        };
        logs.push(LogReport {
            origin: log.origin,
            report,
            is_accepted,
        });
    }
    let (pin, mut beside) = (rest.pin(), None);
    if let Some(fault) = rest.first().filter(|_| !facts.accepts("", &pin)) {
        unaccepted.push(Unaccepted {
            log: String::new(),
            fault: fault.to_string(),
            extents: vec![pin.clone()],
            pin,
        });
        beside = Some(fault.clone());
    }
    Verified {
        logs,
        beside,
        untrusted: facts.untrusted,
        unaccepted,
        ..Verified::default()
    }
}

/// What was found in a log.
struct LogOutcome {
    origin: Origin,
    report: Report,
    /// What is wrong with what is sealed, the first of it. Two persons may accept it.
    sealed: Option<Fault>,
    /// What nobody can accept in this way: what is not sealed yet, and a checkpoint that was kept.
    outside: Option<Fault>,
    pin: String,
    /// Those of [`Unaccepted`].
    extents: Vec<String>,
}

/// What events say about the record itself.
#[derive(Default)]
struct RecordedFacts {
    /// The first leaf of each log that retention has kept.
    retained_from: HashMap<i64, u64>,
    /// The oldest log that retention has begun with: all before it are removed.
    begun_with: i64,
    /// What resumes have accepted.
    accepted: Vec<Accepted>,
    untrusted: Untrusted,
    /// The number of the last event with a row of its own that a signed head holds.
    sealed_through: i64,
    /// Whether a leaf names another row than its own.
    has_wrong_places: bool,
}

impl RecordedFacts {
    /// Takes what an event says, if it is about the record.
    fn add_event(&mut self, number: i64, encoded: &[u8]) {
        if let Some((log_id, through)) = decode_deleted(encoded) {
            let first = self.retained_from.entry(log_id).or_default();
            *first = (*first).max(through.saturating_add(1));
        }
        if let Some(accepted) = decode_resume(number, encoded) {
            for stepped in accepted.rows.iter().filter(|stepped| stepped.writer.is_empty()) {
                self.untrusted.add(stepped.from, stepped.through);
            }
            self.accepted.push(accepted);
        }
    }

    /// Returns the rows that resumes have stepped over.
    fn stepped(&self) -> impl Iterator<Item = &Stepped> {
        self.accepted.iter().flat_map(|accepted| &accepted.rows)
    }

    /// Returns whether the newest resume that has accepted something of a log has accepted just this.
    fn accepts(&self, origin: &str, extent: &str) -> bool {
        let is_of_log = |accepted: &&Accepted| accepted.faults.iter().any(|fault| fault.log == origin);
        let is_this = |fault: &AcceptedFault| fault.log == origin && fault.extent == extent;
        let of_log = self.accepted.iter().filter(is_of_log);
        let newest = of_log.max_by_key(|accepted| accepted.number);
        newest.is_some_and(|accepted| accepted.faults.iter().any(is_this))
    }
}

fn whole(what: impl Into<String>) -> Fault {
    Fault::new("", what)
}

#[cfg(test)]
#[path = "../../tests/audit/verify.rs"]
mod tests;
