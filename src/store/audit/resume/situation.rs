//! What is wrong with a record, and from where on a new log would go on.

use sea_orm::entity::prelude::*;

use super::{
    super::{
        check::check_event_mac,
        extent::Extent,
        leaf_rows::{OWN, last_leaf, leaf},
        open_log::sign_last,
        row,
        verify::{
            Unaccepted,
            row_versions::{Differences, differences},
            verify_all,
        },
    },
    ResumeError, Resuming,
    stepping::{Steps, steps},
};
use crate::{
    keys::Keyring,
    store::{
        Keyed, StoreError, change,
        error::lasting,
        log::{self, Log},
    },
};

/// The most faults listed by name. The digest covers all.
const MAX_LISTED_FAULTS: usize = 20;

/// What is wrong with what is sealed, and with the rows that events name.
pub(super) struct Sealed {
    pub(super) unaccepted: Vec<Unaccepted>,
    pub(super) rows: Differences,
}

/// What is wrong now, and from where on a new log would go on.
pub(super) struct Situation {
    pub(super) log: Log,
    pub(super) fault: String,
    /// The digest of what is wrong. It stays the same while the log grows.
    pub(super) pin: String,
    pub(super) steps: Steps,
    /// The number of the last event with a row of its own that the new log does not hold.
    pub(super) position: i64,
}

impl Resuming<'_> {
    /// Verifies what is sealed. It may take long, so that no transaction waits for it.
    pub(super) async fn sealed(&self) -> Result<Sealed, ResumeError> {
        // A sealer that has ended may not have signed its last head.
        let all = log::all(self.db.read()).await?.logs;
        if let Some(log) = all.iter().rev().find(|log| log.key(self.keyring).is_ok()) {
            sign_last(self.db, self.keyring, log).await?;
        }
        let mut logs = Vec::new();
        for log in all {
            // A log without a key is a fault of its own.
            if let Ok(signer) = log.signer(self.keyring) {
                logs.push((log, signer.verifier_key().clone()));
            }
        }
        let conn = self.db.read();
        let verified = verify_all(conn, &logs, &[], Some(self.keyring), |_, _| {}).await?;
        let rows = differences(conn, self.tables, &verified.untrusted).await;
        Ok(Sealed {
            unaccepted: verified.unaccepted,
            rows: rows?,
        })
    }

    /// Finds out what is wrong: the rows at which the sealer stops, what a verification says of those that are sealed, and rows
    /// that are not as the events say.
    pub(super) async fn situation(
        &self,
        conn: &impl Keyed,
        sealed: &Sealed,
    ) -> Result<Situation, ResumeError> {
        let log = self.newest_log(conn).await?;
        let position = match log.position.parse() {
            Ok(position) if log.is_authentic(self.keyring) => position,
            _ => last_sealed(conn, self.keyring, &log).await?,
        };
        // No counter has ever counted so far.
        let jump = self.clock.now().as_millis();
        let steps = steps(conn, self.keyring, position, jump).await?;
        let own = steps.steps.iter().find(|step| step.rows.writer == OWN);
        let position = own.map_or(position, |step| step.rows.through);
        let (mut words, mut pin) = (Vec::new(), Extent::new());
        for step in &steps.steps {
            words.push(step.fault.clone());
            for field in [&step.rows.writer, &step.fault, &step.rows.digest] {
                pin.add(field.as_bytes());
            }
        }
        for unaccepted in &sealed.unaccepted {
            words.push(unaccepted.fault.clone());
            pin.add(unaccepted.log.as_bytes());
            pin.add(unaccepted.pin.as_bytes());
        }
        for difference in &sealed.rows.rows {
            // Nobody accepts what has ended.
            if difference.is_altered() || difference.is_put_back {
                return Err(ResumeError::CannotStepOver(format!(
                    "{}: keep a copy of it, and restore or delete it",
                    difference.describe()
                )));
            }
            words.push(difference.describe());
            let version = difference.version();
            for field in [
                version.row.as_bytes(),
                &version.digest,
                &version.before.unwrap_or_default(),
            ] {
                pin.add(field);
            }
        }
        if words.is_empty() {
            return Err(ResumeError::NoFault);
        }
        let more = words.len().saturating_sub(MAX_LISTED_FAULTS);
        words.truncate(MAX_LISTED_FAULTS);
        if more > 0 {
            words.push(format!("{more} more"));
        }
        Ok(Situation {
            log,
            fault: words.join("; "),
            pin: pin.finish(),
            steps,
            position,
        })
    }
}

impl Resuming<'_> {
    /// Returns the log that another one would follow.
    ///
    /// # Errors
    /// [`ResumeError::CannotStepOver`] if it is one that no key of the service has started, or one that is not the newest: the
    /// next log would have the name of the one that is gone.
    async fn newest_log(&self, conn: &impl Keyed) -> Result<Log, ResumeError> {
        // An edited counter says nothing, and is stepped over itself. So is an older one that was put back: a holder of the keys has
        // sealed more than it counts.
        let counted = lasting(change::counted_logs(conn).await)?.ok();
        let all = log::all(conn).await?;
        let open = all.logs.last().filter(|log| log.is_authentic(self.keyring));
        let sealed = open.and_then(|log| log.position.parse::<i64>().ok());
        let counted = counted.filter(|counted| sealed.is_none_or(|sealed| sealed <= counted.events));
        let newest = all.logs.last().map(|log| log.log_id);
        let unreadable = all.unreadable.last().copied().filter(|id| Some(*id) > newest);
        let is_forged = |log: &&Log| {
            log.key(self.keyring).is_err() || counted.is_some_and(|counted| log.log_id > counted.newest)
        };
        let forged = all.logs.last().filter(is_forged).map(|log| log.log_id);
        if let Some(log_id) = unreadable.or(forged) {
            return Err(ResumeError::CannotStepOver(format!(
                "the row {log_id} of audit_logs was written by somebody without the keys: keep a copy of it, and delete it"
            )));
        }
        match counted {
            Some(counted) if counted.is_gone(newest) => Err(ResumeError::CannotStepOver(format!(
                "the row {} of audit_logs is gone: restore it from a copy, or start a new epoch",
                counted.newest
            ))),
            _ => all.logs.into_iter().next_back().ok_or(ResumeError::NoLog),
        }
    }
}

/// Returns the number of the last event that has a row of its own and a leaf, for a log whose own position was edited.
async fn last_sealed(conn: &impl Keyed, keyring: &Keyring, log: &Log) -> Result<i64, StoreError> {
    let of_log = last_leaf(OWN).filter(leaf::Column::LogId.eq(log.log_id));
    let last = of_log.one(conn).await?.map_or(0, |leaf| leaf.number);
    let row = row::Entity::find_by_id(last).one(conn).await?;
    if row.is_some_and(|row| check_event_mac(keyring, &row).is_ok()) {
        // A leaf of a right number. The counter may be an older one that was put back.
        return Ok(last);
    }
    match change::last_event_number(conn).await {
        Ok(counted) => Ok(last.min(counted)),
        Err(StoreError::Altered(_) | StoreError::Corrupt(_)) => Ok(last),
        Err(error) => Err(error),
    }
}
