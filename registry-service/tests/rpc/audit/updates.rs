//! Events of updates: who changes something and changes it back leaves both values behind.

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

use crate::harness::Harness;

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
    ok(TenantServiceClient::new(registrar()).update_tenant(update).await);
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
    ok(ScopeServiceClient::new(registrar()).update_scope(update).await);
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
    let update = pb::UpdateClientRequest {
        client: Some(pb::Client {
            client_id: client.client_id.clone(),
            redirect_uris: vec![other.into()],
            ..Default::default()
        }),
        update_mask: mask("redirect_uris"),
    };
    ok(clients.update_client(update).await);
    let old = json!(client.redirect_uris);
    assert_changed(&harness, "client.update", "redirect_uris", old, json!([other])).await;

    // Another key of the same name.
    let keys = |x: &str| format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"one","x":"{x}"}}]}}"#);
    let mut stored = vec![String::new()];
    for x in [
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "1yVBZgHjw2qa7Z4dgHCqoSf0u26r4W4KvWbQiLqbUsQ",
    ] {
        let set = pb::SetClientKeysRequest {
            client_id: client.client_id.clone(),
            json_web_key_set: keys(x),
        };
        let client = ok(clients.set_client_keys(set).await).client.unwrap();
        assert!(client.json_web_key_set.contains(x), "{client:?}");
        stored.push(client.json_web_key_set);
    }
    let (old, new) = (json!(stored[1]), json!(stored[2]));
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
