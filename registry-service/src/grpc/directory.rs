//! `DirectoryService`.

use accord::{
    registry::v1::{self as pb, directory_service_server::DirectoryService},
    rpc::auth::Principal,
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::Api;
use crate::{
    authentication::{caller, client, tenant_admin},
    directory::{self, read_at},
    error::Error,
    grpc::convert::{self, directory as dir},
    model::account_name::AccountName,
};

#[tonic::async_trait]
impl DirectoryService for Api {
    async fn authenticate_client(
        &self,
        request: Request<pb::AuthenticateClientRequest>,
    ) -> Result<Response<pb::AuthenticateClientResponse>, Status> {
        let request = request.into_inner();
        let secret = Zeroizing::new(request.client_secret);
        let answer = client::authenticate(&self.store, &request.client_id, &secret).await?;
        Ok(Response::new(pb::AuthenticateClientResponse {
            client: Some(dir::client_profile(answer.client)),
            secret_id: answer.secret_id.into(),
            secret_expire_time: answer.expires_at.map(|at| at.to_timestamp()),
            position: Some(dir::position(answer.position)),
        }))
    }

    async fn authenticate_tenant_admin(
        &self,
        request: Request<pb::AuthenticateTenantAdminRequest>,
    ) -> Result<Response<pb::AuthenticateTenantAdminResponse>, Status> {
        let origin = Principal::of(&request).origin();
        let request = request.into_inner();
        let (name, password) = (
            Zeroizing::new(request.account_name),
            Zeroizing::new(request.password),
        );
        let tenant_id = dir::tenant_id(&request.tenant_id)?;
        // Nobody has a name that can't be an account name.
        let name = AccountName::parse(&name).ok();
        let check = tenant_admin::sign_in(&self.store, origin, tenant_id, name, password);
        let (user, position) = read_at(&self.store, check).await?;
        Ok(Response::new(pb::AuthenticateTenantAdminResponse {
            user: Some(dir::user_profile(user)),
            position: Some(dir::position(position)),
        }))
    }

    async fn authenticate_caller(
        &self,
        request: Request<pb::AuthenticateCallerRequest>,
    ) -> Result<Response<pb::AuthenticateCallerResponse>, Status> {
        let token = Zeroizing::new(request.into_inner().token);
        let (record, position) = read_at(&self.store, caller::authenticate(&self.store, &token)).await?;
        Ok(Response::new(pb::AuthenticateCallerResponse {
            caller: Some(convert::caller::message(record)),
            position: Some(dir::position(position)),
        }))
    }

    async fn resolve_user(
        &self,
        request: Request<pb::ResolveUserRequest>,
    ) -> Result<Response<pb::ResolveUserResponse>, Status> {
        use pb::{find_user_request::User as Which, resolve_user_request::User as By};
        let request = request.into_inner();
        let by = request.user.map(|user| match user {
            By::UserId(id) => Which::UserId(id),
            By::AccountName(name) => Which::AccountName(name),
        });
        let (tenant_id, which) = convert::user::which(&request.tenant_id, by)?;
        let (user, position) = read_at(&self.store, self.store.find_user(&tenant_id, &which)).await?;
        let user = user.ok_or(Error::NotFound("user"))?;
        Ok(Response::new(pb::ResolveUserResponse {
            user: Some(dir::user_profile(user)),
            position: Some(dir::position(position)),
        }))
    }

    async fn get_client_profile(
        &self,
        request: Request<pb::GetClientProfileRequest>,
    ) -> Result<Response<pb::GetClientProfileResponse>, Status> {
        let client_id = dir::client_id(&request.get_ref().client_id)?;
        let (client, position) = read_at(&self.store, self.store.find_client_profile(&client_id)).await?;
        let client = client.ok_or(Error::NotFound("client"))?;
        Ok(Response::new(pb::GetClientProfileResponse {
            client: Some(dir::client_profile(client)),
            position: Some(dir::position(position)),
        }))
    }

    async fn get_tenant_profile(
        &self,
        request: Request<pb::GetTenantProfileRequest>,
    ) -> Result<Response<pb::GetTenantProfileResponse>, Status> {
        let tenant_id = dir::tenant_id(&request.get_ref().tenant_id)?;
        let (tenant, position) = read_at(&self.store, self.store.find_tenant(&tenant_id)).await?;
        let tenant = tenant.ok_or(Error::NotFound("tenant"))?;
        Ok(Response::new(pb::GetTenantProfileResponse {
            tenant: Some(dir::tenant_profile(tenant, &self.public_base_url)),
            position: Some(dir::position(position)),
        }))
    }

    async fn list_changes(
        &self,
        request: Request<pb::ListChangesRequest>,
    ) -> Result<Response<pb::ListChangesResponse>, Status> {
        let (after, limit) = dir::list_changes(request.into_inner())?;
        let changes = directory::changes(&self.store, after, limit).await?;
        Ok(Response::new(dir::list_changes_response(changes)))
    }

    async fn report_secret_use(
        &self,
        request: Request<pb::ReportSecretUseRequest>,
    ) -> Result<Response<pb::ReportSecretUseResponse>, Status> {
        let uses = dir::uses(request.into_inner())?;
        self.store.record_secret_uses(uses).await?;
        Ok(Response::new(pb::ReportSecretUseResponse {}))
    }
}
