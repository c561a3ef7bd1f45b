//! `TenantService`.

use accord::{
    registry::v1::{self as pb, tenant_service_server::TenantService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};

use super::{Api, creation};
use crate::{error::Error, grpc::convert::tenant as convert, model::tenant};

#[tonic::async_trait]
impl TenantService for Api {
    async fn create_tenant(
        &self,
        request: Request<pb::CreateTenantRequest>,
    ) -> Result<Response<pb::CreateTenantResponse>, Status> {
        let (new, request_id) = convert::create(request.get_ref().clone()).map_err(Error::from)?;
        let creation = creation(&request, "CreateTenant", request_id);
        let tenant = tenant::create(&self.store, &creation, new).await?;
        Ok(Response::new(pb::CreateTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn get_tenant(
        &self,
        request: Request<pb::GetTenantRequest>,
    ) -> Result<Response<pb::GetTenantResponse>, Status> {
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id).map_err(Error::from)?;
        let tenant = tenant::get(&self.store, &tenant_id).await?;
        Ok(Response::new(pb::GetTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn list_tenants(
        &self,
        request: Request<pb::ListTenantsRequest>,
    ) -> Result<Response<pb::ListTenantsResponse>, Status> {
        let (state, page) = convert::list(request.get_ref()).map_err(Error::from)?;
        let tenants = tenant::list(&self.store, state, &page).await?;
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
        let (tenant_id, update) = convert::update(request.into_inner()).map_err(Error::from)?;
        let tenant = tenant::update(&self.store, &origin, &tenant_id, update).await?;
        Ok(Response::new(pb::UpdateTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<pb::SuspendTenantRequest>,
    ) -> Result<Response<pb::SuspendTenantResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id).map_err(Error::from)?;
        let tenant = tenant::suspend(&self.store, &origin, &tenant_id).await?;
        Ok(Response::new(pb::SuspendTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }

    async fn reinstate_tenant(
        &self,
        request: Request<pb::ReinstateTenantRequest>,
    ) -> Result<Response<pb::ReinstateTenantResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let tenant_id = convert::tenant_id(&request.get_ref().tenant_id).map_err(Error::from)?;
        let tenant = tenant::reinstate(&self.store, &origin, &tenant_id).await?;
        Ok(Response::new(pb::ReinstateTenantResponse {
            tenant: Some(convert::message(tenant, &self.public_base_url)),
        }))
    }
}
