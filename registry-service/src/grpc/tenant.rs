//! `TenantService`.

use accord::{
    registry::v1::{tenant_service_server::TenantService, *},
    rpc::status::Reply,
    store::audit::Origin,
    text::id::TenantId,
};
use prost::Message;
use tonic::{Request, Response};

use super::{
    Api,
    convert::{only_field, tenant as convert},
    creation, parts,
};
use crate::{
    error::{Error, Result},
    model::tenant::State,
};

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
        let (origin, message) = parts(call);
        let (tenant_id, update) = convert::update(message)?;
        let tenant = self.store.update_tenant(&origin, &tenant_id, update).await?;
        let tenant = Some(convert::message(tenant, &self.public_base_url));
        Ok(Response::new(UpdateTenantResponse { tenant }))
    }

    async fn suspend_tenant(&self, call: Request<SuspendTenantRequest>) -> Reply<SuspendTenantResponse> {
        let (origin, message) = parts(call);
        let tenant = set_state(self, &origin, &message.tenant_id, State::Suspended).await?;
        Ok(Response::new(SuspendTenantResponse { tenant }))
    }

    async fn reinstate_tenant(
        &self,
        call: Request<ReinstateTenantRequest>,
    ) -> Reply<ReinstateTenantResponse> {
        let (origin, message) = parts(call);
        let tenant = set_state(self, &origin, &message.tenant_id, State::Active).await?;
        Ok(Response::new(ReinstateTenantResponse { tenant }))
    }
}

async fn set_state(api: &Api, origin: &Origin, tenant_id: &str, to: State) -> Result<Option<Tenant>> {
    let tenant_id = only_field("tenant_id", TenantId::parse(tenant_id))?;
    let tenant = api.store.set_tenant_state(origin, &tenant_id, to).await?;
    Ok(Some(convert::message(tenant, &api.public_base_url)))
}
