//! What is wrong with a record, and from where on a new log would go on.

use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    super::{
        extent::Extent,
        open_log::sign_last,
        seal::{OWN, leaf},
        verify::{
            Unaccepted,
            row_versions::{Differences, differences},
            verify_all,
        },
    },
    ResumeError, Resuming,
    stepping::{Steps, steps},
};
use crate::store::{
    Keyed, StoreError, change,
    log::{self, Log},
};

/// The most faults that are told one by one. A digest pins all of them.
const MOST_WORDS: usize = 20;

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
        if let Some(log) = log::current(self.db.read()).await? {
            sign_last(self.db, self.keyring, &log).await?;
        }
        let mut logs = Vec::new();
        for log in log::all(self.db.read()).await? {
            let signer = log.signer(self.keyring).map_err(StoreError::from)?;
            logs.push((log, signer.verifier_key().clone()));
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
        let log = log::current(conn).await?.ok_or(ResumeError::NoLog)?;
        let is_authentic = match log.key(self.keyring) {
            Ok(key) => log.check(key).is_ok(),
            Err(error) => return Err(StoreError::from(error).into()),
        };
        let position = match log.position.parse() {
            Ok(position) if is_authentic => position,
            _ => last_sealed(conn, &log).await?,
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
            words.push(difference.describe());
            let version = difference.version();
            for field in [
                version.row.as_bytes(),
                &version.mac,
                &version.before.unwrap_or_default(),
            ] {
                pin.add(field);
            }
        }
        if words.is_empty() {
            return Err(ResumeError::NoFault);
        }
        let more = words.len().saturating_sub(MOST_WORDS);
        words.truncate(MOST_WORDS);
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

/// Returns the number of the last event that has a row of its own and a leaf, for a log whose own position was edited.
async fn last_sealed(conn: &impl Keyed, log: &Log) -> Result<i64, StoreError> {
    let last = leaf::Entity::find()
        .filter(leaf::Column::Source.eq(OWN))
        .filter(leaf::Column::LogId.eq(log.log_id))
        .order_by_desc(leaf::Column::Number)
        .limit(1)
        .one(conn)
        .await?;
    let last = last.map_or(0, |leaf| leaf.number);
    match change::last_event_number(conn).await {
        Ok(counted) => Ok(last.min(counted)),
        Err(StoreError::Altered(_) | StoreError::Corrupt(_)) => Ok(last),
        Err(error) => Err(error),
    }
}
