//! Tenants.

use accord::{
    registry::v1 as pb,
    text::{id::TenantId, page::PageRequest, validation::Violations},
};
use uuid::Uuid;

use super::{Result, UpdateMask, etag};
use crate::model::tenant::{NewTenant, State, Tenant, TenantUpdate, authority_url, new_id};

accord::message_enum!(State = pb::TenantState { Active, Suspended });

/// Reads a `CreateTenantRequest`.
pub fn create(request: &pb::CreateTenantRequest) -> Result<(NewTenant, Option<Uuid>)> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", new_id(&request.tenant_id));
    let display_name = v.text("display_name", &request.display_name, 1..=200);
    let cloud_api_url = v.https_url("cloud_api_url", &request.cloud_api_url);
    let request_id = v.request_id("request_id", &request.request_id);
    v.finish(|| {
        let new = NewTenant {
            tenant_id: tenant_id?,
            display_name: display_name?,
            cloud_api_url: cloud_api_url?,
        };
        Some((new, request_id?))
    })
}

/// Reads a `ListTenantsRequest`.
pub fn list(request: &pb::ListTenantsRequest) -> Result<(Option<State>, PageRequest)> {
    let mut v = Violations::default();
    let state = v.filter::<pb::TenantState, _>("state", request.state);
    let filters = [&*request.state.to_string()];
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "tenants", &filters, size, token);
    v.finish(|| Some((state?, page?)))
}

/// Reads an `UpdateTenantRequest`.
pub fn update(request: pb::UpdateTenantRequest) -> Result<(TenantId, TenantUpdate)> {
    let mut v = Violations::default();
    let tenant = request.tenant.unwrap_or_default();
    let tenant_id = v.check("tenant.tenant_id", TenantId::parse(&tenant.tenant_id));
    let mask = UpdateMask::parse(&mut v, request.update_mask, &["display_name", "cloud_api_url"]);
    let update = TenantUpdate {
        etag: etag(&tenant.etag),
        display_name: mask.read("display_name", || {
            v.text("tenant.display_name", &tenant.display_name, 1..=200)
        }),
        cloud_api_url: mask.read("cloud_api_url", || {
            v.https_url("tenant.cloud_api_url", &tenant.cloud_api_url)
        }),
    };
    v.finish(|| Some((tenant_id?, update)))
}

/// Writes a tenant.
pub fn message(tenant: Tenant, public_base_url: &str) -> pb::Tenant {
    pb::Tenant {
        tenant_authority_url: authority_url(public_base_url, &tenant.tenant_id),
        tenant_id: tenant.tenant_id.into(),
        display_name: tenant.display_name,
        cloud_api_url: tenant.cloud_api_url,
        state: pb::TenantState::from(tenant.state).into(),
        create_time: Some(tenant.created_at.to_timestamp()),
        update_time: Some(tenant.updated_at.to_timestamp()),
        etag: tenant.etag.to_string(),
    }
}
