//! `IntegrationRequestService`.

use accord::{
    registry::v1::{
        self as pb, IntegrationRequestState as State, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        scope_service_client::ScopeServiceClient, tenant_service_client::TenantServiceClient,
    },
    rpc::auth::Role,
};
use prost_types::FieldMask;
use tonic::Code;

use crate::harness::{
    CallerChannel, Harness, assert_rejected, assert_violations, ok, request_id, submission,
};

mod amendment;
pub mod security;

const UNKNOWN: &str = "irq_01k9zzzzzzzzzzzzzzzzzzzzzz";

fn client(harness: &Harness) -> IntegrationRequestServiceClient<CallerChannel> {
    IntegrationRequestServiceClient::new(harness.operator(Role::Admin))
}

async fn seeded() -> Harness {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    harness.tenant("globex").await;
    harness.scope("contacts.read").await;
    harness.scope("contacts.write").await;
    harness
}

async fn get(harness: &Harness, id: &str) -> pb::IntegrationRequest {
    let request = pb::GetIntegrationRequestRequest {
        integration_request_id: id.into(),
    };
    ok(client(harness).get_integration_request(request).await)
        .integration_request
        .unwrap()
}

fn approve(id: &str) -> pb::ApproveIntegrationRequestRequest {
    pb::ApproveIntegrationRequestRequest {
        integration_request_id: id.into(),
    }
}

fn reject(id: &str, reason: &str) -> pb::RejectIntegrationRequestRequest {
    pb::RejectIntegrationRequestRequest {
        integration_request_id: id.into(),
        reason: reason.into(),
    }
}

async fn count(harness: &Harness) -> usize {
    let request = pb::ListIntegrationRequestsRequest::default();
    ok(client(harness).list_integration_requests(request).await)
        .integration_requests
        .len()
}

#[tokio::test]
async fn a_request_is_stored_as_submitted() {
    let harness = seeded().await;
    let given = pb::SubmitIntegrationRequestRequest {
        notes: "two\nlines".into(),
        redirect_uris: vec!["https://app.example/cb?x=1".into(), "http://127.0.0.1/cb".into()],
        ..submission(&["globex", "acme"], &["contacts.write", "contacts.read"])
    };
    let created = ok(client(&harness).submit_integration_request(given.clone()).await)
        .integration_request
        .unwrap();
    assert!(created.integration_request_id.starts_with("irq_"));
    assert_eq!(created.state(), State::Submitted);
    assert_eq!(
        (&created.client_id, &created.rejection_reason),
        (&String::new(), &String::new())
    );
    assert_eq!(created.create_time, created.update_time);
    let stored = pb::SubmitIntegrationRequestRequest {
        partner_name: created.partner_name.clone(),
        display_name: created.display_name.clone(),
        contact_email: created.contact_email.clone(),
        goals: created.goals.clone(),
        tenant_ids: created.tenant_ids.clone(),
        scopes: created.scopes.clone(),
        redirect_uris: created.redirect_uris.clone(),
        notes: created.notes.clone(),
        ..Default::default()
    };
    assert_eq!(stored, given);
    let nameless = pb::SubmitIntegrationRequestRequest {
        display_name: String::new(),
        ..given
    };
    let answer = client(&harness).submit_integration_request(nameless).await;
    let stored = answer.unwrap().into_inner().integration_request.unwrap();
    assert_eq!(stored.display_name, created.partner_name);
    assert_eq!(get(&harness, &created.integration_request_id).await, created);

    let events = harness.audit_events("integration_request.submit").await;
    assert_eq!(events[1].subject, created.integration_request_id);
    let presented = &events[1].detail["presentation"];
    for text in [&created.display_name, &created.partner_name, &created.goals] {
        assert!(presented.contains(text), "{presented} lacks {text}");
    }
    assert!(
        !format!("{events:?}").contains("dev@partner.example"),
        "an e-mail address in the audit record"
    );
}

#[tokio::test]
async fn a_request_may_name_a_suspended_tenant_but_no_disabled_scope() {
    let harness = seeded().await;
    let request = pb::SuspendTenantRequest {
        tenant_id: "acme".into(),
        reason: "a test".into(),
    };
    TenantServiceClient::new(harness.operator(Role::Security))
        .suspend_tenant(request)
        .await
        .unwrap();
    harness.submitted_request(&["acme"], &["contacts.read"]).await;

    let request = pb::UpdateScopeRequest {
        scope: Some(pb::Scope {
            name: "contacts.read".into(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["enabled".into()],
        }),
    };
    ScopeServiceClient::new(harness.operator(Role::Admin))
        .update_scope(request)
        .await
        .unwrap();
    let wanted = submission(&["acme"], &["contacts.write", "contacts.read"]);
    let refused = client(&harness).submit_integration_request(wanted).await;
    assert_violations(refused, &["scopes[1].name"]);
    assert_eq!(count(&harness).await, 1);
}

#[tokio::test]
async fn all_violations_are_reported_at_once_with_unknown_references() {
    let harness = seeded().await;
    let mut bad = submission(
        &["acme", "nowhere", "acme", "Bad"],
        &["contacts.read", "unknown", "contacts.read"],
    );
    bad.request_id = "1".into();
    bad.contact_email = "partner.example".into();
    bad.goals = String::new();
    bad.scopes[0].reason = " ".into();
    bad.redirect_uris.push("http://app.example/cb".into());
    let refused = client(&harness).submit_integration_request(bad).await;
    assert_violations(
        refused,
        &[
            "request_id",
            "contact_email",
            "goals",
            "tenant_ids[1]",
            "tenant_ids[2]",
            "tenant_ids[3]",
            "scopes[0].reason",
            "scopes[1].name",
            "scopes[2].name",
            "redirect_uris[1]",
        ],
    );
    let empty = pb::SubmitIntegrationRequestRequest::default();
    let refused = client(&harness).submit_integration_request(empty).await;
    let required = [
        "partner_name",
        "contact_email",
        "goals",
        "tenant_ids",
        "scopes",
        "redirect_uris",
    ];
    assert_violations(refused, &required);
    let well_formed = submission(&["nowhere"], &["unknown"]);
    let refused = client(&harness).submit_integration_request(well_formed).await;
    assert_violations(refused, &["tenant_ids[0]", "scopes[0].name"]);
    assert_eq!(count(&harness).await, 0);
    assert!(
        harness
            .audit_events("integration_request.submit")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_repeated_submission_makes_one_request() {
    let harness = seeded().await;
    let call = pb::SubmitIntegrationRequestRequest {
        request_id: request_id(),
        ..submission(&["acme"], &["contacts.read"])
    };
    let first = client(&harness)
        .submit_integration_request(call.clone())
        .await
        .unwrap();
    let second = client(&harness)
        .submit_integration_request(call.clone())
        .await
        .unwrap();
    assert_eq!(first.get_ref(), second.get_ref());
    // A UUID is the same in capitals (RFC 9562 section 4).
    let capitals = pb::SubmitIntegrationRequestRequest {
        request_id: call.request_id.to_uppercase(),
        ..call.clone()
    };
    let third = client(&harness)
        .submit_integration_request(capitals)
        .await
        .unwrap();
    assert_eq!(first.get_ref(), third.get_ref());
    let other = pb::SubmitIntegrationRequestRequest {
        goals: "Something else".into(),
        ..call.clone()
    };
    let reused = client(&harness).submit_integration_request(other).await;
    assert_rejected(reused, Code::AlreadyExists, "REQUEST_ID_REUSED");
    assert_eq!(count(&harness).await, 1);

    // Request ids of different operators are independent.
    let mut registrar = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    registrar.submit_integration_request(call).await.unwrap();
    assert_eq!(count(&harness).await, 2);
}

#[tokio::test]
async fn a_request_is_approved_or_rejected_once() {
    let harness = seeded().await;
    let first = harness.submitted_request(&["acme"], &["contacts.read"]).await;
    let second = harness.submitted_request(&["acme"], &["contacts.read"]).await;
    harness.clock.advance(std::time::Duration::from_secs(1));

    let id = &first.integration_request_id;
    let approved = ok(client(&harness).approve_integration_request(approve(id)).await)
        .integration_request
        .unwrap();
    assert_eq!(approved.state(), State::Approved);
    assert!(approved.update_time != approved.create_time);
    let again = client(&harness).approve_integration_request(approve(id)).await;
    let metadata = assert_rejected(again, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(
        (metadata["resource"].as_str(), metadata["state"].as_str()),
        ("integration_request", "APPROVED")
    );
    let late = client(&harness)
        .reject_integration_request(reject(id, "late"))
        .await;
    assert_rejected(late, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(get(&harness, id).await, approved);

    let id = &second.integration_request_id;
    let rejected = ok(client(&harness)
        .reject_integration_request(reject(id, "no need"))
        .await)
    .integration_request
    .unwrap();
    assert_eq!(
        (rejected.state(), rejected.rejection_reason.as_str()),
        (State::Rejected, "no need")
    );
    let again = client(&harness)
        .reject_integration_request(reject(id, "no need"))
        .await;
    let metadata = assert_rejected(again, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "REJECTED");
    assert_eq!(harness.audit_events("integration_request.approve").await.len(), 1);
    assert_eq!(harness.audit_events("integration_request.reject").await.len(), 1);
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_rejected() {
    let harness = seeded().await;
    let mut client = client(&harness);
    let unknown = pb::GetIntegrationRequestRequest {
        integration_request_id: UNKNOWN.into(),
    };
    let metadata = assert_rejected(
        client.get_integration_request(unknown).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    assert_eq!(metadata["resource"], "integration_request");
    let unknown = client.approve_integration_request(approve(UNKNOWN)).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    let unknown = client.reject_integration_request(reject(UNKNOWN, "why")).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");

    let malformed = client
        .get_integration_request(pb::GetIntegrationRequestRequest::default())
        .await;
    assert_violations(malformed, &["integration_request_id"]);
    let malformed = client.approve_integration_request(approve("1")).await;
    assert_violations(malformed, &["integration_request_id"]);
    let malformed = client.reject_integration_request(reject("1", "")).await;
    assert_violations(malformed, &["integration_request_id", "reason"]);
    let malformed = pb::ListIntegrationRequestsRequest {
        state: 9,
        page_size: -1,
        page_token: String::new(),
    };
    let malformed = client.list_integration_requests(malformed).await;
    assert_violations(malformed, &["state", "page_size"]);
}

#[tokio::test]
async fn lists_are_newest_first_and_filtered_by_state() {
    let harness = seeded().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        harness.clock.advance(std::time::Duration::from_millis(1));
        let created = harness.submitted_request(&["acme"], &["contacts.read"]).await;
        ids.insert(0, created.integration_request_id);
    }
    client(&harness)
        .approve_integration_request(approve(&ids[1]))
        .await
        .unwrap();
    let list = async |state: State, page_size, page_token: &str| {
        let request = pb::ListIntegrationRequestsRequest {
            state: state.into(),
            page_size,
            page_token: page_token.into(),
        };
        client(&harness)
            .list_integration_requests(request)
            .await
            .map(|answer| {
                let page = answer.into_inner();
                let ids = page
                    .integration_requests
                    .into_iter()
                    .map(|r| r.integration_request_id);
                (ids.collect::<Vec<_>>(), page.next_page_token)
            })
    };
    let (first, token) = list(State::Unspecified, 2, "").await.unwrap();
    assert_eq!(first, ids[..2]);
    assert_violations(list(State::Approved, 2, &token).await, &["page_token"]);
    let (rest, end) = list(State::Unspecified, 2, &token).await.unwrap();
    assert_eq!((rest.as_slice(), end.as_str()), (&ids[2..], ""));
    let (approved, _) = list(State::Approved, 0, "").await.unwrap();
    assert_eq!(approved, ids[1..2]);
}

async fn submitted_id(harness: &Harness, request: pb::SubmitIntegrationRequestRequest) -> String {
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let submitted = ok(requests.submit_integration_request(request).await);
    submitted.integration_request.unwrap().integration_request_id
}
