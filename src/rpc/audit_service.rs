//! `AuditService` of both services. Each serves its own audit trail.

use std::{sync::Arc, time::Duration};

use prost::Message;
use tokio::sync::Semaphore;
use tonic::{Request, Response};

use crate::{
    audit::v1::{self as pb, audit_service_server::AuditService},
    clock::UnixMillis,
    rpc::status::{Problem, Reply},
    store::{
        Database,
        audit::{self, ActorKind, EventRow, Filter, Outcome},
    },
    text::{
        id::{ClientId, TenantId},
        page::PageRequest,
        validation::Violations,
    },
};

/// The longest action, actor id or subject of a filter, in characters.
const MAX_TEXT: usize = 200;

/// The most searches at a time. Further ones wait: a search may read millions of rows, and takes a connection meanwhile.
const MAX_SEARCHES: usize = 2;

/// Serves the audit trail of a database.
#[derive(Clone, Debug)]
pub struct AuditApi {
    db: Database,
    searches: Arc<Semaphore>,
}

impl AuditApi {
    /// Serves the audit trail of a migrated database.
    pub fn new(db: Database) -> Self {
        let searches = Arc::new(Semaphore::new(MAX_SEARCHES));
        Self { db, searches }
    }
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Reply<pb::ListAuditEventsResponse> {
        let (filter, page) = parse(request.get_ref())?;
        let permit = self.searches.clone().acquire_owned().await;
        let permit = permit.map_err(|_| Problem::unavailable())?;
        let db = self.db.clone();
        // In a task, because a database does not stop when the caller goes away.
        let search = tokio::spawn(async move {
            let _permit = permit;
            audit::list(db.read(), &filter, &page).await
        });
        let events = search.await.map_err(|error| Problem::internal(&error))?;
        let page = events.map_err(Problem::from)?.map(message);
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
        Err(Problem::not_available("VerifyAuditLog").into())
    }

    async fn get_checkpoint(&self, _: Request<pb::GetCheckpointRequest>) -> Reply<pb::GetCheckpointResponse> {
        Err(Problem::not_available("GetCheckpoint").into())
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<pb::GetInclusionProofRequest>,
    ) -> Reply<pb::GetInclusionProofResponse> {
        Err(Problem::not_available("GetInclusionProof").into())
    }

    async fn get_consistency_proof(
        &self,
        _: Request<pb::GetConsistencyProofRequest>,
    ) -> Reply<pb::GetConsistencyProofResponse> {
        Err(Problem::not_available("GetConsistencyProof").into())
    }

    async fn trace_token(&self, _: Request<pb::TraceTokenRequest>) -> Reply<pb::TraceTokenResponse> {
        Err(Problem::not_available("TraceToken").into())
    }
}

crate::message_enum!(Outcome = pb::AuditOutcome { Success, Refused });
crate::message_enum! {
    ActorKind = pb::AuditActorKind { Operator, Workload, Client, TenantAdmin, Anonymous, System }
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
        let db = Database::connect(&database.url).await.unwrap();
        db.migrate::<crate::store::fixture::Migrator>().await.unwrap();
        let api = AuditApi::new(db);
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
        let (_, token) = page.finish(vec!["b", "a"], |id| (*id).to_owned()).into_parts();
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
