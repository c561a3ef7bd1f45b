//! Requests that amend a client.

use super::*;

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
    let metadata = assert_rejected(early, Code::FailedPrecondition, "WRONG_STATE");
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
    let metadata = assert_rejected(again, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "REGISTERED");

    // Rejects an amendment of a client that has changed since.
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
    let metadata = assert_rejected(clients.amend_client(amend).await, Code::Aborted, "ETAG_MISMATCH");
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
    for (id, is_malformed) in [
        ("1", true),
        (UNKNOWN, false),
        (&created.integration_request_id, true),
    ] {
        let amend = pb::AmendClientRequest {
            integration_request_id: id.into(),
        };
        let refused = clients.amend_client(amend).await;
        match is_malformed {
            true => assert_violations(refused, &["integration_request_id"]),
            false => drop(assert_rejected(refused, Code::NotFound, "NOT_FOUND")),
        }
    }
}
