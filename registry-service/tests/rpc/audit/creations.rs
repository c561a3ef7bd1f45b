//! Events of what is created, submitted and approved: the record alone says what it was.

use accord::{
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        operator_service_client::OperatorServiceClient, scope_service_client::ScopeServiceClient,
        tenant_service_client::TenantServiceClient, user_service_client::UserServiceClient,
    },
    rpc::auth::Role,
    testing::{TEST_START, calls::ok},
    text::opaque::sha256,
};
use prost::Message;
use serde_json::{Value, json};

use crate::harness::{Harness, submission};

const KEYS: &str = r#"{"keys":[{"alg":"EdDSA","crv":"Ed25519","kid":"one","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Asserts details of the only event of an action.
async fn assert_details(harness: &Harness, action: &str, expected: &[(&str, &str)]) {
    let events = harness.audit_events(action).await;
    let newest = &events.first().unwrap_or_else(|| panic!("no {action}")).detail;
    for (name, value) in expected {
        let found = newest.get(*name).map(String::as_str);
        assert_eq!(found, Some(*value), "{action}: {name}");
    }
}

#[tokio::test]
async fn a_creation_records_what_it_sets() {
    let harness = Harness::start().await;
    let admin = || harness.operator(Role::Admin);
    let tenant = pb::CreateTenantRequest {
        tenant_id: "acme".into(),
        display_name: "Acme Inc.".into(),
        cloud_api_url: "https://api.acme.example/v1".into(),
        ..Default::default()
    };
    ok(TenantServiceClient::new(admin()).create_tenant(tenant).await);
    let set = [
        ("display_name", "Acme Inc."),
        ("cloud_api_url", "https://api.acme.example/v1"),
    ];
    assert_details(&harness, "tenant.create", &set).await;

    let scope = pb::CreateScopeRequest {
        name: "contacts.read".into(),
        description: "Read contacts".into(),
        ..Default::default()
    };
    ok(ScopeServiceClient::new(admin()).create_scope(scope).await);
    assert_details(&harness, "scope.create", &[("description", "Read contacts")]).await;

    let user = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        account_name: "never-shown".into(),
        label: "API user 1".into(),
        ..Default::default()
    };
    ok(UserServiceClient::new(admin()).register_user(user).await);
    let set = [("label", "API user 1"), ("tenant_admin", "false")];
    assert_details(&harness, "user.register", &set).await;
    let registered = harness.audit_events("user.register").await;
    assert!(!format!("{registered:?}").contains("never-shown"));

    let mut operators = OperatorServiceClient::new(admin());
    let operator = pb::CreateOperatorRequest {
        name: "Ada".into(),
        roles: vec![pb::OperatorRole::Auditor.into()],
        ..Default::default()
    };
    ok(operators.create_operator(operator).await);
    assert_details(&harness, "operator.create", &[("name", "Ada")]).await;
    let workload = pb::CreateWorkloadRequest {
        name: "pages".into(),
        kind: pb::WorkloadKind::Gateway.into(),
        ..Default::default()
    };
    ok(operators.create_workload(workload).await);
    assert_details(&harness, "workload.create", &[("name", "pages")]).await;

    let request = harness.approved_request(&["acme"], &["contacts.read"]).await;
    let register = pb::RegisterClientRequest {
        integration_request_id: request.integration_request_id,
        ..Default::default()
    };
    let mut clients = ClientServiceClient::new(admin());
    let client = ok(clients.register_client(register).await).client.unwrap();
    let secret = pb::CreateClientSecretRequest {
        client_id: client.client_id,
        expire_time: Some(
            TEST_START
                .plus(std::time::Duration::from_secs(3600))
                .to_timestamp(),
        ),
        delivery: pb::DeliveryMethod::Link.into(),
        ..Default::default()
    };
    ok(clients.create_client_secret(secret).await);
    let set = [("expire_time", "2026-01-01T01:00:00Z"), ("delivery", "link")];
    assert_details(&harness, "client_secret.create", &set).await;
}

#[tokio::test]
async fn the_record_alone_says_what_was_submitted_approved_and_registered() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    harness.scope("contacts.read").await;
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Admin));
    let asked = pb::SubmitIntegrationRequestRequest {
        json_web_key_set: KEYS.into(),
        allowed_networks: vec!["192.0.2.0/24".into()],
        ..submission(&["acme"], &["contacts.read"])
    };
    let submitted = ok(requests.submit_integration_request(asked.clone()).await);
    let submitted = submitted.integration_request.unwrap();
    let integration_request_id = submitted.integration_request_id;
    let approve = pb::ApproveIntegrationRequestRequest {
        integration_request_id: integration_request_id.clone(),
    };
    ok(requests.approve_integration_request(approve).await);
    let register = pb::RegisterClientRequest {
        integration_request_id,
        ..Default::default()
    };
    let mut clients = ClientServiceClient::new(harness.operator(Role::Admin));
    ok(clients.register_client(register).await);

    let expected = [
        ("tenant_ids", json!(["acme"])),
        (
            "scopes",
            json!([{"name": "contacts.read", "reason": "to use contacts.read"}]),
        ),
        ("redirect_uris", json!(["https://app.partner.example/callback"])),
        (
            "presentation",
            json!({"partner_name": "Partner Ltd", "display_name": "Contact Sync", "goals": "Keep contacts in step"}),
        ),
    ];
    for action in [
        "integration_request.submit",
        "integration_request.approve",
        "client.register",
    ] {
        let event = harness.audit_events(action).await.remove(0);
        for (name, value) in &expected {
            let recorded: Value = serde_json::from_str(&event.detail[*name]).unwrap();
            assert_eq!(recorded, *value, "{action}: {name}");
        }
        assert!(event.detail["json_web_key_set"].contains("11qYAYKx"), "{action}");
        assert!(event.detail["security"].contains("192.0.2.0/24"), "{action}");
        assert!(!format!("{event:?}").contains(&asked.contact_email), "{action}");
    }
}

#[tokio::test]
async fn the_events_of_the_largest_request_stay_below_64_kib() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    let names: Vec<_> = (0..100).map(|number| format!("scope.{number}")).collect();
    for name in &names {
        harness.scope(name).await;
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut asked = submission(&["acme"], &names);
    for scope in &mut asked.scopes {
        scope.reason = "r".repeat(1000);
    }
    asked.redirect_uris = (100..120)
        .map(|number| format!("https://partner.example/{number}{}", "u".repeat(2021)))
        .collect();
    let mut requests = IntegrationRequestServiceClient::new(harness.operator(Role::Admin));
    let submitted = ok(requests.submit_integration_request(asked.clone()).await);
    let submitted = submitted.integration_request.unwrap();
    let approve = pb::ApproveIntegrationRequestRequest {
        integration_request_id: submitted.integration_request_id,
    };
    ok(requests.approve_integration_request(approve).await);

    let scopes = asked.scopes.iter();
    let scopes = scopes.map(|scope| json!({"name": scope.name, "reason": scope.reason}));
    let scopes = Value::from_iter(scopes).to_string();
    for action in ["integration_request.submit", "integration_request.approve"] {
        let event = harness.audit_events(action).await.remove(0);
        assert!(
            event.encoded_len() < 64 * 1024,
            "{action}: {}",
            event.encoded_len()
        );
        let shortened: Value = serde_json::from_str(&event.detail["scopes"]).unwrap();
        let expected = json!({
            "sha256": sha256(scopes.as_bytes()).map(|byte| format!("{byte:02x}")).concat(),
            "bytes": scopes.len(),
        });
        assert_eq!(shortened, expected, "{action}");
        let uris: Vec<String> = serde_json::from_str(&event.detail["redirect_uris"]).unwrap();
        assert_eq!(uris, asked.redirect_uris, "{action}");
    }
}
