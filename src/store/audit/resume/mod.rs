//! Going on after a fault that was understood: a new log begins where the fault is stepped over.
//!
//! Two persons decide. The first one's request says what the fault is and why the log may go on; the second one confirms it,
//! as long as the fault is still the same. Whoever edits the database can forge neither: the request has a MAC, and the event
//! of the confirmation is sealed in the new log. Nothing that is stepped over is sealed, so that no forgery becomes legitimate.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use sea_orm::{IntoActiveModel, QueryOrder, QuerySelect, entity::prelude::*, sea_query::Expr};
use subtle::ConstantTimeEq;

use super::{
    Actor, ActorKind, Event, Origin,
    group::writer,
    open_log::sign_last,
    protection, record,
    seal::{OWN, leaf},
    verify::verify_all,
};
use crate::{
    clock::{Clock, UnixMillis},
    keys::{DataKey, Keyring},
    random::Random,
    store::{
        Database, Keyed, StoreError, Transaction, change,
        log::{self, Log},
    },
    text::{
        caller::Role,
        id::{EventId, OperatorId},
    },
};

/// How long a request can be confirmed.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(24 * 3600);
/// The id of the only row.
const ONLY: i32 = 1;

/// The pending request. There is at most one: a later one replaces it.
pub(super) mod stepped;
mod stepping;

use stepped::RESUME;
use stepping::{Step, SteppingError, steps};

mod request {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_resume_requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub resume_id: String,
        pub operator_id: String,
        pub person: String,
        pub reason: String,
        pub fault: String,
        pub origin: String,
        pub requested_at: i64,
        pub key_version: i32,
        pub mac: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

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
    /// The person who requested it can't confirm it.
    #[error("another person than the one who requested it must confirm it")]
    SamePerson,
    /// The fault is not the one that was requested to be stepped over.
    #[error("the fault is another one by now: {0}")]
    OtherFault(String),
    /// Rows have numbers that nobody can have reached, so that stepping over them would leave out events to come.
    #[error("{0}")]
    CannotStepOver(String),
}

impl From<SteppingError> for ResumeError {
    fn from(error: SteppingError) -> Self {
        match error {
            SteppingError::Store(error) => Self::Store(error),
            SteppingError::OutOfReach(what) => Self::CannotStepOver(what),
        }
    }
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
#[derive(Debug)]
pub struct AuditAccess {
    /// The service's database.
    pub db: Database,
    /// Its keys.
    pub keyring: Arc<Keyring>,
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

/// What is wrong now, and from where on a new log would go on.
struct Situation {
    log: Log,
    fault: String,
    steps: Vec<Step>,
    /// The number of the last event with a row of its own that the new log does not hold.
    position: i64,
}

/// Requests that the log go on after its fault. Replaces an earlier request.
///
/// # Errors
/// [`ResumeError`].
pub async fn request_resume(
    db: &Database,
    keyring: &Keyring,
    (clock, random): (&dyn Clock, &dyn Random),
    by: &Decider,
    reason: &str,
) -> Result<ResumeRequest, ResumeError> {
    let situation = situation(db.read(), keyring, None).await?;
    let key = keyring
        .current(protection::KEYRING_PURPOSE)
        .map_err(StoreError::from)?;
    let mut row = request::Model {
        id: ONLY,
        resume_id: EventId::generate(clock, random).into(),
        operator_id: by.operator_id.to_string(),
        person: by.person.clone(),
        reason: reason.to_owned(),
        fault: situation.fault.clone(),
        origin: situation.log.origin.to_string(),
        requested_at: clock.now().as_millis(),
        key_version: key.version(),
        mac: Vec::new(),
    };
    row.mac = mac(key, &row).to_vec();
    let tx = db.write().await?;
    request::Entity::delete_many().exec(&tx).await?;
    let inserted = row.clone().into_active_model().reset_all();
    request::Entity::insert(inserted)
        .exec_without_returning(&tx)
        .await?;
    let event = Event::new("audit_log.request_resume")
        .subject(&*row.origin)
        .detail("fault", &*situation.fault)
        .detail("reason", reason)
        .detail("resume_id", &*row.resume_id);
    record(&tx, clock, random, &origin(by), event).await;
    tx.commit().await?;
    Ok(ResumeRequest {
        resume_id: row.resume_id,
        fault: situation.fault,
    })
}

/// Confirms a request as another person, and starts the new log. The request counts once, and only for the fault that it names.
///
/// # Errors
/// [`ResumeError`].
pub async fn confirm_resume(
    db: &Database,
    keyring: &Keyring,
    (clock, random): (&dyn Clock, &dyn Random),
    by: &Decider,
    resume_id: &str,
) -> Result<Resumed, ResumeError> {
    if let Some(log) = log::current(db.read()).await? {
        sign_last(db, keyring, &log).await?;
    }
    let known = match situation(db.read(), keyring, None).await {
        Ok(situation) => situation.fault,
        // Whether there was a request is what the caller learns first.
        Err(ResumeError::NoFault) => String::new(),
        Err(error) => return Err(error),
    };
    let tx = db.write().await?;
    // No sealer extends the log until the transaction ends.
    log::end_lease(&tx).await?;
    let row = request::Entity::find_by_id(ONLY).one(&tx).await?;
    let row = row
        .filter(|row| row.resume_id == resume_id)
        .ok_or(ResumeError::NoRequest)?;
    check(keyring, &row)?;
    let requested_at = UnixMillis::from_millis(row.requested_at);
    if clock.now() > requested_at.plus(CONFIRM_WITHIN) {
        return Err(ResumeError::NoRequest);
    }
    // As everywhere else, case does not distinguish persons.
    if row.operator_id == by.operator_id.as_str() || row.person.to_lowercase() == by.person.to_lowercase() {
        return Err(ResumeError::SamePerson);
    }
    let situation = situation(&tx, keyring, Some(&known)).await?;
    if (&row.fault, row.origin.as_str()) != (&situation.fault, situation.log.origin.as_str()) {
        return Err(ResumeError::OtherFault(situation.fault));
    }
    let used = request::Entity::delete_many()
        .filter(request::Column::ResumeId.eq(resume_id))
        .exec(&tx)
        .await?;
    if used.rows_affected != 1 {
        return Err(ResumeError::NoRequest);
    }
    let new = start(&tx, keyring, &situation, clock.now()).await?;
    let old = situation.log;
    let rows: Vec<_> = situation.steps.iter().map(|step| &step.rows).collect();
    let rows = serde_json::to_string(&rows).map_err(|_| StoreError::Corrupt("a resume"))?;
    let event = Event::new(RESUME)
        .subject(new.origin.as_str())
        .detail("fault", &*row.fault)
        .detail("old_log", old.origin.as_str())
        .detail("old_root", STANDARD.encode(old.head.root.0))
        .detail("old_size", old.head.size.to_string())
        .detail("reason", &*row.reason)
        .detail("requested_by", &*row.operator_id)
        .detail("resume_id", resume_id)
        .detail("stepped_over", rows);
    record(&tx, clock, random, &origin(by), event).await;
    tx.commit().await?;
    Ok(Resumed {
        old,
        new,
        fault: row.fault,
    })
}

/// Starts the next log of the epoch, behind what is stepped over.
async fn start(
    tx: &Transaction,
    keyring: &Keyring,
    situation: &Situation,
    now: UnixMillis,
) -> Result<Log, ResumeError> {
    let origin = situation
        .log
        .origin
        .next()
        .map_err(|_| StoreError::Corrupt("the audit log's origin"))?;
    let key = keyring.current(log::KEYRING_PURPOSE).map_err(StoreError::from)?;
    let new = log::start(tx, &origin, key, &situation.position.to_string(), now).await?;
    for step in situation.steps.iter().filter(|step| step.rows.writer != OWN) {
        writer::Entity::update_many()
            .col_expr(writer::Column::Sealed, Expr::value(step.rows.through))
            .filter(writer::Column::Writer.eq(&*step.rows.writer))
            .exec(tx)
            .await?;
    }
    Ok(new)
}

/// Finds out what is wrong: the rows at which the sealer stops, or else what a verification says.
/// `verified` is the result of a verification that was made before: it may take long, and all writers wait for a transaction.
async fn situation(
    conn: &impl Keyed,
    keyring: &Keyring,
    verified: Option<&str>,
) -> Result<Situation, ResumeError> {
    let log = log::current(conn).await?.ok_or(ResumeError::NoLog)?;
    let is_authentic = match log.key(keyring) {
        Ok(key) => log.check(key).is_ok(),
        Err(error) => return Err(StoreError::from(error).into()),
    };
    let position = match log.position.parse() {
        Ok(position) if is_authentic => position,
        _ => last_sealed(conn, &log).await?,
    };
    let steps = steps(conn, keyring, position).await?;
    let own = steps.iter().find(|step| step.rows.writer == OWN);
    let position = own.map_or(position, |step| step.rows.through);
    let fault = match (steps.first(), verified) {
        (Some(_), _) => {
            let faults: Vec<_> = steps.iter().map(|step| step.fault.as_str()).collect();
            faults.join("; ")
        }
        (None, Some(fault)) => fault.to_owned(),
        (None, None) => {
            let mut logs = Vec::new();
            for log in log::all(conn).await? {
                let key = log
                    .signer(keyring)
                    .map_err(StoreError::from)?
                    .verifier_key()
                    .clone();
                logs.push((log, key));
            }
            let newest = verify_all(conn, &logs, &[], Some(keyring), |_, _| {})
                .await?
                .pop();
            let fault = newest.and_then(|newest| newest.report.fault);
            fault.ok_or(ResumeError::NoFault)?.to_string()
        }
    };
    Ok(Situation {
        log,
        fault,
        steps,
        position,
    })
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
    let counted = change::last_event_number(conn).await?;
    Ok(last.map_or(0, |leaf| leaf.number).min(counted))
}

fn origin(by: &Decider) -> Origin {
    Origin {
        actor: Actor {
            kind: ActorKind::Operator,
            id: by.operator_id.to_string(),
        },
        certificate: None,
        address: None,
        request_id: String::new(),
    }
}

fn mac(key: &DataKey, row: &request::Model) -> [u8; 32] {
    key.hmac(&[
        b"resume",
        row.resume_id.as_bytes(),
        row.operator_id.as_bytes(),
        row.person.as_bytes(),
        row.reason.as_bytes(),
        row.fault.as_bytes(),
        row.origin.as_bytes(),
        &row.requested_at.to_be_bytes(),
    ])
}

fn check(keyring: &Keyring, row: &request::Model) -> Result<(), StoreError> {
    const EDITED: StoreError = StoreError::Corrupt("the request to resume the audit log");
    let key = keyring
        .version(protection::KEYRING_PURPOSE, row.key_version)
        .ok_or(EDITED)?;
    match bool::from(row.mac.ct_eq(&mac(key, row))) {
        true => Ok(()),
        false => Err(EDITED),
    }
}

#[cfg(test)]
#[path = "../../tests/audit/resume.rs"]
mod tests;
