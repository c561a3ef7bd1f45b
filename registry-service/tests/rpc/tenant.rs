//! `TenantService`.

use std::time::{Duration, Instant};

use accord::{
    registry::v1::{self as pb, TenantState, tenant_service_client::TenantServiceClient},
    rpc::auth::Role,
    testing::calls::hang_up_before_lock,
};
use prost_types::FieldMask;
use tonic::Code;

use crate::harness::{
    CallerChannel, Harness, PUBLIC_BASE_URL, assert_rejected, assert_violations, ok, request_id,
};

fn client(harness: &Harness) -> TenantServiceClient<CallerChannel> {
    TenantServiceClient::new(harness.operator(Role::Admin))
}

fn create(tenant_id: &str) -> pb::CreateTenantRequest {
    pb::CreateTenantRequest {
        tenant_id: tenant_id.into(),
        display_name: "Acme Inc.".into(),
        cloud_api_url: "https://api.acme.example/v1".into(),
        ..Default::default()
    }
}

fn update(tenant_id: &str, paths: &[&str]) -> pb::UpdateTenantRequest {
    pb::UpdateTenantRequest {
        tenant: Some(pb::Tenant {
            tenant_id: tenant_id.into(),
            display_name: "Acme Ltd.".into(),
            cloud_api_url: "https://api.acme.example/v2".into(),
            ..Default::default()
        }),
        update_mask: Some(FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
    }
}

async fn get(harness: &Harness, tenant_id: &str) -> pb::Tenant {
    let request = pb::GetTenantRequest {
        tenant_id: tenant_id.into(),
    };
    ok(client(harness).get_tenant(request).await).tenant.unwrap()
}

async fn suspend(harness: &Harness, tenant_id: &str) -> Result<pb::Tenant, tonic::Status> {
    let request = pb::SuspendTenantRequest {
        tenant_id: tenant_id.into(),
        reason: "a test".into(),
    };
    let answer = client(harness).suspend_tenant(request).await?;
    Ok(answer.into_inner().tenant.unwrap())
}

async fn reinstate(harness: &Harness, tenant_id: &str) -> Result<pb::Tenant, tonic::Status> {
    let request = pb::ReinstateTenantRequest {
        tenant_id: tenant_id.into(),
    };
    let answer = client(harness).reinstate_tenant(request).await?;
    Ok(answer.into_inner().tenant.unwrap())
}

#[tokio::test]
async fn a_new_tenant_is_active_and_has_its_own_authority() {
    let harness = Harness::start().await;
    let created = ok(client(&harness).create_tenant(create("acme")).await)
        .tenant
        .unwrap();
    assert_eq!(created.state(), TenantState::Active);
    assert_eq!(created.tenant_authority_url, format!("{PUBLIC_BASE_URL}/acme"));
    assert_eq!(created.cloud_api_url, "https://api.acme.example/v1");
    assert_eq!(get(&harness, "acme").await, created);
    let taken = client(&harness).create_tenant(create("acme")).await;
    assert_eq!(
        assert_rejected(taken, Code::AlreadyExists, "ALREADY_EXISTS")["resource"],
        "tenant"
    );
    assert_eq!(harness.audit_events("tenant.create").await.len(), 1);
}

#[tokio::test]
async fn a_repeated_call_makes_one_tenant() {
    let harness = Harness::start().await;
    let call = pb::CreateTenantRequest {
        request_id: request_id(),
        ..create("acme")
    };
    let first = ok(client(&harness).create_tenant(call.clone()).await);
    let second = ok(client(&harness).create_tenant(call.clone()).await);
    assert_eq!(first, second);
    let other = pb::CreateTenantRequest {
        tenant_id: "globex".into(),
        ..call
    };
    assert_rejected(
        client(&harness).create_tenant(other).await,
        Code::AlreadyExists,
        "REQUEST_ID_REUSED",
    );
    assert_eq!(harness.audit_events("tenant.create").await.len(), 1);
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let harness = Harness::start().await;
    let mut client = client(&harness);
    let bad = pb::CreateTenantRequest {
        request_id: "1".into(),
        tenant_id: "Acme".into(),
        display_name: String::new(),
        cloud_api_url: "http://api.acme.example".into(),
    };
    let fields = ["request_id", "tenant_id", "display_name", "cloud_api_url"];
    assert_violations(client.create_tenant(bad).await, &fields);
    let mut bad = update("a", &["display_name", "cloud_api_url", "state"]);
    bad.tenant.as_mut().unwrap().display_name = " ".into();
    bad.tenant.as_mut().unwrap().cloud_api_url = "https://api.acme.example/?q=1".into();
    let fields = [
        "tenant.tenant_id",
        "update_mask",
        "tenant.display_name",
        "tenant.cloud_api_url",
    ];
    assert_violations(client.update_tenant(bad).await, &fields);
    let bad = client.get_tenant(pb::GetTenantRequest::default()).await;
    assert_violations(bad, &["tenant_id"]);
    let bad = pb::ListTenantsRequest {
        state: 9,
        page_size: -1,
        page_token: String::new(),
    };
    assert_violations(client.list_tenants(bad).await, &["state", "page_size"]);
}

#[tokio::test]
async fn no_tenant_has_the_name_of_a_reserved_path() {
    let harness = Harness::start().await;
    for tenant_id in ["claim", "assets", "healthz", "static", "oauth2"] {
        let refused = client(&harness).create_tenant(create(tenant_id)).await;
        assert_violations(refused, &["tenant_id"]);
        let bad = pb::CreateTenantRequest {
            display_name: String::new(),
            ..create(tenant_id)
        };
        let refused = client(&harness).create_tenant(bad).await;
        assert_violations(refused, &["tenant_id", "display_name"]);
    }
    assert!(harness.audit_events("tenant.create").await.is_empty());
    client(&harness).create_tenant(create("claims")).await.unwrap();
}

#[tokio::test]
async fn who_may_not_change_the_cloud_api_url_learns_who_may() {
    let harness = Harness::start().await;
    ok(client(&harness).create_tenant(create("acme")).await);
    let mut registrar = TenantServiceClient::new(harness.operator(Role::Registrar));
    let refused = registrar
        .update_tenant(update("acme", &["cloud_api_url"]))
        .await
        .unwrap_err();
    let message = "a change of cloud_api_url takes an operator with the role admin";
    assert_eq!(refused.message(), message);
    assert_rejected::<()>(Err(refused), Code::PermissionDenied, "PERMISSION_DENIED");
}

#[tokio::test]
async fn an_update_changes_the_fields_of_its_mask() {
    let harness = Harness::start().await;
    let created = ok(client(&harness).create_tenant(create("acme")).await)
        .tenant
        .unwrap();
    let renamed = ok(client(&harness)
        .update_tenant(update("acme", &["display_name"]))
        .await)
    .tenant
    .unwrap();
    assert_eq!(
        (renamed.display_name.as_str(), &renamed.cloud_api_url),
        ("Acme Ltd.", &created.cloud_api_url)
    );
    let again = client(&harness)
        .update_tenant(update("acme", &["display_name"]))
        .await;
    assert_eq!(ok(again).tenant.unwrap(), renamed, "nothing changed");
    assert_eq!(get(&harness, "acme").await, renamed);
    assert_eq!(harness.audit_events("tenant.update").await.len(), 1);
    let unknown = client(&harness)
        .update_tenant(update("nowhere", &["display_name"]))
        .await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn suspending_and_reinstating_may_be_repeated() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    let suspended = suspend(&harness, "acme").await.unwrap();
    assert_eq!(suspended.state(), TenantState::Suspended);
    harness.clock.advance(std::time::Duration::from_secs(1));
    let position = harness.registry.store().position().await.unwrap();
    assert_eq!(suspend(&harness, "acme").await.unwrap(), suspended);
    // The end is published again, for a cache that has missed it.
    assert_eq!(
        harness.registry.store().position().await.unwrap().seq,
        position.seq + 1
    );
    let reinstated = reinstate(&harness, "acme").await.unwrap();
    assert_eq!(reinstated.state(), TenantState::Active);
    assert_eq!(reinstate(&harness, "acme").await.unwrap(), reinstated);
    assert_eq!(harness.audit_events("tenant.suspend").await.len(), 1);
    assert_eq!(harness.audit_events("tenant.reinstate").await.len(), 1);
    assert_rejected(suspend(&harness, "nowhere").await, Code::NotFound, "NOT_FOUND");
    assert_rejected(reinstate(&harness, "nowhere").await, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn tenants_are_listed_by_id_and_state() {
    let harness = Harness::start().await;
    for tenant_id in ["globex", "acme", "initech"] {
        harness.tenant(tenant_id).await;
    }
    suspend(&harness, "acme").await.unwrap();
    let list = async |state: TenantState, page_size, page_token: &str| {
        let request = pb::ListTenantsRequest {
            state: state.into(),
            page_size,
            page_token: page_token.into(),
        };
        let page = ok(client(&harness).list_tenants(request).await);
        let ids: Vec<_> = page.tenants.into_iter().map(|tenant| tenant.tenant_id).collect();
        (ids, page.next_page_token)
    };
    let (first, token) = list(TenantState::Unspecified, 2, "").await;
    assert_eq!(first, ["acme", "globex"]);
    let (rest, end) = list(TenantState::Unspecified, 2, &token).await;
    assert_eq!((rest, end.as_str()), (vec!["initech".to_owned()], ""));
    assert_eq!(list(TenantState::Suspended, 0, "").await.0, ["acme"]);
    assert_eq!(list(TenantState::Active, 0, "").await.0, ["globex", "initech"]);
}

#[tokio::test]
async fn only_an_admin_moves_a_tenants_cloud_api() {
    let harness = Harness::start().await;
    let created = harness.tenant("acme").await;
    for paths in [&["cloud_api_url"][..], &["display_name", "cloud_api_url"]] {
        let refused = TenantServiceClient::new(harness.operator(Role::Registrar))
            .update_tenant(update("acme", paths))
            .await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    assert_eq!(get(&harness, "acme").await, created);
    assert!(harness.audit_events("tenant.update").await.is_empty());
    let moved = TenantServiceClient::new(harness.operator(Role::Admin))
        .update_tenant(update("acme", &["cloud_api_url"]))
        .await;
    assert_ne!(ok(moved).tenant.unwrap().cloud_api_url, created.cloud_api_url);
}

#[tokio::test]
async fn a_suspension_is_completed_although_its_caller_hangs_up() {
    let harness = Harness::start().await;
    harness.tenant("acme").await;
    let call = async || suspend(&harness, "acme").await;
    let read = async || drop(get(&harness, "acme").await);
    hang_up_before_lock(async || harness.hold_writes().await, call, read).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while get(&harness, "acme").await.state() != TenantState::Suspended {
        assert!(Instant::now() < deadline, "the suspension ended with its caller");
    }
    assert_eq!(harness.audit_events("tenant.suspend").await.len(), 1);
}
