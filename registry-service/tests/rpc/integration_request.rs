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

use crate::harness::ok;
use crate::harness::{CallerChannel, Harness, assert_refused, assert_violations, request_id, submission};

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
    let nameless = answer.unwrap().into_inner().integration_request.unwrap();
    assert_eq!(nameless.display_name, created.partner_name);
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
    assert_refused(reused, Code::AlreadyExists, "REQUEST_ID_REUSED");
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
    let metadata = assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(
        (metadata["resource"].as_str(), metadata["state"].as_str()),
        ("integration_request", "APPROVED")
    );
    let late = client(&harness)
        .reject_integration_request(reject(id, "late"))
        .await;
    assert_refused(late, Code::FailedPrecondition, "WRONG_STATE");
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
    let metadata = assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
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
    let metadata = assert_refused(
        client.get_integration_request(unknown).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    assert_eq!(metadata["resource"], "integration_request");
    let unknown = client.approve_integration_request(approve(UNKNOWN)).await;
    assert_refused(unknown, Code::NotFound, "NOT_FOUND");
    let unknown = client.reject_integration_request(reject(UNKNOWN, "why")).await;
    assert_refused(unknown, Code::NotFound, "NOT_FOUND");

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

#[tokio::test]
async fn a_request_may_amend_a_client() {
    let harness = Harness::start().await;
    crate::client::seed(&harness).await;
    let (created, _) = crate::client::registered(&harness).await;
    let request = pb::SubmitIntegrationRequestRequest {
        client_id: created.client_id.clone(),
        display_name: "Contact Sync 2".into(),
        goals: "Also send them back".into(),
        redirect_uris: vec!["https://app.partner.example/v2".into()],
        ..Default::default()
    };
    let mut registrars = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let submitted = ok(registrars.submit_integration_request(request.clone()).await);
    let submitted = submitted.integration_request.unwrap();
    let expected = pb::IntegrationRequest {
        integration_request_id: submitted.integration_request_id.clone(),
        partner_name: created.partner_name.clone(),
        display_name: request.display_name.clone(),
        goals: request.goals.clone(),
        redirect_uris: request.redirect_uris.clone(),
        state: State::Submitted.into(),
        client_id: created.client_id.clone(),
        create_time: submitted.create_time,
        update_time: submitted.update_time,
        client_etag: created.etag.clone(),
        ..Default::default()
    };
    assert_eq!(submitted, expected);
    let id = &submitted.integration_request_id;
    assert_eq!(get(&harness, id).await, submitted);
    let event = harness.audit_events("integration_request.submit").await.remove(0);
    assert_eq!(event.client_id, created.client_id);

    let mut clients = ClientServiceClient::new(harness.operator(Role::Registrar));
    let amend = pb::AmendClientRequest {
        integration_request_id: id.clone(),
    };
    let early = clients.amend_client(amend.clone()).await;
    let metadata = assert_refused(early, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "SUBMITTED");
    ok(client(&harness).approve_integration_request(approve(id)).await);
    let register = pb::RegisterClientRequest {
        integration_request_id: id.clone(),
        ..Default::default()
    };
    assert_violations(
        clients.register_client(register).await,
        &["integration_request_id"],
    );
    let amended = ok(clients.amend_client(amend.clone()).await).client.unwrap();
    let expected = pb::Client {
        display_name: "Contact Sync 2".into(),
        redirect_uris: [created.redirect_uris.clone(), request.redirect_uris.clone()].concat(),
        update_time: amended.update_time,
        etag: "2".into(),
        ..created.clone()
    };
    assert_eq!(amended, expected);
    assert_eq!(get(&harness, id).await.state(), State::Registered);
    let again = clients.amend_client(amend).await;
    let metadata = assert_refused(again, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "REGISTERED");

    // An amendment of what has changed since.
    let other = pb::SubmitIntegrationRequestRequest {
        display_name: "Contact Sync 3".into(),
        ..request.clone()
    };
    let stale = submitted_id(&harness, other.clone()).await;
    harness.amend(&created.client_id, other).await;
    ok(client(&harness)
        .approve_integration_request(approve(&stale))
        .await);
    let amend = pb::AmendClientRequest {
        integration_request_id: stale,
    };
    let metadata = assert_refused(clients.amend_client(amend).await, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(metadata["resource"], "client");

    let bad = pb::SubmitIntegrationRequestRequest {
        client_id: created.client_id.clone(),
        partner_name: "Somebody else".into(),
        tenant_ids: vec!["nowhere".into()],
        ..Default::default()
    };
    let refused = registrars.submit_integration_request(bad).await;
    assert_violations(refused, &["partner_name", "tenant_ids[0]"]);
    let unknown = pb::SubmitIntegrationRequestRequest {
        client_id: "cli_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
        ..request
    };
    let refused = registrars.submit_integration_request(unknown).await;
    assert_violations(refused, &["client_id"]);
    for (id, field) in [
        ("1", true),
        (UNKNOWN, false),
        (&created.integration_request_id, true),
    ] {
        let amend = pb::AmendClientRequest {
            integration_request_id: id.into(),
        };
        let refused = clients.amend_client(amend).await;
        match field {
            true => assert_violations(refused, &["integration_request_id"]),
            false => drop(assert_refused(refused, Code::NotFound, "NOT_FOUND")),
        }
    }
}

async fn submitted_id(harness: &Harness, request: pb::SubmitIntegrationRequestRequest) -> String {
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Registrar));
    let submitted = ok(requests.submit_integration_request(request).await);
    submitted.integration_request.unwrap().integration_request_id
}
