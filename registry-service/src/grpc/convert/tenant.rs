//! Tenants between messages and the noun.

use accord::{
    registry::v1 as pb,
    text::{
        id::TenantId,
        page::{Page, PageRequest},
        validation::Violations,
    },
};
use uuid::Uuid;

use super::{etag, mask, page};
use crate::model::tenant::{NewTenant, State, Tenant, TenantUpdate, authority_url, new_id};

/// Reads a `CreateTenantRequest`.
///
/// # Errors
/// All violations.
pub fn create(request: pb::CreateTenantRequest) -> Result<(NewTenant, Option<Uuid>), Violations> {
    let mut v = Violations::default();
    let tenant_id = v.check("tenant_id", new_id(&request.tenant_id));
    let display_name = v.text("display_name", &request.display_name, 1..=200);
    let cloud_api_url = v.https_url("cloud_api_url", &request.cloud_api_url);
    let request_id = v.request_id("request_id", &request.request_id);
    match (tenant_id, display_name, cloud_api_url, request_id) {
        (Some(tenant_id), Some(display_name), Some(cloud_api_url), Some(request_id)) => {
            let new = NewTenant {
                tenant_id,
                display_name,
                cloud_api_url,
            };
            Ok((new, request_id))
        }
        _ => Err(v),
    }
}

/// Reads a tenant's id, where it is all that a message holds.
///
/// # Errors
/// The violation.
pub fn tenant_id(tenant_id: &str) -> Result<TenantId, Violations> {
    let mut v = Violations::default();
    v.check("tenant_id", TenantId::parse(tenant_id)).ok_or(v)
}

/// Reads a `ListTenantsRequest`.
///
/// # Errors
/// All violations.
pub fn list(request: &pb::ListTenantsRequest) -> Result<(Option<State>, PageRequest), Violations> {
    let mut v = Violations::default();
    let state = match pb::TenantState::try_from(request.state) {
        Ok(pb::TenantState::Unspecified) => Some(None),
        Ok(pb::TenantState::Active) => Some(Some(State::Active)),
        Ok(pb::TenantState::Suspended) => Some(Some(State::Suspended)),
        Err(_) => {
            v.add("state", "must be a known state");
            None
        }
    };
    let filters = [request.state.to_string()];
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let page = page(
        &mut v,
        "tenants",
        &filters,
        (request.page_size, &request.page_token),
    );
    match (state, page) {
        (Some(state), Some(page)) => Ok((state, page)),
        _ => Err(v),
    }
}

/// Reads an `UpdateTenantRequest`.
///
/// # Errors
/// All violations.
pub fn update(request: pb::UpdateTenantRequest) -> Result<(TenantId, TenantUpdate), Violations> {
    let mut v = Violations::default();
    let tenant = request.tenant.unwrap_or_default();
    let tenant_id = v.check("tenant.tenant_id", TenantId::parse(&tenant.tenant_id));
    let mut update = TenantUpdate {
        etag: etag(&tenant.etag),
        ..TenantUpdate::default()
    };
    for path in mask(&mut v, request.update_mask, &["display_name", "cloud_api_url"]) {
        match path.as_str() {
            "display_name" => {
                update.display_name = v.text("tenant.display_name", &tenant.display_name, 1..=200)
            }
            "cloud_api_url" => {
                update.cloud_api_url = v.https_url("tenant.cloud_api_url", &tenant.cloud_api_url)
            }
            _ => {}
        }
    }
    match tenant_id {
        Some(tenant_id) if v.is_empty() => Ok((tenant_id, update)),
        _ => Err(v),
    }
}

/// Writes a tenant.
pub fn message(tenant: Tenant, public_base_url: &str) -> pb::Tenant {
    pb::Tenant {
        tenant_authority_url: authority_url(public_base_url, &tenant.tenant_id),
        tenant_id: tenant.tenant_id.into(),
        display_name: tenant.display_name,
        cloud_api_url: tenant.cloud_api_url,
        state: state(tenant.state).into(),
        create_time: Some(tenant.created_at.to_timestamp()),
        update_time: Some(tenant.updated_at.to_timestamp()),
        etag: tenant.etag.to_string(),
    }
}

/// Writes a tenant's state.
pub fn state(state: State) -> pb::TenantState {
    match state {
        State::Active => pb::TenantState::Active,
        State::Suspended => pb::TenantState::Suspended,
    }
}

/// Writes a page of tenants.
pub fn list_response(tenants: Page<Tenant>, public_base_url: &str) -> pb::ListTenantsResponse {
    let page = tenants.map(|tenant| message(tenant, public_base_url));
    pb::ListTenantsResponse {
        tenants: page.items,
        next_page_token: page.next_page_token,
    }
}
