//! Rejected calls in the audit record.

use std::{collections::BTreeSet, time::Duration};

use accord::{
    audit::v1::{
        AuditActorKind, AuditAddressSource, AuditEvent, AuditOutcome, ListAuditEventsRequest,
        audit_service_client::AuditServiceClient,
    },
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient,
        directory_service_client::DirectoryServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        operator_service_client::OperatorServiceClient, scope_service_client::ScopeServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    rpc::auth::{Role, WorkloadKind},
    text::opaque::TokenKind,
};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use crate::harness::{CallerChannel, Harness, assert_rejected, ok, strangers_token};

const SUSPEND: &str = "accord.registry.v1.TenantService/SuspendTenant";
const MINUTE: Duration = Duration::from_secs(60);

/// The events of rejected calls, the oldest first.
async fn rejected(harness: &Harness) -> Vec<AuditEvent> {
    let mut events = harness.audit_events("call.reject").await;
    events.reverse();
    events
}

async fn suspend(channel: CallerChannel) -> tonic::Status {
    let request = pb::SuspendTenantRequest {
        tenant_id: "acme".into(),
        reason: "a test".into(),
    };
    let mut tenants = TenantServiceClient::new(channel);
    tenants.suspend_tenant(request).await.unwrap_err()
}

fn calls(event: &AuditEvent) -> u64 {
    event
        .detail
        .get("count")
        .map_or(1, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_method_that_its_role_does_not_have_is_an_event_of_the_operator() {
    let harness = Harness::start().await;
    let operators = OperatorServiceClient::new(harness.operator(Role::Auditor))
        .list_operators(pb::ListOperatorsRequest::default())
        .await;
    let operators = ok(operators).operators;
    for (role, method) in [
        (Role::Registrar, SUSPEND),
        (Role::Approver, SUSPEND),
        (Role::Auditor, SUSPEND),
        (Role::Security, "accord.registry.v1.ScopeService/CreateScope"),
        (Role::Admin, "accord.registry.v1.DirectoryService/ListChanges"),
    ] {
        let channel = harness.operator(role);
        let status = match role {
            Role::Security => ScopeServiceClient::new(channel)
                .create_scope(pb::CreateScopeRequest::default())
                .await
                .unwrap_err(),
            Role::Admin => DirectoryServiceClient::new(channel)
                .list_changes(pb::ListChangesRequest::default())
                .await
                .unwrap_err(),
            _ => suspend(channel).await,
        };
        assert_rejected::<()>(Err(status), Code::PermissionDenied, "PERMISSION_DENIED");
        let event = rejected(&harness).await.pop().unwrap();
        let name = format!("the {}", role.as_ref());
        let operator = operators.iter().find(|operator| operator.name == name).unwrap();
        assert_eq!(event.actor_id, operator.operator_id, "{role:?}");
        assert_eq!(
            (event.actor_kind(), event.outcome()),
            (AuditActorKind::Operator, AuditOutcome::Refused)
        );
        assert_eq!(event.detail["method"], method);
        assert_eq!(event.detail["error_reason"], "PERMISSION_DENIED");
        assert_eq!(
            (event.caller_address.as_str(), event.caller_address_source()),
            ("127.0.0.1", AuditAddressSource::Peer)
        );
        assert!(event.request_id.len() >= 8 && !event.detail.contains_key("count"));
    }
}

#[tokio::test]
async fn a_broken_rule_is_an_event_with_its_reason_and_a_success_is_none() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let request = harness.submitted_request(&["acme"], &["contacts.read"]).await;
    assert_eq!(rejected(&harness).await, []);
    let mut clients = ClientServiceClient::new(harness.operator(Role::Registrar));
    let register = pb::RegisterClientRequest {
        integration_request_id: request.integration_request_id,
        ..Default::default()
    };
    let early = clients.register_client(register).await;
    assert_rejected(early, Code::FailedPrecondition, "WRONG_STATE");
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Registrar));
    let malformed = tenants.create_tenant(pb::CreateTenantRequest::default()).await;
    assert_rejected(malformed, Code::InvalidArgument, "INVALID_FIELDS");
    let again = pb::CreateTenantRequest {
        tenant_id: "acme".into(),
        display_name: "Acme".into(),
        cloud_api_url: "https://api.example".into(),
        ..Default::default()
    };
    assert_rejected(
        tenants.create_tenant(again).await,
        Code::AlreadyExists,
        "ALREADY_EXISTS",
    );
    let unknown = pb::GetTenantRequest {
        tenant_id: "globex".into(),
    };
    assert_rejected(tenants.get_tenant(unknown).await, Code::NotFound, "NOT_FOUND");
    let stale = pb::UpdateTenantRequest {
        tenant: Some(pb::Tenant {
            tenant_id: "acme".into(),
            display_name: "Acme".into(),
            etag: "99".into(),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["display_name".into()],
        }),
    };
    assert_rejected(tenants.update_tenant(stale).await, Code::Aborted, "ETAG_MISMATCH");
    let reasons: Vec<_> = rejected(&harness)
        .await
        .iter()
        .map(|event| event.detail["error_reason"].clone())
        .collect();
    let expected = [
        "WRONG_STATE",
        "INVALID_FIELDS",
        "ALREADY_EXISTS",
        "NOT_FOUND",
        "ETAG_MISMATCH",
    ];
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn a_revoked_credential_is_named_here_and_at_token_service_and_an_unknown_one_by_its_address() {
    let harness = Harness::start().await;
    let token = harness.operator_token(Role::Registrar).expose().to_owned();
    let mut operators = OperatorServiceClient::new(harness.operator(Role::Admin));
    let listed = ok(operators
        .list_operators(pb::ListOperatorsRequest::default())
        .await);
    let registrar = listed.operators.into_iter().find(|o| o.name == "the registrar");
    let operator_id = registrar.unwrap().operator_id;
    let revoke = pb::RevokeOperatorRequest {
        operator_id: operator_id.clone(),
        reason: "left".into(),
    };
    ok(operators.revoke_operator(revoke).await);

    suspend(harness.token(&token)).await;
    let event = rejected(&harness).await.pop().unwrap();
    assert_eq!(
        (event.actor_kind(), event.actor_id.as_str()),
        (AuditActorKind::Operator, operator_id.as_str())
    );
    assert_eq!(event.detail["error_reason"], "UNAUTHENTICATED");

    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::AuthenticateCallerRequest {
        token: token.clone(),
        ..Default::default()
    };
    directory.authenticate_caller(request).await.unwrap_err();
    let event = rejected(&harness).await.pop().unwrap();
    assert_eq!(event.actor_id, operator_id);
    assert_eq!(
        event.detail["method"],
        "accord.registry.v1.DirectoryService/AuthenticateCaller"
    );

    for stranger in [
        strangers_token(TokenKind::Operator),
        strangers_token(TokenKind::Claim),
        "x".into(),
    ] {
        suspend(harness.token(&stranger)).await;
        let events = rejected(&harness).await;
        let event = events.last().unwrap();
        assert_eq!(
            (event.actor_kind(), event.actor_id.as_str()),
            (AuditActorKind::Anonymous, "")
        );
        assert_eq!(event.caller_address, "127.0.0.1");
        let text = format!("{events:?}");
        assert!(stranger == "x" || !text.contains(&stranger[4..]) && !text.contains(&token[4..]));
    }
    // Who brings nothing is no more than a port scan.
    let before = rejected(&harness).await.len();
    suspend(harness.anonymous()).await;
    assert_eq!(rejected(&harness).await.len(), before);
    suspend(harness.workload(WorkloadKind::Gateway)).await;
    let event = rejected(&harness).await.pop().unwrap();
    assert_eq!(event.actor_kind(), AuditActorKind::Workload);
}

#[tokio::test]
async fn a_flood_of_10_000_costs_a_few_rows() {
    let harness = Harness::start().await;
    for _ in 0..100 {
        let mut flood = JoinSet::new();
        for _ in 0..100 {
            flood.spawn(suspend(harness.operator(Role::Approver)));
        }
        for status in flood.join_all().await {
            assert_eq!(status.code(), Code::PermissionDenied);
        }
    }
    suspend(harness.operator(Role::Registrar)).await;
    assert_eq!(rejected(&harness).await.len(), 11);
    harness.clock.advance(MINUTE);
    // The first rejected call of the next minute finds that the last one is over.
    suspend(harness.operator(Role::Registrar)).await;
    let events = rejected(&harness).await;
    assert_eq!(events.len(), 13, "{events:?}");
    assert_eq!(events.iter().map(calls).sum::<u64>(), 10_002);
    let count = events.iter().find(|event| calls(event) > 1).unwrap();
    assert_eq!((calls(count), count.outcome()), (9_990, AuditOutcome::Refused));
    assert_eq!(count.detail["method"], SUSPEND);
    assert_eq!(count.actor_id, events[0].actor_id);
}

#[tokio::test]
async fn the_list_filters_them_by_outcome_and_actor() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    suspend(harness.operator(Role::Approver)).await;
    suspend(harness.operator(Role::Registrar)).await;
    let mut audit = AuditServiceClient::new(harness.operator(Role::Auditor));
    let request = ListAuditEventsRequest {
        outcome: AuditOutcome::Refused.into(),
        ..Default::default()
    };
    let events = ok(audit.list_audit_events(request.clone()).await).audit_events;
    let actors: BTreeSet<_> = events.iter().map(|event| event.actor_id.clone()).collect();
    assert_eq!((events.len(), actors.len()), (2, 2));
    let request = ListAuditEventsRequest {
        actor_id: events[0].actor_id.clone(),
        ..request
    };
    let listed = ok(audit.list_audit_events(request).await).audit_events;
    // By their ids: an event has a position once it is sealed.
    let ids = |events: &[AuditEvent]| {
        events
            .iter()
            .map(|event| event.event_id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&listed), ids(&events[..1]));
}

#[tokio::test]
async fn a_flood_of_approvals_that_need_a_second_person_is_counted_too() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let request = pb::CreateOperatorRequest {
        name: "both".into(),
        roles: vec![
            pb::OperatorRole::Registrar.into(),
            pb::OperatorRole::Approver.into(),
        ],
        person: "Ada".into(),
        ..Default::default()
    };
    let mut operators = OperatorServiceClient::new(harness.operator(Role::Admin));
    let both = harness.token(&ok(operators.create_operator(request).await).operator_token);
    let mut requests = IntegrationRequestServiceClient::new(both);
    let submission = crate::harness::submission(&["acme"], &["contacts.read"]);
    let submitted = ok(requests.submit_integration_request(submission).await);
    let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
    for _ in 0..50 {
        let request = pb::ApproveIntegrationRequestRequest {
            integration_request_id: integration_request_id.clone(),
        };
        let refused = requests.approve_integration_request(Request::new(request)).await;
        assert_rejected(refused, Code::PermissionDenied, "SECOND_OPERATOR_REQUIRED");
    }
    harness.clock.advance(MINUTE);
    suspend(harness.operator(Role::Registrar)).await;
    let listed = harness.audit_events("integration_request.approve").await;
    assert_eq!(listed.len(), 10);
    assert_eq!(
        (
            listed[0].subject.as_str(),
            listed[0].detail["same_person"].as_str()
        ),
        (integration_request_id.as_str(), "submitted it")
    );
    let counts = rejected(&harness).await;
    let count = counts.iter().find(|event| calls(event) > 1).unwrap();
    assert_eq!(calls(count), 40);
    assert_eq!(count.detail["error_reason"], "SECOND_OPERATOR_REQUIRED");
}
