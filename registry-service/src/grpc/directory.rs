//! `DirectoryService`.

use accord::{
    registry::v1::{
        self as pb, authenticate_caller_response::Caller, directory_service_server::DirectoryService,
    },
    rpc::auth::Principal,
    text::opaque::{OpaqueToken, TokenKind},
};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::Api;
use crate::{
    directory::{self, at_position},
    error::Error,
    grpc::convert::{self, directory as dir},
    model::{
        account_name::AccountName,
        caller::{self, CallerRecord},
        client, client_secret, tenant, user,
    },
};

#[tonic::async_trait]
impl DirectoryService for Api {
    async fn authenticate_client(
        &self,
        request: Request<pb::AuthenticateClientRequest>,
    ) -> Result<Response<pb::AuthenticateClientResponse>, Status> {
        let request = request.into_inner();
        let secret = Zeroizing::new(request.client_secret);
        let answer = client_secret::authenticate(&self.store, &request.client_id, &secret).await?;
        Ok(Response::new(pb::AuthenticateClientResponse {
            client: Some(dir::client_profile(answer.value.client)),
            secret_id: answer.value.secret_id.into(),
            secret_expire_time: answer.value.expires_at.map(|at| at.to_timestamp()),
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
        let tenant_id = dir::tenant_id(&request.tenant_id).map_err(Error::from)?;
        // A text that can't be an account name is one that nobody has.
        let name = AccountName::parse(&name).ok();
        let check = user::authenticate_admin(&self.store, &origin, &tenant_id, name, password);
        let answer = at_position(&self.store, check).await?;
        Ok(Response::new(pb::AuthenticateTenantAdminResponse {
            user: Some(dir::user_profile(answer.value)),
            position: Some(dir::position(answer.position)),
        }))
    }

    async fn authenticate_caller(
        &self,
        request: Request<pb::AuthenticateCallerRequest>,
    ) -> Result<Response<pb::AuthenticateCallerResponse>, Status> {
        let token = Zeroizing::new(request.into_inner().token);
        let token = OpaqueToken::parse(TokenKind::Operator, &token)
            .or_else(|_| OpaqueToken::parse(TokenKind::Workload, &token))
            .map_err(|_| Error::UnknownCaller)?;
        let answer = at_position(&self.store, caller::find_by_token(&self.store, &token)).await?;
        let caller = match answer.value.ok_or(Error::UnknownCaller)? {
            CallerRecord::Operator(operator) => Caller::Operator(convert::caller::operator(operator)),
            CallerRecord::Workload(workload) => Caller::Workload(convert::caller::workload(workload)),
        };
        Ok(Response::new(pb::AuthenticateCallerResponse {
            caller: Some(caller),
            position: Some(dir::position(answer.position)),
        }))
    }

    async fn resolve_user(
        &self,
        request: Request<pb::ResolveUserRequest>,
    ) -> Result<Response<pb::ResolveUserResponse>, Status> {
        use pb::{find_user_request::User as Which, resolve_user_request::User as Asked};
        let request = request.into_inner();
        let asked = request.user.map(|user| match user {
            Asked::UserId(id) => Which::UserId(id),
            Asked::AccountName(name) => Which::AccountName(name),
        });
        let (tenant_id, which) = convert::user::which(&request.tenant_id, asked).map_err(Error::from)?;
        let answer = at_position(&self.store, user::find(&self.store, &tenant_id, &which)).await?;
        Ok(Response::new(pb::ResolveUserResponse {
            user: Some(dir::user_profile(answer.value)),
            position: Some(dir::position(answer.position)),
        }))
    }

    async fn get_client_profile(
        &self,
        request: Request<pb::GetClientProfileRequest>,
    ) -> Result<Response<pb::GetClientProfileResponse>, Status> {
        let client_id = dir::client_id(&request.get_ref().client_id).map_err(Error::from)?;
        let answer = at_position(&self.store, client::profile(&self.store, &client_id)).await?;
        Ok(Response::new(pb::GetClientProfileResponse {
            client: Some(dir::client_profile(answer.value)),
            position: Some(dir::position(answer.position)),
        }))
    }

    async fn get_tenant_profile(
        &self,
        request: Request<pb::GetTenantProfileRequest>,
    ) -> Result<Response<pb::GetTenantProfileResponse>, Status> {
        let tenant_id = dir::tenant_id(&request.get_ref().tenant_id).map_err(Error::from)?;
        let answer = at_position(&self.store, tenant::get(&self.store, &tenant_id)).await?;
        Ok(Response::new(pb::GetTenantProfileResponse {
            tenant: Some(dir::tenant_profile(answer.value, &self.public_base_url)),
            position: Some(dir::position(answer.position)),
        }))
    }

    async fn list_changes(
        &self,
        request: Request<pb::ListChangesRequest>,
    ) -> Result<Response<pb::ListChangesResponse>, Status> {
        let (after, limit) = dir::list_changes(request.into_inner()).map_err(Error::from)?;
        let changes = directory::changes(&self.store, after, limit).await?;
        Ok(Response::new(dir::list_changes_response(changes)))
    }

    async fn report_secret_use(
        &self,
        request: Request<pb::ReportSecretUseRequest>,
    ) -> Result<Response<pb::ReportSecretUseResponse>, Status> {
        let uses = dir::uses(request.into_inner()).map_err(Error::from)?;
        client_secret::report_use(&self.store, uses).await?;
        Ok(Response::new(pb::ReportSecretUseResponse {}))
    }
}
