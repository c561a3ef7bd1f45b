//! `TenantService`.

use accord::{
    registry::v1::{self as pb, tenant_service_server::TenantService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{error::Error, grpc::convert::tenant as convert, model::tenant::State};

#[tonic::async_trait]
impl TenantService for Api {
    async fn create_tenant(
        &self,
        request: Request<pb::CreateTenantRequest>,
    ) -> Result<Response<pb::CreateTenantResponse>, Status> {
        let (new, request_id) = convert::create(request.get_ref().clone())?;
        let creation = creation(&request, "CreateTenant", request_id);
        let tenant = self.store.create_tenant(&creation, new).await?;
        Ok(Response::new(pb::CreateTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id)?;
        let tenant = self.store.find_tenant(&tenant_id).await?;
        let tenant = tenant.ok_or(Error::NotFound("tenant"))?;
        Ok(Response::new(pb::GetTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        let (state, page) = convert::list(request.get_ref())?;
        let tenants = self.store.list_tenants(state, &page).await?;
        Ok(Response::new(convert::list_response(
            tenants,
            &self.public_base_url,
        )))
    }

    async fn update_tenant(
        &self,
        request: Request<pb::UpdateTenantRequest>,
    ) -> Result<Response<pb::UpdateTenantResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let (tenant_id, update) = convert::update(request.into_inner())?;
        let tenant = self.store.update_tenant(&origin, &tenant_id, update).await?;
        Ok(Response::new(pb::UpdateTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<pb::SuspendTenantRequest>,
    ) -> Result<Response<pb::SuspendTenantResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id)?;
        let tenant = self
            .store
            .set_tenant_state(&origin, &tenant_id, State::Suspended)
            .await?;
        Ok(Response::new(pb::SuspendTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn reinstate_tenant(
        &self,
        request: Request<pb::ReinstateTenantRequest>,
    ) -> Result<Response<pb::ReinstateTenantResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id)?;
        let tenant = self
            .store
            .set_tenant_state(&origin, &tenant_id, State::Active)
            .await?;
        Ok(Response::new(pb::ReinstateTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }
}
