//! `ListOperatorActions`: each tenant has the acts of operators that concern it, and no facts of another.

use accord::{
    registry::v1::{self as pb, tenant_service_client::TenantServiceClient},
    rpc::auth::Role,
};
use prost_types::FieldMask;

use super::directory;
use crate::{
    client::{self, client as clients},
    harness::{Harness, assert_violations, ok},
    user::{admin, registered},
};

async fn actions(harness: &Harness, tenant_id: &str) -> Vec<pb::OperatorAction> {
    let request = pb::ListOperatorActionsRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    };
    ok(directory(harness).list_operator_actions(request).await).operator_actions
}

fn names(actions: &[pb::OperatorAction]) -> Vec<&str> {
    actions.iter().map(|action| action.action.as_str()).collect()
}

#[tokio::test]
async fn a_tenant_sees_operator_actions_on_itself_its_users_and_its_clients_of_that_time() {
    let harness = Harness::start().await;
    client::seed(&harness).await;
    harness.tenant("initech").await;
    // A client of both tenants.
    let (client, _) = client::registered(&harness).await;
    let user = pb::RegisterUserRequest {
        tenant_id: "acme".into(),
        ..admin("ada.admin@firm.example")
    };
    registered(&harness, user).await;
    let suspend = pb::SuspendTenantRequest {
        tenant_id: "acme".into(),
        reason: "asked to by acme".into(),
    };
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Security));
    ok(tenants.suspend_tenant(suspend).await);
    let moved = pb::UpdateTenantRequest {
        tenant: Some(pb::Tenant {
            tenant_id: "acme".into(),
            cloud_api_url: "https://api.example/moved".into(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["cloud_api_url".into()],
        }),
    };
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    ok(tenants.update_tenant(moved).await);
    // Removes globex from the client. globex sees this action and no later one.
    let narrowed = pb::UpdateClientRequest {
        client: Some(pb::Client {
            client_id: client.client_id.clone(),
            tenant_ids: vec!["acme".into()],
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["tenant_ids".into()],
        }),
    };
    ok(clients(&harness).update_client(narrowed).await);
    let suspend = pb::SuspendClientRequest {
        client_id: client.client_id.clone(),
        reason: "a leak".into(),
    };
    ok(clients(&harness).suspend_client(suspend).await);

    let acme = actions(&harness, "acme").await;
    assert_eq!(
        names(&acme),
        [
            "client.suspend",
            "client.update",
            "tenant.update",
            "tenant.suspend",
            "user.register",
            "client.register",
            "integration_request.approve",
            "integration_request.submit",
            "tenant.create",
        ]
    );
    assert_eq!(
        (acme[0].reason.as_str(), &acme[0].client_id),
        ("a leak", &client.client_id)
    );
    assert!(
        acme.iter()
            .all(|action| action.operator_id.starts_with("opr_") && !action.refused)
    );
    assert_eq!(acme[2].changed_fields, ["cloud_api_url"]);
    assert_eq!(acme[3].reason, "asked to by acme");
    let globex = actions(&harness, "globex").await;
    assert_eq!(
        names(&globex),
        [
            "client.update",
            "client.register",
            "integration_request.approve",
            "integration_request.submit",
            "tenant.create",
        ]
    );
    // That there is another tenant is none of its business.
    assert!(globex[0].changed_fields.is_empty());
    assert!(!format!("{globex:?}").contains("acme"), "{globex:?}");
    assert_eq!(names(&actions(&harness, "initech").await), ["tenant.create"]);
    assert!(actions(&harness, "nobody").await.is_empty());

    let request = pb::ListOperatorActionsRequest {
        tenant_id: "acme".into(),
        before_event_id: acme[1].event_id.clone(),
        page_size: 2,
    };
    let page = ok(directory(&harness).list_operator_actions(request).await).operator_actions;
    assert_eq!(page, acme[2..4]);
    let bad = pb::ListOperatorActionsRequest {
        tenant_id: "A".into(),
        before_event_id: "x".into(),
        page_size: -1,
    };
    let answer = directory(&harness).list_operator_actions(bad).await;
    assert_violations(answer, &["tenant_id", "before_event_id", "page_size"]);
}
