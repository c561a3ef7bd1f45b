//! What an approval is worth: by whom, of what, and once it was used or its client changed.

use super::*;

#[tokio::test]
async fn who_submitted_a_request_needs_another_to_approve_it() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let both = operator(&harness, "Eve", &[Role::Registrar, Role::Approver], "Eve").await;
    let admin = harness.operator(Role::Admin);
    for (channel, is_admin) in [(both, false), (admin, true)] {
        let mut requests = IntegrationRequestServiceClient::new(channel);
        let submit = submission(&["acme"], &["contacts.read"]);
        let submitted = ok(requests.submit_integration_request(submit).await)
            .integration_request
            .unwrap();
        let approve = pb::ApproveIntegrationRequestRequest {
            integration_request_id: submitted.integration_request_id,
        };
        let answer = requests.approve_integration_request(approve.clone()).await;
        if is_admin {
            ok(answer);
        } else {
            assert_rejected(answer, Code::PermissionDenied, "SECOND_OPERATOR_REQUIRED");
            let mut approver = IntegrationRequestServiceClient::new(harness.operator(Role::Approver));
            ok(approver.approve_integration_request(approve).await);
        }
    }
    let events = harness.audit_events("integration_request.approve").await;
    let same: Vec<_> = events
        .iter()
        .map(|event| event.detail.contains_key("same_person"))
        .collect();
    assert_eq!(
        same,
        [true, false, true],
        "the admin's, the other person's, and the rejected one"
    );
    // The tenant is told.
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    let request = pb::ListOperatorActionsRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let actions = ok(directory.list_operator_actions(request).await).operator_actions;
    let told: Vec<_> = actions
        .iter()
        .filter(|action| action.action == "integration_request.approve")
        .map(|action| action.single_person)
        .collect();
    assert_eq!(told, same);
}

#[tokio::test]
async fn an_approval_is_worth_nothing_once_the_client_was_narrowed() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    harness.scope("contacts.write").await;
    let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = register(&approved.integration_request_id, pb::DeliveryMethod::Link);
    let eve = operator(&harness, "Eve", &OPERATORS, "Eve").await;
    let mut clients = ClientServiceClient::new(eve);
    let client = ok(clients.register_client(register).await).client.unwrap();
    let write = pb::RequestedScope {
        name: "contacts.write".into(),
        reason: "to write".into(),
    };
    let wider = pb::SubmitIntegrationRequestRequest {
        client_id: client.client_id.clone(),
        scopes: vec![write.clone()],
        ..Default::default()
    };
    let applied = harness.approved(wider.clone()).await;
    let pending = harness.approved(wider).await;
    let amending = |id: &str| pb::AmendClientRequest {
        integration_request_id: id.to_owned(),
    };
    let widened = ok(clients.amend_client(amending(&applied)).await).client.unwrap();
    assert!(widened.scopes.contains(&write));
    let as_before = pb::Client {
        etag: String::new(),
        ..client.clone()
    };
    let narrowing = pb::UpdateClientRequest {
        client: Some(as_before),
        update_mask: mask(&["scopes"]),
    };
    let narrowed = ok(clients.update_client(narrowing).await).client.unwrap();
    assert_eq!(narrowed.scopes, client.scopes);

    let repeated = clients.amend_client(amending(&applied)).await;
    assert_rejected(repeated, Code::FailedPrecondition, "WRONG_STATE");
    let outdated = clients.amend_client(amending(&pending)).await;
    assert_rejected(outdated, Code::Aborted, "ETAG_MISMATCH");
    let reading = pb::GetClientRequest {
        client_id: client.client_id,
    };
    assert_eq!(ok(clients.get_client(reading).await).client, Some(narrowed));
}

#[tokio::test]
async fn one_person_reinstates_what_two_have_granted_and_nothing_more() {
    let harness = Harness::start_with_second_operator().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let request = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = register(&request.integration_request_id, pb::DeliveryMethod::Link);
    let mut clients = ClientServiceClient::new(harness.operator(Role::Registrar));
    let registered = ok(clients.register_client(register).await).client.unwrap();
    let client_id = registered.client_id.clone();
    let user = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        account_name: "api".into(),
        label: "API user 1".into(),
        ..Default::default()
    };
    let mut users = UserServiceClient::new(harness.operator(Role::Registrar));
    let user = ok(users.register_user(user).await).user.unwrap();

    let eve = operator(&harness, "Eve", &[Role::Security], "Eve").await;
    let mut clients = ClientServiceClient::new(eve.clone());
    let mut tenants = TenantServiceClient::new(eve.clone());
    let mut users = UserServiceClient::new(eve);
    let reason = || "a test".to_owned();
    let tenant_id = || "acme".to_owned();
    let suspend = pb::SuspendClientRequest {
        client_id: client_id.clone(),
        reason: reason(),
    };
    ok(clients.suspend_client(suspend).await);
    let suspend = pb::SuspendTenantRequest {
        tenant_id: tenant_id(),
        reason: reason(),
    };
    ok(tenants.suspend_tenant(suspend).await);
    let deactivate = pb::DeactivateUserRequest {
        tenant_id: tenant_id(),
        user_id: user.user_id.clone(),
        reason: reason(),
    };
    ok(users.deactivate_user(deactivate).await);

    let reinstate = pb::ReinstateClientRequest { client_id };
    let client = ok(clients.reinstate_client(reinstate).await).client.unwrap();
    assert_eq!(
        client,
        pb::Client {
            etag: client.etag.clone(),
            update_time: client.update_time,
            ..registered
        }
    );
    let reinstate = pb::ReinstateTenantRequest {
        tenant_id: tenant_id(),
    };
    let tenant = ok(tenants.reinstate_tenant(reinstate).await).tenant.unwrap();
    assert_eq!(tenant.cloud_api_url, "https://api.example/acme");
    let reactivate = pb::ReactivateUserRequest {
        tenant_id: tenant_id(),
        user_id: user.user_id.clone(),
    };
    let reactivated = ok(users.reactivate_user(reactivate).await).user.unwrap();
    assert_eq!(
        reactivated,
        pb::User {
            update_time: reactivated.update_time,
            ..user
        }
    );
    for action in ["client.reinstate", "tenant.reinstate", "user.reactivate"] {
        assert_eq!(harness.audit_events(action).await.len(), 1, "{action}");
    }
}
