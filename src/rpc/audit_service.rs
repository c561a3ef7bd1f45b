//! `AuditService`, the same in both services: each reads its own audit trail.

use tonic::{Request, Response, Status};

use crate::{
    audit::v1::{self as pb, audit_service_server::AuditService},
    clock::UnixMillis,
    rpc::status::Problem,
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

/// The longest action, actor id or subject that is looked for, in characters.
const MAX_TEXT: usize = 200;

/// Serves the audit trail of one database.
#[derive(Clone, Debug)]
pub struct AuditApi {
    db: Database,
}

impl AuditApi {
    /// Serves the audit trail of `db`, which is migrated.
    pub fn new(db: Database) -> Self {
        Self { db }
    }
}

#[tonic::async_trait]
impl AuditService for AuditApi {
    async fn list_audit_events(
        &self,
        request: Request<pb::ListAuditEventsRequest>,
    ) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
        let (filter, page) = read(request.get_ref()).map_err(Problem::from)?;
        let events = audit::list(self.db.read(), &filter, &page)
            .await
            .map_err(Problem::from)?;
        let page = events.map(message);
        Ok(Response::new(pb::ListAuditEventsResponse {
            audit_events: page.items,
            next_page_token: page.next_page_token,
        }))
    }

    async fn verify_audit_log(
        &self,
        _: Request<pb::VerifyAuditLogRequest>,
    ) -> Result<Response<pb::VerifyAuditLogResponse>, Status> {
        Err(Problem::not_available("VerifyAuditLog").into())
    }

    async fn get_checkpoint(
        &self,
        _: Request<pb::GetCheckpointRequest>,
    ) -> Result<Response<pb::GetCheckpointResponse>, Status> {
        Err(Problem::not_available("GetCheckpoint").into())
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<pb::GetInclusionProofRequest>,
    ) -> Result<Response<pb::GetInclusionProofResponse>, Status> {
        Err(Problem::not_available("GetInclusionProof").into())
    }

    async fn get_consistency_proof(
        &self,
        _: Request<pb::GetConsistencyProofRequest>,
    ) -> Result<Response<pb::GetConsistencyProofResponse>, Status> {
        Err(Problem::not_available("GetConsistencyProof").into())
    }

    async fn trace_token(
        &self,
        _: Request<pb::TraceTokenRequest>,
    ) -> Result<Response<pb::TraceTokenResponse>, Status> {
        Err(Problem::not_available("TraceToken").into())
    }
}

crate::message_enum!(Outcome = pb::AuditOutcome { Success, Refused });
crate::message_enum!(
    ActorKind = pb::AuditActorKind {
        Operator,
        Workload,
        Client,
        TenantAdmin,
        Anonymous,
        System
    }
);

/// Reads a `ListAuditEventsRequest`, or finds all that is wrong with it.
fn read(request: &pb::ListAuditEventsRequest) -> Result<(Filter, PageRequest), Violations> {
    let mut v = Violations::default();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut text = |field: &str, value: &str| given(&v.text(field, value, 0..=MAX_TEXT).unwrap_or_default());
    let action = text("action", &request.action);
    let actor_id = text("actor_id", &request.actor_id);
    let subject = text("subject", &request.subject);
    let filter = Filter {
        tenant_id: given(&request.tenant_id).and_then(|id| v.check("tenant_id", TenantId::parse(&id))),
        client_id: given(&request.client_id).and_then(|id| v.check("client_id", ClientId::parse(&id))),
        action,
        actor_id,
        subject,
        outcome: v
            .filter::<pb::AuditOutcome, _>("outcome", request.outcome)
            .flatten(),
        from: time(&mut v, "start_time", request.start_time.as_ref()),
        until: time(&mut v, "end_time", request.end_time.as_ref()),
    };
    let millis = |time: Option<UnixMillis>| time.map(|time| time.as_millis().to_string()).unwrap_or_default();
    let (number, from, until) = (
        request.outcome.to_string(),
        millis(filter.from),
        millis(filter.until),
    );
    let filters = [
        request.tenant_id.as_str(),
        &request.client_id,
        &request.action,
        &request.actor_id,
        &request.subject,
        &number,
        &from,
        &until,
    ];
    let page = PageRequest::parse(
        &mut v,
        "audit_events",
        &filters,
        request.page_size,
        &request.page_token,
    );
    v.finish(|| Some((filter, page?)))
}

/// The first whole millisecond that is not before the time: events have whole milliseconds, so both
/// "at or after" and "before" compare with it.
fn time(v: &mut Violations, field: &str, timestamp: Option<&prost_types::Timestamp>) -> Option<UnixMillis> {
    let timestamp = timestamp?;
    let Some(below) = UnixMillis::from_timestamp(timestamp) else {
        v.add(field, "must be a time between the years 1970 and 9999");
        return None;
    };
    if timestamp.nanos % 1_000_000 == 0 {
        Some(below)
    } else {
        Some(below.plus(std::time::Duration::from_millis(1)))
    }
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
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn every_violation_is_found_at_once() {
        let violations = read(&pb::ListAuditEventsRequest {
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
                "tenant_id",
                "client_id",
                "outcome",
                "start_time",
                "end_time",
                "page_size",
            ]
        );
    }

    #[test]
    fn a_page_token_holds_for_the_same_filters_alone() {
        let first = pb::ListAuditEventsRequest {
            action: "tenant.create".into(),
            page_size: 1,
            ..Default::default()
        };
        let (_, page) = read(&first).unwrap();
        let token = page.finish(vec!["b", "a"], |id| (*id).to_owned()).next_page_token;
        let with = |change: fn(&mut pb::ListAuditEventsRequest)| {
            let mut request = pb::ListAuditEventsRequest {
                page_token: token.clone(),
                ..first.clone()
            };
            change(&mut request);
            read(&request).is_ok()
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
