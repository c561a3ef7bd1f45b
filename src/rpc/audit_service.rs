//! `AuditService` of both services. Each serves its own audit record.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Request, Response, Status};

use crate::{
    audit::v1::{self as pb, audit_service_server::AuditService},
    clock::{SharedClock, UnixMillis},
    rpc::status::{ErrorReason, Problem, Reply},
    store::{
        Database, StoreError,
        audit::{self, CallerAddress, EventProof, EventRow, Fault, Filter, LogReport, Proven},
        keyring::SharedKeyring,
        log::{self, Log, SignedHead},
        rows::RowTable,
    },
    text::{
        id::{ClientId, EventId, TenantId},
        page::PageRequest,
        validation::{Violations, only_field},
    },
    tlog::{Hash, VerifierKey},
};

/// The longest action, actor id or subject of a filter, in characters.
const MAX_TEXT: usize = 200;

/// The most searches at a time. Further ones wait: a search may read millions of rows, and takes a connection meanwhile.
const MAX_SEARCHES: usize = 2;
/// When a caller whose verification was rejected may try again.
const RETRY_VERIFICATION: Duration = Duration::from_secs(10);

/// Traces an issued token beyond the event that issued it.
#[tonic::async_trait]
pub trait TokenTracer: Send + Sync + 'static {
    /// Returns what is known of the token that an event issued, without the event.
    async fn trace(&self, issued: &EventRow) -> Result<pb::TraceTokenResponse, Status>;
}

/// Serves the audit record of a database.
#[derive(Clone, derive_more::Debug)]
pub struct AuditApi {
    db: Database,
    keyring: SharedKeyring,
    #[debug(skip)]
    tables: Arc<[RowTable]>,
    clock: SharedClock,
    searches: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
    /// `None` for a service that issues no tokens.
    #[debug(skip)]
    tracer: Option<Arc<dyn TokenTracer>>,
}

impl AuditApi {
    /// Serves the audit record of a migrated database. The keyring holds the purposes of events, their log and rows; `tables`
    /// are those that a verification compares.
    pub fn new(db: Database, keyring: SharedKeyring, tables: Vec<RowTable>, clock: SharedClock) -> Self {
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        Self {
            db,
            keyring,
            tables: tables.into(),
            clock,
            searches,
            verifications: Arc::new(Semaphore::new(1)),
            tracer: None,
        }
    }

    /// Traces tokens, too.
    pub fn with_tracer(self, tracer: impl TokenTracer) -> Self {
        let tracer = Some(Arc::new(tracer) as Arc<dyn TokenTracer>);
        Self { tracer, ..self }
    }

    /// Runs a search, in a task, because a database does not stop when the caller goes away.
    async fn search<T: Send + 'static>(
        &self,
        search: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = self.searches.clone().acquire_owned().await;
        run(permit.map_err(|_| Problem::unavailable())?, search).await
    }

    /// Runs a verification, which may take minutes, beside searches. One is enough: a second caller is rejected.
    async fn verify<T: Send + 'static>(
        &self,
        verification: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, Problem> {
        match self.verifications.clone().try_acquire_owned() {
            Ok(permit) => run(permit, verification).await,
            Err(_) => {
                let message = "a verification is under way";
                let problem = Problem::new(Code::ResourceExhausted, ErrorReason::ResourceExhausted, message);
                Err(problem.retry_after(RETRY_VERIFICATION))
            }
        }
    }

    /// Returns the logs with their keys, the oldest first. Leaves out those that no key is that of: a verification names them.
    async fn logs(&self) -> Result<Vec<(Log, VerifierKey)>, StoreError> {
        let mut logs = Vec::new();
        for log in log::all(self.db.read()).await?.logs {
            let keyring = self.keyring.find_version(log::KEYRING_PURPOSE, log.key_version);
            if let Some(keyring) = keyring.await? {
                let key = log.signer(&keyring)?.verifier_key().clone();
                logs.push((log, key));
            }
        }
        Ok(logs)
    }

    /// Returns the open log, and its signed head of a size; 0 means the newest.
    async fn head(&self, field: &str, size: i64) -> Result<(Log, SignedHead), Problem> {
        let size = self::size(field, size)?;
        let log = log::current(self.db.read())
            .await?
            .ok_or_else(Problem::not_sealed)?;
        let head = log::signed_head(self.db.read(), log.log_id, size).await?;
        match (head, size) {
            (Some(head), _) => Ok((log, head)),
            (None, None) => Err(Problem::not_sealed()),
            (None, Some(_)) => Err(violation(field, "must be the size of a checkpoint").into()),
        }
    }
}

/// Reads in a task of its own, and returns the permit when that has ended.
async fn run<T: Send + 'static>(
    permit: OwnedSemaphorePermit,
    reading: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, Problem> {
    let found = tokio::spawn(async move {
        let _permit = permit;
        reading.await
    });
    let found = found.await.map_err(|error| Problem::internal(&error))?;
    found.map_err(Problem::from)
}

/// Reads the size of a log; 0 means that of the newest head.
fn size(field: &str, size: i64) -> Result<Option<u64>, Violations> {
    let size = u64::try_from(size).map_err(|_| violation(field, "must not be negative"))?;
    Ok(Some(size).filter(|size| *size > 0))
}

fn older_log(log: &LogReport) -> pb::OlderAuditLog {
    let fault = log.report.fault.clone().unwrap_or_default();
    pb::OlderAuditLog {
        origin: log.origin.to_string(),
        checked_events: log.report.events.cast_signed(),
        first_altered_event_id: fault.event_id,
        fault: fault.what,
        fault_accepted: log.is_accepted,
    }
}

fn fault((log, fault): (&str, &Fault)) -> pb::AuditFault {
    pb::AuditFault {
        log: log.to_owned(),
        event_id: fault.event_id.clone(),
        fault: fault.what.clone(),
    }
}

fn violation(field: &str, rule: &'static str) -> Violations {
    let mut v = Violations::default();
    v.add(field, rule);
    v
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Reply<pb::ListAuditEventsResponse> {
        let (filter, page) = parse(request.get_ref())?;
        let db = self.db.clone();
        let found = self.search(async move { audit::list(db.read(), &filter, &page).await });
        let page = found.await?.map(message);
        let (audit_events, next_page_token) = page.fit(Message::encoded_len);
        Ok(Response::new(pb::ListAuditEventsResponse {
            audit_events,
            next_page_token,
        }))
    }

    async fn verify_audit_log(
        &self,
        _: Request<pb::VerifyAuditLogRequest>,
    ) -> Reply<pb::VerifyAuditLogResponse> {
        // What was written with a key that this replica lacks would count as altered.
        self.keyring.refresh().await.map_err(Problem::from)?;
        let keyring = self.keyring.complete().await.map_err(Problem::from)?;
        let logs = self.logs().await.map_err(Problem::from)?;
        let db = self.db.clone();
        let (tables, clock) = (self.tables.clone(), self.clock.clone());
        let verified = self.verify(async move {
            let conn = db.read();
            let verified = audit::verify_all(conn, &logs, &[], Some(&keyring), |_, _| {}).await?;
            let rows = audit::check_rows(conn, &tables, &verified, clock.now()).await?;
            Ok((verified, rows))
        });
        let (verified, rows) = verified.await?;
        let mut faults: Vec<_> = verified.faults().map(fault).collect();
        faults.extend(rows.faults.iter().map(|found| fault(("", found))));
        let (open, older) = match verified.logs.split_last() {
            Some((open, older)) => (Some(open), older),
            None if faults.is_empty() => return Err(Problem::not_sealed().into()),
            None => (None, &[][..]),
        };
        let first = faults.first().cloned().unwrap_or_default();
        Ok(Response::new(pb::VerifyAuditLogResponse {
            intact: faults.is_empty(),
            checked_events: open.map_or(0, |open| open.report.events.cast_signed()),
            first_altered_event_id: first.event_id,
            fault: first.fault,
            older_logs: older.iter().map(older_log).collect(),
            faults,
        }))
    }

    async fn get_checkpoint(&self, _: Request<pb::GetCheckpointRequest>) -> Reply<pb::GetCheckpointResponse> {
        let (log, head) = self.head("", 0).await?;
        let keyring = self.keyring.get().await.map_err(Problem::from)?;
        let signer = log
            .signer(&keyring)
            .map_err(StoreError::from)
            .map_err(Problem::from)?;
        Ok(Response::new(pb::GetCheckpointResponse {
            checkpoint: head.checkpoint,
            verifier_key: signer.verifier_key().to_string(),
        }))
    }

    async fn get_inclusion_proof(
        &self,
        request: Request<pb::GetInclusionProofRequest>,
    ) -> Reply<pb::GetInclusionProofResponse> {
        let request = request.into_inner();
        let event_id = only_field("event_id", EventId::parse(&request.event_id))?;
        let size = size("log_size", request.log_size)?;
        let proof = audit::prove(self.db.read(), size, &event_id).await;
        let Proven { file: proof, head } = match proof.map_err(Problem::from)? {
            EventProof::Sealed(proven) => *proven,
            EventProof::NotYetSealed => return Err(Problem::not_sealed().into()),
            EventProof::NoSuchHead => {
                return Err(
                    violation("log_size", "must be the size of a checkpoint of the event's log").into(),
                );
            }
            EventProof::Unknown => return Err(Problem::not_found("audit_event").into()),
        };
        let hashes = |hashes: Vec<Hash>| hashes.into_iter().map(|hash| hash.0.to_vec()).collect();
        let mut response = pb::GetInclusionProofResponse {
            event: proof.event,
            leaf_index: proof.index.cast_signed(),
            leaf_hashes: hashes(proof.hashes),
            log_size: head.head.size.cast_signed(),
            checkpoint: head.checkpoint,
            ..Default::default()
        };
        if let Some(group) = proof.group {
            response.group_size = group.count.cast_signed();
            response.group_root = group.root.0.to_vec();
            response.group_index = group.index.cast_signed();
            response.group_hashes = hashes(group.hashes);
        }
        Ok(Response::new(response))
    }

    async fn get_consistency_proof(
        &self,
        request: Request<pb::GetConsistencyProofRequest>,
    ) -> Reply<pb::GetConsistencyProofResponse> {
        const FIRST_SIZE: &str = "must be from 1 to the size of the later log";
        let request = request.get_ref();
        let mut v = Violations::default();
        let first = u64::try_from(request.first_size).ok().filter(|size| *size > 0);
        let first = v.check("first_size", first.ok_or(FIRST_SIZE));
        let second = v.merge(size("second_size", request.second_size));
        let (first, _) = v.finish(|| first.zip(second))?;
        let (log, second) = self.head("second_size", request.second_size).await?;
        let proof = log::consistency_proof(self.db.read(), log.log_id, first, second.head).await;
        let Some(proof) = proof.map_err(Problem::from)? else {
            return Err(violation("first_size", FIRST_SIZE).into());
        };
        Ok(Response::new(pb::GetConsistencyProofResponse {
            hashes: proof.into_iter().map(|hash| hash.0.to_vec()).collect(),
            second_size: second.head.size.cast_signed(),
        }))
    }

    async fn trace_token(&self, request: Request<pb::TraceTokenRequest>) -> Reply<pb::TraceTokenResponse> {
        let Some(tracer) = &self.tracer else {
            let message = "TraceToken is served by token-service alone";
            return Err(Problem::new(Code::Unimplemented, ErrorReason::NotAvailable, message).into());
        };
        let jti = only_field("jti", EventId::parse(&request.get_ref().jti))?;
        let issued = audit::find_issued(self.db.read(), &jti).await;
        let issued = issued.map_err(Problem::from)?;
        let issued = issued.ok_or_else(|| Problem::not_found("token"))?;
        let traced = tracer.trace(&issued).await?;
        Ok(Response::new(pb::TraceTokenResponse {
            issue_event: Some(message(issued)),
            ..traced
        }))
    }
}

fn parse(request: &pb::ListAuditEventsRequest) -> Result<(Filter, PageRequest), Violations> {
    let mut v = Violations::default();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut text = |field: &str, value: &str| given(&v.text(field, value, 0..=MAX_TEXT)?);
    let action = text("action", &request.action);
    let actor_id = text("actor_id", &request.actor_id);
    let subject = text("subject", &request.subject);
    let outcome = v.filter::<pb::AuditOutcome, _>("outcome", request.outcome);
    let filter = Filter {
        tenant_id: given(&request.tenant_id).and_then(|id| v.check("tenant_id", TenantId::parse(&id))),
        client_id: given(&request.client_id).and_then(|id| v.check("client_id", ClientId::parse(&id))),
        action,
        actor_id,
        subject,
        outcome: outcome.flatten(),
        from: time(&mut v, "start_time", request.start_time.as_ref()),
        until: time(&mut v, "end_time", request.end_time.as_ref()),
    };
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "audit_events", &[&format!("{filter:?}")], size, token);
    if let Some(after) = page.as_ref().and_then(PageRequest::after) {
        v.check("page_token", after.parse::<audit::Cursor>());
    }
    v.finish(|| Some((filter, page?)))
}

/// Rounds a time up to whole milliseconds, which events have. Both "at or after" and "before" compare with it.
fn time(v: &mut Violations, field: &str, timestamp: Option<&prost_types::Timestamp>) -> Option<UnixMillis> {
    let timestamp = timestamp?;
    let millis = UnixMillis::from_timestamp(timestamp);
    let millis = millis.ok_or("must be a time between the years 1970 and 9999");
    let millis = v.check(field, millis)?;
    let is_whole = timestamp.nanos % 1_000_000 == 0;
    Some(millis.plus(Duration::from_millis(u64::from(!is_whole))))
}

fn message(event: EventRow) -> pb::AuditEvent {
    pb::AuditEvent {
        event_id: event.event_id.into(),
        occur_time: Some(event.occurred_at.to_timestamp()),
        action: event.action,
        outcome: pb::AuditOutcome::from(event.outcome).into(),
        actor_kind: pb::AuditActorKind::from(event.actor.kind).into(),
        actor_id: event.actor.id,
        tenant_id: event.tenant_id.map(String::from).unwrap_or_default(),
        client_id: event.client_id.map(String::from).unwrap_or_default(),
        subject: event.subject.unwrap_or_default(),
        request_id: event.request_id,
        detail: event.detail.into_iter().collect(),
        caller_address: event
            .address
            .map(|address| address.ip().to_string())
            .unwrap_or_default(),
        caller_address_source: event
            .address
            .map_or(pb::AuditAddressSource::Unspecified, |address| match address {
                CallerAddress::Forwarded(_) => pb::AuditAddressSource::Forwarded,
                CallerAddress::Peer(_) => pb::AuditAddressSource::Peer,
            })
            .into(),
        position: event
            .position
            .map(|position| position.to_string())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "tests/audit_service.rs"]
mod tests;
