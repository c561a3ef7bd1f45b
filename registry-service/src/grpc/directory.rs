//! `DirectoryService`.

use accord::{
    clock::UnixMillis,
    registry::v1::{directory_service_server::DirectoryService, *},
    rpc::{
        auth::{caller_token, note_caller},
        status::Reply,
    },
    text::{
        account_name::AccountName,
        caller::{Credential, MAX_CERTIFICATE_NAMES},
        id::{ClientId, TenantId},
        opaque::{OpaqueToken, TokenKind},
    },
};
use tonic::{Request, Response};
use zeroize::Zeroizing;

use super::{
    Api,
    convert::{self, directory as dir, only_field},
    parts,
};
use crate::{
    authentication::{client::authenticate, tenant_admin::sign_in},
    directory::{self, read_at},
    error::Error,
    model::tenant::authority_host,
};

#[tonic::async_trait]
impl DirectoryService for Api {
    async fn authenticate_client(
        &self,
        call: Request<AuthenticateClientRequest>,
    ) -> Reply<AuthenticateClientResponse> {
        let message = call.into_inner();
        let secret = Zeroizing::new(message.client_secret);
        let (client, secret, position) = authenticate(&self.store, &message.client_id, &secret).await?;
        Ok(Response::new(AuthenticateClientResponse {
            client: Some(dir::client_profile(client)),
            secret_id: secret.secret_id.into(),
            secret_expire_time: secret.expires_at.map(UnixMillis::to_timestamp),
            position: Some(dir::position(position)),
        }))
    }

    async fn authenticate_tenant_admin(
        &self,
        call: Request<AuthenticateTenantAdminRequest>,
    ) -> Reply<AuthenticateTenantAdminResponse> {
        let (origin, message) = parts(call);
        let password = Zeroizing::new(message.password);
        let name = Zeroizing::new(message.account_name);
        // A text that is no account name is the name of no user.
        let name = AccountName::parse(&name).ok();
        let tenant_id = only_field("tenant_id", TenantId::parse(&message.tenant_id))?;
        let user = sign_in(&self.store, origin, tenant_id, name, password);
        let (user, position) = read_at(&self.store, user).await?;
        Ok(Response::new(AuthenticateTenantAdminResponse {
            user: Some(dir::user_profile(user)),
            position: Some(dir::position(position)),
        }))
    }

    async fn authenticate_caller(
        &self,
        call: Request<AuthenticateCallerRequest>,
    ) -> Reply<AuthenticateCallerResponse> {
        let message = call.into_inner();
        let (text, names) = (Zeroizing::new(message.token), message.certificate_names);
        let token;
        let credential = match (text.is_empty(), names.len()) {
            (true, 1..=MAX_CERTIFICATE_NAMES) => Credential::Certificate(&names),
            (false, 0) => {
                token = caller_token(&text).ok_or(Error::UnknownCaller)?;
                Credential::Token(&token)
            }
            _ => return Err(Error::UnknownCaller.into()),
        };
        let (record, position) = read_at(&self.store, self.store.find_caller_record(credential)).await?;
        let Some(record) = record else {
            // A revoked credential at token-service, which does not know whose it was.
            if let Some(caller) = self.store.find_revoked_caller(credential).await? {
                note_caller(&caller, None);
            }
            return Err(Error::UnknownCaller.into());
        };
        Ok(Response::new(AuthenticateCallerResponse {
            caller: convert::caller::message(record),
            position: Some(dir::position(position)),
        }))
    }

    async fn resolve_user(&self, call: Request<ResolveUserRequest>) -> Reply<ResolveUserResponse> {
        use {find_user_request::User as Selector, resolve_user_request::User};
        let message = call.into_inner();
        let user = match message.user {
            Some(User::UserId(id)) => Some(Selector::UserId(id)),
            Some(User::AccountName(name)) => Some(Selector::AccountName(name)),
            Some(User::EnrolmentToken(token)) => {
                let token = OpaqueToken::parse(TokenKind::Enrolment, &Zeroizing::new(token));
                let token = only_field("enrolment_token", token)?;
                let enrolment = self.store.find_enrolment(&token).await?;
                // One of another tenant is one of nobody here.
                let enrolment = enrolment.filter(|found| found.tenant_id.as_str() == message.tenant_id);
                let enrolment = enrolment.ok_or(Error::NotFound("user"))?;
                Some(Selector::UserId(enrolment.user_id.into()))
            }
            None => None,
        };
        let unnamed = "must be named by user_id, account_name or enrolment_token";
        let (tenant_id, selector) = convert::user::selector(&message.tenant_id, user, unnamed)?;
        let (user, position) = read_at(&self.store, self.store.find_user(&tenant_id, &selector)).await?;
        Ok(Response::new(ResolveUserResponse {
            user: Some(dir::user_profile(user.ok_or(Error::NotFound("user"))?)),
            position: Some(dir::position(position)),
        }))
    }

    async fn get_client_profile(
        &self,
        call: Request<GetClientProfileRequest>,
    ) -> Reply<GetClientProfileResponse> {
        let client_id = only_field("client_id", ClientId::parse(&call.get_ref().client_id))?;
        let (client, position) = read_at(&self.store, self.store.find_client_profile(&client_id)).await?;
        let client = client.ok_or(Error::NotFound("client"))?;
        let origin = match call.get_ref().with_origin {
            true => Some(self.store.find_client_origin(&client.client).await?),
            false => None,
        };
        Ok(Response::new(GetClientProfileResponse {
            client: Some(dir::client_profile(client)),
            position: Some(dir::position(position)),
            origin: origin.map(dir::client_origin),
        }))
    }

    async fn get_tenant_profile(
        &self,
        call: Request<GetTenantProfileRequest>,
    ) -> Reply<GetTenantProfileResponse> {
        let tenant_id = only_field("tenant_id", TenantId::parse(&call.get_ref().tenant_id))?;
        let (tenant, position) = read_at(&self.store, self.store.find_tenant(&tenant_id)).await?;
        let tenant = tenant.ok_or(Error::NotFound("tenant"))?;
        Ok(Response::new(GetTenantProfileResponse {
            tenant: Some(dir::tenant_profile(tenant, &self.public_base_url)),
            position: Some(dir::position(position)),
        }))
    }

    async fn get_profiles(&self, call: Request<GetProfilesRequest>) -> Reply<GetProfilesResponse> {
        let keys = dir::profile_keys(&call.into_inner())?;
        let (found, position) = read_at(&self.store, self.store.find_profiles(&keys)).await?;
        let tenant = |tenant| dir::tenant_profile(tenant, &self.public_base_url);
        Ok(Response::new(GetProfilesResponse {
            clients: found.clients.into_iter().map(dir::client_profile).collect(),
            tenants: found.tenants.into_iter().map(tenant).collect(),
            users: found.users.into_iter().map(dir::user_profile).collect(),
            position: Some(dir::position(position)),
        }))
    }

    async fn list_changes(&self, call: Request<ListChangesRequest>) -> Reply<ListChangesResponse> {
        let (after, limit) = dir::list_changes(call.into_inner())?;
        let changes = directory::changes(&self.store, after, limit).await?;
        Ok(Response::new(dir::list_changes_response(
            changes,
            &authority_host(&self.public_base_url),
        )))
    }

    async fn report_secret_use(
        &self,
        call: Request<ReportSecretUseRequest>,
    ) -> Reply<ReportSecretUseResponse> {
        let uses = dir::uses(call.into_inner())?;
        self.store.write_secret_uses(uses).await?;
        Ok(Response::new(ReportSecretUseResponse {}))
    }

    async fn report_signing_algorithms(
        &self,
        call: Request<ReportSigningAlgorithmsRequest>,
    ) -> Reply<ReportSigningAlgorithmsResponse> {
        let (origin, message) = parts(call);
        let algorithms = dir::signing_algorithms(&message)?;
        self.store.report_signing_algorithms(&origin, &algorithms).await?;
        Ok(Response::new(ReportSigningAlgorithmsResponse {}))
    }

    async fn list_operator_actions(
        &self,
        call: Request<ListOperatorActionsRequest>,
    ) -> Reply<ListOperatorActionsResponse> {
        let (tenant_id, before, limit) = dir::list_operator_actions(call.get_ref())?;
        let events = self.store.operator_actions(&tenant_id, before.as_ref(), limit);
        Ok(Response::new(ListOperatorActionsResponse {
            operator_actions: events.await?.into_iter().map(dir::operator_action).collect(),
        }))
    }
}
