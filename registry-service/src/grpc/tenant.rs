//! `TenantService`.

use accord::{
    registry::v1::{tenant_service_server::TenantService, *},
    rpc::{
        auth::{Principal, Role},
        status::Reply,
    },
    text::id::TenantId,
};
use prost::Message;
use tonic::{Request, Response};

use super::{
    Api,
    convert::{id_and_reason, only_field, tenant as convert},
    creation, parts,
};
use crate::{error::Error, model::tenant::State};

#[tonic::async_trait]
impl TenantService for Api {
    async fn create_tenant(&self, call: Request<CreateTenantRequest>) -> Reply<CreateTenantResponse> {
        let (new, request_id) = convert::create(call.get_ref())?;
        let creation = creation(&call, "CreateTenant", request_id);
        let tenant = self.store.create_tenant(&creation, new).await?;
        let tenant = Some(convert::message(tenant, &self.public_base_url));
        Ok(Response::new(CreateTenantResponse { tenant }))
    }

    async fn get_tenant(&self, call: Request<GetTenantRequest>) -> Reply<GetTenantResponse> {
        let tenant_id = only_field("tenant_id", TenantId::parse(&call.get_ref().tenant_id))?;
        let tenant = self.store.find_tenant(&tenant_id).await?;
        let tenant = tenant.ok_or(Error::NotFound("tenant"))?;
        let tenant = Some(convert::message(tenant, &self.public_base_url));
        Ok(Response::new(GetTenantResponse { tenant }))
    }

    async fn list_tenants(&self, call: Request<ListTenantsRequest>) -> Reply<ListTenantsResponse> {
        let (state, page) = convert::list(call.get_ref())?;
        let page = self.store.list_tenants(state, &page).await?;
        let page = page.map(|tenant| convert::message(tenant, &self.public_base_url));
        let (tenants, next_page_token) = page.fit(Message::encoded_len);
        Ok(Response::new(ListTenantsResponse {
            tenants,
            next_page_token,
        }))
    }

    async fn update_tenant(&self, call: Request<UpdateTenantRequest>) -> Reply<UpdateTenantResponse> {
        let principal = Principal::of(&call);
        let (origin, message) = parts(call);
        let (tenant_id, update) = convert::update(message)?;
        if update.cloud_api_url.is_some() {
            // It is the audience of the tenant's tokens, and where partners send them.
            principal.require(Role::Admin, "a change of cloud_api_url")?;
        }
        let tenant = self.store.update_tenant(&origin, &tenant_id, update).await?;
        let tenant = Some(convert::message(tenant, &self.public_base_url));
        Ok(Response::new(UpdateTenantResponse { tenant }))
    }

    async fn suspend_tenant(&self, call: Request<SuspendTenantRequest>) -> Reply<SuspendTenantResponse> {
        let (origin, message) = parts(call);
        let id = TenantId::parse(&message.tenant_id);
        let (id, reason) = id_and_reason("tenant_id", id, &message.reason)?;
        let suspending = self
            .store
            .set_tenant_state(&origin, &id, State::Suspended, &reason);
        let tenant = Some(convert::message(suspending.await?, &self.public_base_url));
        Ok(Response::new(SuspendTenantResponse { tenant }))
    }

    async fn reinstate_tenant(
        &self,
        call: Request<ReinstateTenantRequest>,
    ) -> Reply<ReinstateTenantResponse> {
        let (origin, message) = parts(call);
        let id = only_field("tenant_id", TenantId::parse(&message.tenant_id))?;
        let reinstating = self.store.set_tenant_state(&origin, &id, State::Active, "");
        let tenant = Some(convert::message(reinstating.await?, &self.public_base_url));
        Ok(Response::new(ReinstateTenantResponse { tenant }))
    }
}
