//! Going on after a fault that was understood: a new log begins where the fault is stepped over.
//!
//! Two persons decide. The first one's request says what the fault is and why the log may go on; the second one confirms it,
//! as long as the fault is still the same. Whoever edits the database can forge neither: the request has a MAC, and the event
//! of the confirmation is sealed in the new log. Nothing that is stepped over is sealed, so that no forgery becomes legitimate.
//! The event holds digests of what was stepped over and of all that was wrong: what changes later is a fault of its own.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use sea_orm::{IntoActiveModel, entity::prelude::*, sea_query::Expr};
use tokio::time::sleep;

use super::{
    ActorKind, Event, Origin, action, group::writer, leaf_rows::OWN, protection, record,
    verify::row_versions::drop_changed,
};
use crate::{
    clock::Clock,
    keys::Keyring,
    random::Random,
    store::{
        Database, StoreError, Transaction, change,
        log::{self, Lease, Log, RENEW_EVERY},
        rows::RowTable,
    },
    text::{
        caller::Role,
        id::{EventId, OperatorId},
    },
};

/// How long a request can be confirmed.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(24 * 3600);

mod request;
pub(super) mod restore;
mod situation;
pub(super) mod stepped;
mod stepping;

use situation::{Sealed, Situation};
use stepped::AcceptedFault;

/// Why a log was not resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing was sealed yet.
    #[error("there is no log yet")]
    NoLog,
    /// The log goes on by itself.
    #[error("the log has no fault")]
    NoFault,
    /// There is no request with this id, or it was not confirmed in time.
    #[error("no request with this id waits for a confirmation")]
    NoRequest,
    /// The operator who confirms must have a person, and so must the one who requested it: another one.
    #[error(
        "another person than the one who requested it must confirm it, and both operators must have a person"
    )]
    SamePerson,
    /// The fault is not the one that was requested to be stepped over.
    #[error("the fault has changed since the request: {0}")]
    OtherFault(String),
    /// Rows have numbers that nobody can have reached, so that stepping over them would leave out events to come.
    #[error("{0}")]
    CannotStepOver(String),
}

impl From<sea_orm::DbErr> for ResumeError {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Store(error.into())
    }
}

/// An operator who may decide, as the registry knows them.
#[derive(Clone, Debug)]
pub struct Decider {
    /// The operator.
    pub operator_id: OperatorId,
    /// The person behind the operator.
    pub person: String,
}

impl Decider {
    /// Names an operator who may decide; `None` for one who has neither the role security nor admin.
    pub fn new(operator_id: OperatorId, roles: &[Role], person: String) -> Option<Self> {
        let may_decide = roles
            .iter()
            .any(|role| matches!(role, Role::Security | Role::Admin));
        may_decide.then_some(Self { operator_id, person })
    }
}

/// What a decision needs: a service's record, and the operator who decides.
#[derive(derive_more::Debug)]
pub struct AuditAccess {
    /// The service's database.
    pub db: Database,
    /// Its keys.
    pub keyring: Arc<Keyring>,
    /// The tables whose rows its events name.
    #[debug(skip)]
    pub tables: Vec<RowTable>,
    /// The operator.
    pub decider: Decider,
}

/// What a person has requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumeRequest {
    /// Names the request.
    pub resume_id: String,
    /// The fault.
    pub fault: String,
}

/// A new log.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The log that ended.
    pub old: Log,
    /// The log that goes on.
    pub new: Log,
    /// What was stepped over.
    pub fault: String,
}

/// The record that goes on, and what a decision about it needs.
#[derive(Clone, Copy)]
pub struct Resuming<'a> {
    /// The service's database.
    pub db: &'a Database,
    /// Its keys.
    pub keyring: &'a Keyring,
    /// The tables whose rows events name.
    pub tables: &'a [RowTable],
    /// Tells the time of the decision.
    pub clock: &'a dyn Clock,
    /// Gives ids, and the epoch of a counter that was lost.
    pub random: &'a dyn Random,
}

/// Requests that the log go on after its fault. Replaces an earlier request. Its event is missing if the change counter is lost,
/// without which nothing is recorded; the event of the confirmation names both persons.
///
/// # Errors
/// [`ResumeError`].
pub async fn request_resume(
    resuming: &Resuming<'_>,
    by: &Decider,
    reason: &str,
) -> Result<ResumeRequest, ResumeError> {
    let (db, clock, random) = (resuming.db, resuming.clock, resuming.random);
    let sealed = resuming.sealed().await?;
    let situation = resuming.situation(db.read(), &sealed).await?;
    let key = resuming.keyring.current(protection::KEYRING_PURPOSE);
    let key = key.map_err(StoreError::from)?;
    let mut row = request::Model {
        id: request::ONLY,
        resume_id: EventId::generate(clock, random).into(),
        operator_id: by.operator_id.to_string(),
        person: by.person.clone(),
        reason: reason.to_owned(),
        fault: situation.fault.clone(),
        pin: situation.pin,
        origin: situation.log.origin.to_string(),
        requested_at: clock.now().as_millis(),
        key_version: key.version(),
        mac: Vec::new(),
    };
    row.mac = request::mac(key, &row).to_vec();
    let tx = db.write().await?;
    request::Entity::delete_many().exec(&tx).await?;
    let inserted = row.clone().into_active_model().reset_all();
    let insert = request::Entity::insert(inserted);
    insert.exec_without_returning(&tx).await?;
    if !situation.steps.has_no_counter {
        let event = Event::new(action::AUDIT_LOG_REQUEST_RESUME)
            .subject(&*row.origin)
            .detail("fault", &*situation.fault)
            .detail("reason", reason)
            .detail("resume_id", &*row.resume_id);
        record(&tx, clock, random, &origin(by), event).await;
    }
    tx.commit().await?;
    Ok(ResumeRequest {
        resume_id: row.resume_id,
        fault: situation.fault,
    })
}

/// Confirms a request as another person, and starts the new log. The request counts once, and only for the fault that it names.
///
/// Holds the lease of the sealer meanwhile, so that the log stays as it was verified.
///
/// # Errors
/// [`ResumeError`].
pub async fn confirm_resume(
    resuming: &Resuming<'_>,
    by: &Decider,
    resume_id: &str,
) -> Result<Resumed, ResumeError> {
    let db = resuming.db;
    // Whether there was a request is what the caller learns first.
    resuming.pending(db.read(), by, resume_id).await?;
    let lease = log::take_lease(db, "resume").await?;
    let confirmed = resuming.confirm_alone(&lease, by, resume_id).await;
    if confirmed.is_err() {
        lease.release(db).await?;
    }
    confirmed
}

impl Resuming<'_> {
    async fn confirm_alone(
        &self,
        lease: &Lease,
        by: &Decider,
        resume_id: &str,
    ) -> Result<Resumed, ResumeError> {
        let kept = async {
            loop {
                sleep(RENEW_EVERY).await;
                match lease.renew(self.db).await {
                    Ok(true) => {}
                    Ok(false) => return StoreError::Busy,
                    Err(error) if error.is_temporary() => {}
                    Err(error) => return error,
                }
            }
        };
        let mut sealed = tokio::select! {
            sealed = self.sealed() => sealed?,
            lost = kept => return Err(lost.into()),
        };
        let tx = self.db.write().await?;
        // No sealer extends the log until the transaction ends.
        if !lease.lock(&tx).await? {
            return Err(StoreError::Busy.into());
        }
        let row = self.pending(&tx, by, resume_id).await?;
        let situation = self.situation(&tx, &sealed).await?;
        if (&row.fault, &row.pin, row.origin.as_str())
            != (&situation.fault, &situation.pin, situation.log.origin.as_str())
        {
            return Err(ResumeError::OtherFault(situation.fault));
        }
        let used = request::Entity::delete_many()
            .filter(request::Column::ResumeId.eq(resume_id))
            .exec(&tx)
            .await?;
        if used.rows_affected != 1 {
            return Err(ResumeError::NoRequest);
        }
        // A row that was changed while it was verified has an event of its own.
        let last = sealed.rows.last;
        drop_changed(&tx, &mut sealed.rows.rows, last).await?;
        let new = self.start(&tx, &situation).await?;
        let event = event(&row, &situation, &sealed, &new)?;
        record(&tx, self.clock, self.random, &origin(by), event).await;
        for difference in &sealed.rows.rows {
            tx.wrote(difference.version());
        }
        tx.commit().await?;
        Ok(Resumed {
            old: situation.log,
            new,
            fault: row.fault,
        })
    }

    /// Starts the next log, behind what is stepped over, with a new counter and its epoch if the old one is lost.
    async fn start(&self, tx: &Transaction, situation: &Situation) -> Result<Log, ResumeError> {
        let old = &situation.log.origin;
        let origin = match situation.steps.has_no_counter {
            true => {
                let position = change::replace_counter(tx, self.random, situation.position).await?;
                old.of_epoch(position.epoch.as_str())
            }
            false => old.next(),
        };
        let origin = origin.map_err(|_| StoreError::Corrupt("the audit log's origin"))?;
        let key = self.keyring.current(log::KEYRING_PURPOSE);
        let key = key.map_err(StoreError::from)?;
        let position = situation.position.to_string();
        let new = log::start(tx, &origin, key, &position, self.clock.now()).await?;
        let steps = situation.steps.steps.iter();
        for step in steps.filter(|step| step.rows.writer != OWN) {
            writer::Entity::update_many()
                .col_expr(writer::Column::Sealed, Expr::value(step.rows.through))
                .filter(writer::Column::Writer.eq(&*step.rows.writer))
                .exec(tx)
                .await?;
        }
        Ok(new)
    }
}

/// Returns the event of a resume.
fn event(
    row: &request::Model,
    situation: &Situation,
    sealed: &Sealed,
    new: &Log,
) -> Result<Event, StoreError> {
    let old = &situation.log;
    let faults = sealed.unaccepted.iter().flat_map(|fault| {
        let accepted = |extent: &String| AcceptedFault {
            log: fault.log.clone(),
            extent: extent.clone(),
        };
        fault.extents.iter().map(accepted)
    });
    let faults: Vec<_> = faults.collect();
    let rows: Vec<_> = situation.steps.steps.iter().map(|step| &step.rows).collect();
    let json = [serde_json::to_string(&faults), serde_json::to_string(&rows)];
    let [Ok(accepted), Ok(stepped_over)] = json else {
        return Err(StoreError::Corrupt("a resume"));
    };
    Ok(Event::new(action::AUDIT_LOG_RESUME)
        .subject(new.origin.as_str())
        .detail("accepted", accepted)
        .detail("accepted_rows", sealed.rows.rows.len().to_string())
        .detail("fault", &*row.fault)
        .detail("old_log", old.origin.as_str())
        .detail("old_root", STANDARD.encode(old.head.root.0))
        .detail("old_size", old.head.size.to_string())
        .detail("reason", &*row.reason)
        .detail("requested_by", &*row.operator_id)
        .detail("resume_id", &*row.resume_id)
        .detail("stepped_over", stepped_over))
}

fn origin(by: &Decider) -> Origin {
    Origin::outside_of_calls(ActorKind::Operator, by.operator_id.as_str())
}

#[cfg(test)]
#[path = "../../tests/audit/resume.rs"]
mod tests;
