//! Events of updates: who changes something and changes it back leaves both values behind.

use std::collections::HashMap;

use accord::{
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        scope_service_client::ScopeServiceClient, tenant_service_client::TenantServiceClient,
    },
    rpc::auth::Role,
    testing::calls::ok,
};
use prost_types::FieldMask;
use serde_json::{Value, json};

use crate::harness::{Harness, assert_violations};

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask {
        paths: vec![path.to_owned()],
    })
}

/// Asserts the values of a field in the newest event of this action, and that it has no other.
async fn assert_changed(harness: &Harness, action: &str, field: &str, old: Value, new: Value) {
    let mut detail = harness.audit_events(action).await.remove(0).detail;
    let recorded: Value = serde_json::from_str(&detail.remove(field).unwrap()).unwrap();
    assert_eq!(recorded, json!({"old": old, "new": new}), "{action}");
    detail.remove("kids");
    assert!(detail.is_empty(), "{action}: {detail:?}");
}

#[tokio::test]
async fn an_update_records_the_old_and_the_new_values_of_what_it_sets() {
    let harness = Harness::start().await;
    let registrar = || harness.operator(Role::Registrar);
    let admin = || harness.operator(Role::Admin);
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;

    let update = pb::UpdateTenantRequest {
        tenant: Some(pb::Tenant {
            tenant_id: "acme".into(),
            cloud_api_url: "https://api.acme.example/v2".into(),
            ..Default::default()
        }),
        update_mask: mask("cloud_api_url"),
    };
    ok(TenantServiceClient::new(admin()).update_tenant(update).await);
    let (old, new) = ("https://api.example/acme", "https://api.acme.example/v2");
    assert_changed(&harness, "tenant.update", "cloud_api_url", json!(old), json!(new)).await;

    let update = pb::UpdateScopeRequest {
        scope: Some(pb::Scope {
            name: "contacts.read".into(),
            description: "Harmless".into(),
            ..Default::default()
        }),
        update_mask: mask("description"),
    };
    ok(ScopeServiceClient::new(admin()).update_scope(update).await);
    let (old, new) = (json!("Allows contacts.read"), json!("Harmless"));
    assert_changed(&harness, "scope.update", "description", old, new).await;

    let request = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = pb::RegisterClientRequest {
        integration_request_id: request.integration_request_id,
        ..Default::default()
    };
    let mut clients = ClientServiceClient::new(registrar());
    let client = ok(clients.register_client(register).await).client.unwrap();
    let other = "https://elsewhere.example/callback";
    // Another key of the same name.
    let key = |x: &str| format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"one","x":"{x}"}}"#);
    let keys = [
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "1yVBZgHjw2qa7Z4dgHCqoSf0u26r4W4KvWbQiLqbUsQ",
    ]
    .map(key);
    let additions = pb::SubmitIntegrationRequestRequest {
        redirect_uris: vec![other.into()],
        json_web_key_set: format!(r#"{{"keys":[{},{}]}}"#, keys[0], keys[1]),
        ..Default::default()
    };
    let amended = harness.amend(&client.client_id, additions).await;
    let mut detail = harness.audit_events("client.amend").await.remove(0).detail;
    detail.remove("integration_request_id").unwrap();
    let recorded = |detail: &mut HashMap<String, String>, field: &str| -> Value {
        serde_json::from_str(&detail.remove(field).unwrap()).unwrap()
    };
    assert_eq!(
        recorded(&mut detail, "redirect_uris"),
        json!({"old": client.redirect_uris, "new": amended.redirect_uris})
    );
    assert_eq!(
        recorded(&mut detail, "json_web_key_set"),
        json!({"old": "", "new": amended.json_web_key_set})
    );
    assert!(detail.is_empty(), "{detail:?}");

    let update = pb::UpdateClientRequest {
        client: Some(pb::Client {
            client_id: client.client_id.clone(),
            redirect_uris: vec![other.into()],
            ..Default::default()
        }),
        update_mask: mask("redirect_uris"),
    };
    ok(clients.update_client(update).await);
    let old = json!(amended.redirect_uris);
    assert_changed(&harness, "client.update", "redirect_uris", old, json!([other])).await;
    let set = pb::SetClientKeysRequest {
        client_id: client.client_id.clone(),
        json_web_key_set: format!(r#"{{"keys":[{}]}}"#, keys[1]),
    };
    let narrower = ok(clients.set_client_keys(set).await).client.unwrap();
    let (old, new) = (json!(amended.json_web_key_set), json!(narrower.json_web_key_set));
    assert_changed(&harness, "client.set_keys", "json_web_key_set", old, new).await;
}

#[tokio::test]
async fn a_rejection_records_its_reason() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let submitted = harness.submitted_request(&["acme"], &["contacts.read"]).await;
    let reject = pb::RejectIntegrationRequestRequest {
        integration_request_id: submitted.integration_request_id,
        reason: "too many scopes".into(),
    };
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Approver));
    ok(requests.reject_integration_request(reject).await);
    let event = harness.audit_events("integration_request.reject").await.remove(0);
    assert_eq!(event.detail["reason"], "too many scopes");
}

#[tokio::test]
async fn what_ends_or_suspends_something_records_its_reason() {
    use accord::registry::v1::{
        operator_service_client::OperatorServiceClient, user_service_client::UserServiceClient,
    };
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let (registrar, security) = (
        || harness.operator(Role::Registrar),
        || harness.operator(Role::Security),
    );
    let request = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = pb::RegisterClientRequest {
        integration_request_id: request.integration_request_id,
        ..Default::default()
    };
    let client = ok(ClientServiceClient::new(registrar())
        .register_client(register)
        .await)
    .client;
    let client_id = client.unwrap().client_id;
    let register = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        account_name: "api".into(),
        label: "API user".into(),
        ..Default::default()
    };
    let user = ok(UserServiceClient::new(registrar()).register_user(register).await).user;
    let user_id = user.unwrap().user_id;
    let mut operators = OperatorServiceClient::new(harness.operator(Role::Admin));
    let create = pb::CreateOperatorRequest {
        name: "Ada".into(),
        roles: vec![pb::OperatorRole::Auditor.into()],
        ..Default::default()
    };
    let operator_id = ok(operators.create_operator(create).await)
        .operator
        .unwrap()
        .operator_id;
    let create = pb::CreateWorkloadRequest {
        name: "pages".into(),
        kind: pb::WorkloadKind::Gateway.into(),
        ..Default::default()
    };
    let workload_id = ok(operators.create_workload(create).await)
        .workload
        .unwrap()
        .workload_id;

    // Every reason is required, has a limit, and is recorded.
    let long = "x".repeat(1001);
    for (reason, is_good) in [("", false), (" ", false), (&*long, false), ("it leaked", true)] {
        let suspend = pb::SuspendClientRequest {
            client_id: client_id.clone(),
            reason: reason.into(),
        };
        let client = ClientServiceClient::new(security())
            .suspend_client(suspend)
            .await
            .map(drop);
        let suspend = pb::SuspendTenantRequest {
            tenant_id: "acme".into(),
            reason: reason.into(),
        };
        let tenant = TenantServiceClient::new(security())
            .suspend_tenant(suspend)
            .await
            .map(drop);
        let deactivate = pb::DeactivateUserRequest {
            tenant_id: "acme".into(),
            user_id: user_id.clone(),
            reason: reason.into(),
        };
        let user = UserServiceClient::new(security())
            .deactivate_user(deactivate)
            .await
            .map(drop);
        let revoke = pb::RevokeOperatorRequest {
            operator_id: operator_id.clone(),
            reason: reason.into(),
        };
        let operator = operators.revoke_operator(revoke).await.map(drop);
        let revoke = pb::RevokeWorkloadRequest {
            workload_id: workload_id.clone(),
            reason: reason.into(),
        };
        let workload = operators.revoke_workload(revoke).await.map(drop);
        for answer in [client, tenant, user, operator, workload] {
            match is_good {
                true => answer.unwrap(),
                false => assert_violations(answer, &["reason"]),
            }
        }
    }
    for action in [
        "client.suspend",
        "tenant.suspend",
        "user.deactivate",
        "operator.revoke",
        "workload.revoke",
    ] {
        let events = harness.audit_events(action).await;
        assert_eq!(
            (events.len(), events[0].detail["reason"].as_str()),
            (1, "it leaked"),
            "{action}"
        );
        let states = match action {
            "client.suspend" | "tenant.suspend" => json!({"old": "active", "new": "suspended"}),
            "user.deactivate" => json!({"old": "active", "new": "deactivated"}),
            _ => continue,
        };
        let recorded: Value = serde_json::from_str(&events[0].detail["state"]).unwrap();
        assert_eq!(recorded, states, "{action}");
    }
}
