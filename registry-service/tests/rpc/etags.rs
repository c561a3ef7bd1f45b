//! `etag`: an update from a version that is no longer the current one is rejected.

use std::{cell::Cell, collections::BTreeSet};

use accord::{
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient, scope_service_client::ScopeServiceClient,
        tenant_service_client::TenantServiceClient,
    },
    rpc::auth::Role,
    testing::databases,
};
use prost_types::FieldMask;
use tonic::{Code, Status};

use crate::{
    client::registered,
    harness::{Harness, assert_rejected},
};

fn mask(path: &str) -> Option<FieldMask> {
    Some(FieldMask {
        paths: vec![path.into()],
    })
}

/// Asserts that `update` takes the current etag or none, and that each change gives a new one. Each call of `update` sets
/// another value. `others` are the etags after changes by other methods.
async fn assert_compared(
    resource: &str,
    first: String,
    update: impl AsyncFn(&str) -> Result<String, Status>,
    others: impl AsyncFn() -> Vec<String>,
) {
    let mut seen = vec![first.clone(), update(&first).await.unwrap()];
    seen.extend(others().await);
    let current = seen.pop().unwrap();
    for stale in seen.iter().map(String::as_str).chain(["0", "none"]) {
        let metadata = assert_rejected(update(stale).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(metadata["resource"], resource, "{stale}");
    }
    seen.push(current.clone());
    seen.push(update(&current).await.unwrap());
    seen.push(update("").await.unwrap());
    let different: BTreeSet<_> = seen.iter().collect();
    assert_eq!(different.len(), seen.len(), "{resource}: {seen:?}");
}

#[tokio::test]
async fn a_stale_etag_is_rejected_and_an_empty_one_is_not_compared() {
    for database in databases() {
        let harness = Harness::start_on(database).await;
        let admin = || harness.operator(Role::Admin);
        let calls = Cell::new(0);
        let next = || calls.replace(calls.get() + 1);

        let tenants = || TenantServiceClient::new(admin());
        let tenant_id = "acme".to_owned();
        let update = async |etag: &str| {
            let tenant = pb::Tenant {
                tenant_id: tenant_id.clone(),
                display_name: format!("Acme {}", next()),
                etag: etag.into(),
                ..Default::default()
            };
            let request = pb::UpdateTenantRequest {
                tenant: Some(tenant),
                update_mask: mask("display_name"),
            };
            let answer = tenants().update_tenant(request).await?;
            Ok(answer.into_inner().tenant.unwrap().etag)
        };
        let others = async || {
            let suspend = pb::SuspendTenantRequest {
                tenant_id: tenant_id.clone(),
                reason: "a test".into(),
            };
            let suspended = tenants().suspend_tenant(suspend).await.unwrap().into_inner();
            let reinstate = pb::ReinstateTenantRequest {
                tenant_id: tenant_id.clone(),
            };
            let reinstated = tenants().reinstate_tenant(reinstate).await.unwrap().into_inner();
            vec![suspended.tenant.unwrap().etag, reinstated.tenant.unwrap().etag]
        };
        assert_compared("tenant", harness.tenant("acme").await.etag, update, others).await;

        let update = async |etag: &str| {
            let scope = pb::Scope {
                name: "contacts.read".into(),
                description: format!("Version {}", next()),
                etag: etag.into(),
                ..Default::default()
            };
            let request = pb::UpdateScopeRequest {
                scope: Some(scope),
                update_mask: mask("description"),
            };
            let answer = ScopeServiceClient::new(admin()).update_scope(request).await?;
            Ok(answer.into_inner().scope.unwrap().etag)
        };
        let first = harness.scope("contacts.read").await.etag;
        assert_compared("scope", first, update, async || Vec::new()).await;

        harness.tenant("globex").await;
        harness.scope("contacts.write").await;
        calls.set(8);
        let clients = || ClientServiceClient::new(admin());
        let (created, _) = registered(&harness).await;
        let update = async |etag: &str| {
            let client = pb::Client {
                client_id: created.client_id.clone(),
                allowed_networks: vec![format!("10.0.0.0/{}", next())],
                etag: etag.into(),
                ..Default::default()
            };
            let request = pb::UpdateClientRequest {
                client: Some(client),
                update_mask: mask("allowed_networks"),
            };
            let answer = clients().update_client(request).await?;
            Ok(answer.into_inner().client.unwrap().etag)
        };
        let others = async || {
            let suspend = pb::SuspendClientRequest {
                client_id: created.client_id.clone(),
                reason: "a test".into(),
            };
            let suspended = clients().suspend_client(suspend).await.unwrap().into_inner();
            let one = r#"{"kty":"OKP","crv":"Ed25519","kid":"1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
            let additions = pb::SubmitIntegrationRequestRequest {
                json_web_key_set: format!(r#"{{"keys":[{one}]}}"#),
                ..Default::default()
            };
            let amended = harness.amend(&created.client_id, additions).await;
            let keys = pb::SetClientKeysRequest {
                client_id: created.client_id.clone(),
                json_web_key_set: String::new(),
            };
            let keyed = clients().set_client_keys(keys).await.unwrap().into_inner();
            vec![
                suspended.client.unwrap().etag,
                amended.etag,
                keyed.client.unwrap().etag,
            ]
        };
        assert_compared("client", created.etag.clone(), update, others).await;
    }
}
