//! `AuditService` of both services. Each serves its own audit trail.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::{
    audit::v1::{self as pb, audit_service_server::AuditService},
    clock::UnixMillis,
    rpc::status::{Problem, Reply},
    store::{
        Database, StoreError,
        audit::{self, EventRow, Filter},
        keyring::SharedKeyring,
        log::{self, Log, SignedHead},
    },
    text::{
        id::{ClientId, EventId, TenantId},
        page::PageRequest,
        validation::{Violations, only_field},
    },
    tlog::Hash,
};

/// The longest action, actor id or subject of a filter, in characters.
const MAX_TEXT: usize = 200;

/// The most searches at a time. Further ones wait: a search may read millions of rows, and takes a connection meanwhile.
const MAX_SEARCHES: usize = 2;

/// Traces an issued token beyond the event that issued it.
#[tonic::async_trait]
pub trait TokenTracer: Send + Sync + 'static {
    /// Returns what is known of the token that an event issued, without the event.
    async fn trace(&self, issued: &EventRow) -> Result<pb::TraceTokenResponse, Status>;
}

/// Serves the audit trail of a database.
#[derive(Clone, derive_more::Debug)]
pub struct AuditApi {
    db: Database,
    keyring: SharedKeyring,
    searches: Arc<Semaphore>,
    /// `None` for a service that issues no tokens.
    #[debug(skip)]
    tracer: Option<Arc<dyn TokenTracer>>,
}

impl AuditApi {
    /// Serves the audit record of a migrated database. The keyring holds the purposes of events and their log.
    pub fn new(db: Database, keyring: SharedKeyring) -> Self {
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        Self {
            db,
            keyring,
            searches,
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
        let permit = permit.map_err(|_| Problem::unavailable())?;
        let found = tokio::spawn(async move {
            let _permit = permit;
            search.await
        });
        let found = found.await.map_err(|error| Problem::internal(&error))?;
        found.map_err(Problem::from)
    }

    /// Returns the open log, and its signed head of a size; 0 means the newest.
    async fn head(&self, field: &str, size: i64) -> Result<(Log, SignedHead), Problem> {
        let size = match u64::try_from(size) {
            Ok(0) => None,
            Ok(size) => Some(size),
            Err(_) => return Err(violation(field, "must not be negative").into()),
        };
        let log = log::current(self.db.read()).await?.ok_or_else(not_sealed)?;
        let head = match size {
            None => log::latest(self.db.read(), log.log_id).await?,
            Some(size) => log::at_size(self.db.read(), log.log_id, size).await?,
        };
        match (head, size) {
            (Some(head), _) => Ok((log, head)),
            (None, None) => Err(not_sealed()),
            (None, Some(_)) => Err(violation(field, "must be the size of a checkpoint").into()),
        }
    }
}

/// Returns the error before the first seal.
fn not_sealed() -> Problem {
    Problem::unavailable()
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
        let log = log::current(self.db.read()).await.map_err(Problem::from)?;
        let log = log.ok_or_else(not_sealed)?;
        let keyring = self.keyring.get().await.map_err(Problem::from)?;
        let key = log
            .signer(&keyring)
            .map_err(StoreError::from)
            .map_err(Problem::from)?;
        let key = key.verifier_key().clone();
        let db = self.db.clone();
        let verified =
            self.search(
                async move { audit::verify(db.read(), &log, &key, &[], Some(&keyring), |_, _| {}).await },
            );
        let report = verified.await?;
        let fault = report.fault.unwrap_or_else(|| audit::Fault {
            event_id: String::new(),
            what: String::new(),
        });
        Ok(Response::new(pb::VerifyAuditLogResponse {
            intact: fault.what.is_empty(),
            checked_events: report.events.cast_signed(),
            first_altered_event_id: fault.event_id,
            fault: fault.what,
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
        let (log, head) = self.head("log_size", request.log_size).await?;
        let proof = audit::prove(self.db.read(), log.log_id, &head, &event_id).await;
        let proof = match proof.map_err(Problem::from)? {
            audit::Proof::Sealed(proof) => proof,
            audit::Proof::NotYetSealed => return Err(not_sealed().into()),
            audit::Proof::Unknown => return Err(Problem::not_found("audit_event").into()),
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
        let request = request.get_ref();
        let (log, second) = self.head("second_size", request.second_size).await?;
        let first = u64::try_from(request.first_size).unwrap_or(0);
        let proof = log::consistency_proof(self.db.read(), log.log_id, first, second.head).await;
        let Some(proof) = proof.map_err(Problem::from)? else {
            return Err(violation("first_size", "must be from 1 to the size of the later log").into());
        };
        Ok(Response::new(pb::GetConsistencyProofResponse {
            hashes: proof.into_iter().map(|hash| hash.0.to_vec()).collect(),
            second_size: second.head.size.cast_signed(),
        }))
    }

    async fn trace_token(&self, request: Request<pb::TraceTokenRequest>) -> Reply<pb::TraceTokenResponse> {
        let Some(tracer) = &self.tracer else {
            return Err(Problem::not_available("TraceToken").into());
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
    let millis = v.check(
        field,
        millis.ok_or("must be a time between the years 1970 and 9999"),
    )?;
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
        position: event
            .position
            .map(|position| position.to_string())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt;
    use prost_types::Timestamp;

    use super::*;

    #[tokio::test]
    async fn a_search_waits_while_two_are_under_way() {
        let database = crate::testing::sqlite();
        let purposes = [audit::KEYRING_PURPOSE, log::KEYRING_PURPOSE];
        let (db, keyring, _) =
            crate::testing::migrated::<crate::store::fixture::Migrator>(&database.url, &purposes).await;
        let api = AuditApi::new(db, keyring);
        let under_way = api.searches.clone().acquire_many_owned(2).await.unwrap();
        let mut third = api.list_audit_events(Request::new(pb::ListAuditEventsRequest::default()));
        for _ in 0..100 {
            assert!(third.as_mut().now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        drop(under_way);
        assert!(third.await.unwrap().into_inner().audit_events.is_empty());
        assert_eq!(api.searches.available_permits(), 2);
    }

    #[test]
    fn every_violation_is_reported_at_once() {
        let violations = parse(&pb::ListAuditEventsRequest {
            tenant_id: "No".into(),
            client_id: "cli_".into(),
            action: "a".repeat(201),
            actor_id: "\0".into(),
            subject: "a\nb".into(),
            outcome: 9,
            start_time: Some(Timestamp {
                seconds: -1,
                nanos: 0,
            }),
            end_time: Some(Timestamp {
                seconds: 0,
                nanos: -1,
            }),
            page_size: -1,
            page_token: String::new(),
        })
        .unwrap_err();
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "action",
                "actor_id",
                "subject",
                "outcome",
                "tenant_id",
                "client_id",
                "start_time",
                "end_time",
                "page_size",
            ]
        );
    }

    #[test]
    fn a_page_token_is_valid_only_for_the_same_filters() {
        let first = pb::ListAuditEventsRequest {
            action: "tenant.create".into(),
            page_size: 1,
            ..Default::default()
        };
        let (_, page) = parse(&first).unwrap();
        let places = ["sealed/7/1/25/3", "sealed/7/1/25/2"];
        let (_, token) = page
            .finish(places.to_vec(), |place| (*place).to_owned())
            .into_parts();
        let with = |change: fn(&mut pb::ListAuditEventsRequest)| {
            let mut request = pb::ListAuditEventsRequest {
                page_token: token.clone(),
                ..first.clone()
            };
            change(&mut request);
            parse(&request).is_ok()
        };
        assert!(with(|request| request.page_size = 7));
        assert!(!with(|request| request.action = "tenant.update".into()));
        assert!(!with(|request| request.outcome = 1));
        assert!(!with(
            |request| request.start_time = Some(Timestamp { seconds: 1, nanos: 0 })
        ));
        assert!(!with(
            |request| request.end_time = Some(Timestamp { seconds: 1, nanos: 0 })
        ));
    }

    #[test]
    fn a_page_token_that_holds_no_place_is_a_violation() {
        let (_, page) = parse(&pb::ListAuditEventsRequest::default()).unwrap();
        let many = vec!["not a place"; 60];
        let (_, page_token) = page.finish(many, |id| (*id).to_owned()).into_parts();
        let request = pb::ListAuditEventsRequest {
            page_token,
            ..Default::default()
        };
        let violations = parse(&request).unwrap_err();
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["page_token"]);
    }

    #[test]
    fn times_are_rounded_up_to_the_millisecond() {
        let mut v = Violations::default();
        let mut millis = |nanos| {
            let time = time(&mut v, "t", Some(&Timestamp { seconds: 1, nanos }));
            time.map(UnixMillis::as_millis)
        };
        assert_eq!(millis(0), Some(1000));
        assert_eq!(millis(1), Some(1001));
        assert_eq!(millis(1_000_000), Some(1001));
        assert_eq!(millis(999_999_999), Some(2000));
    }
}
