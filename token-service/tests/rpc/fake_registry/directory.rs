//! `DirectoryService` of the fake registry.

use accord::{
    registry::v1::{
        self as pb, directory_service_server::DirectoryService, resolve_user_request::User as Which,
    },
    rpc::status::{ErrorReason, Problem},
    text::account_name::AccountName,
};
use tonic::{Code, Request, Response, Status};

use super::{FakeRegistry, Question, TAG_KEY, User};

fn refused(reason: ErrorReason) -> Status {
    Problem::new(Code::Unauthenticated, reason, "refused").into()
}

fn not_found(resource: &str) -> Status {
    Problem::not_found(resource).into()
}

#[tonic::async_trait]
impl DirectoryService for FakeRegistry {
    async fn authenticate_client(
        &self,
        request: Request<pb::AuthenticateClientRequest>,
    ) -> Result<Response<pb::AuthenticateClientResponse>, Status> {
        self.count(Question::Secret);
        let request = request.into_inner();
        let state = self.ask()?;
        let refused = || refused(ErrorReason::InvalidClient);
        let (client_id, secret_id) = state.secrets.get(&request.client_secret).ok_or_else(refused)?;
        let client = state.clients.get(client_id).ok_or_else(refused)?;
        if *client_id != request.client_id || client.state() != pb::ClientState::Active {
            return Err(refused());
        }
        Ok(Response::new(pb::AuthenticateClientResponse {
            client: Some(client.clone()),
            secret_id: secret_id.clone(),
            secret_expire_time: None,
            position: state.position(),
        }))
    }

    async fn authenticate_tenant_admin(
        &self,
        request: Request<pb::AuthenticateTenantAdminRequest>,
    ) -> Result<Response<pb::AuthenticateTenantAdminResponse>, Status> {
        self.count(Question::SignIn);
        self.late(Question::SignIn).await;
        let request = request.into_inner();
        let state = self.ask()?;
        let found = state.users.iter().find(|user| {
            user.profile.tenant_id == request.tenant_id
                && is_name(user, &request.account_name)
                && user.password == request.password
                && user.profile.tenant_admin
                && user.profile.state() == pb::UserState::Active
        });
        let tenant = state.tenants.get(&request.tenant_id);
        match (found, tenant) {
            (Some(user), Some(tenant)) if tenant.state() == pb::TenantState::Active => {
                Ok(Response::new(pb::AuthenticateTenantAdminResponse {
                    user: Some(user.profile.clone()),
                    position: state.position(),
                }))
            }
            _ => Err(refused(ErrorReason::SignInFailed)),
        }
    }

    async fn authenticate_caller(
        &self,
        request: Request<pb::AuthenticateCallerRequest>,
    ) -> Result<Response<pb::AuthenticateCallerResponse>, Status> {
        let state = self.state();
        let request = request.into_inner();
        // A test's callers have names and tokens that never are the same.
        let mut credentials = request.certificate_names.iter().chain([&request.token]);
        let caller = credentials
            .find_map(|credential| state.callers.get(credential))
            .cloned();
        Ok(Response::new(pb::AuthenticateCallerResponse {
            caller: Some(caller.ok_or_else(|| refused(ErrorReason::InvalidCaller))?),
            position: state.position(),
        }))
    }

    async fn resolve_user(
        &self,
        request: Request<pb::ResolveUserRequest>,
    ) -> Result<Response<pb::ResolveUserResponse>, Status> {
        self.count(Question::User);
        let request = request.into_inner();
        let answer = {
            let state = self.ask()?;
            let mut users = state
                .users
                .iter()
                .filter(|user| user.profile.tenant_id == request.tenant_id);
            let user = match request.user.unwrap() {
                Which::UserId(user_id) => users.find(|user| user.profile.user_id == user_id),
                Which::AccountName(name) => users.find(|user| is_name(user, &name)),
                Which::EnrolmentToken(token) => {
                    let enrolment = state.links.enrolments.get(&token);
                    users.find(|user| enrolment.is_some_and(|known| known.user_id == user.profile.user_id))
                }
            };
            pb::ResolveUserResponse {
                user: Some(user.ok_or_else(|| not_found("user"))?.profile.clone()),
                position: state.position(),
            }
        };
        self.late(Question::User).await;
        Ok(Response::new(answer))
    }

    async fn get_client_profile(
        &self,
        request: Request<pb::GetClientProfileRequest>,
    ) -> Result<Response<pb::GetClientProfileResponse>, Status> {
        self.count(Question::Client);
        let answer = {
            let state = self.ask()?;
            let request = request.into_inner();
            let client = state.clients.get(&request.client_id);
            let origin = state.origins.get(&request.client_id);
            pb::GetClientProfileResponse {
                client: Some(client.ok_or_else(|| not_found("client"))?.clone()),
                position: state.position(),
                origin: request.with_origin.then(|| origin.cloned()).flatten(),
            }
        };
        self.late(Question::Client).await;
        Ok(Response::new(answer))
    }

    async fn get_tenant_profile(
        &self,
        request: Request<pb::GetTenantProfileRequest>,
    ) -> Result<Response<pb::GetTenantProfileResponse>, Status> {
        self.count(Question::Tenant);
        let answer = {
            let state = self.ask()?;
            let tenant = state.tenants.get(&request.into_inner().tenant_id);
            pb::GetTenantProfileResponse {
                tenant: Some(tenant.ok_or_else(|| not_found("tenant"))?.clone()),
                position: state.position(),
            }
        };
        self.late(Question::Tenant).await;
        Ok(Response::new(answer))
    }

    async fn get_profiles(
        &self,
        request: Request<pb::GetProfilesRequest>,
    ) -> Result<Response<pb::GetProfilesResponse>, Status> {
        let asked = request.into_inner();
        let questions = [
            (Question::Client, asked.client_ids.len()),
            (Question::Tenant, asked.tenant_ids.len()),
            (Question::User, asked.users.len()),
        ];
        let questions = questions
            .into_iter()
            .flat_map(|(question, count)| vec![question; count]);
        let questions: Vec<_> = questions.collect();
        questions.iter().for_each(|question| self.count(*question));
        let answer = {
            let state = self.ask()?;
            let users = state.users.iter().map(|user| &user.profile).filter(|user| {
                let is_asked =
                    |key: &pb::UserKey| key.tenant_id == user.tenant_id && key.user_id == user.user_id;
                asked.users.iter().any(is_asked)
            });
            let clients = asked.client_ids.iter().filter_map(|id| state.clients.get(id));
            let tenants = asked.tenant_ids.iter().filter_map(|id| state.tenants.get(id));
            pb::GetProfilesResponse {
                clients: clients.cloned().collect(),
                tenants: tenants.cloned().collect(),
                users: users.cloned().collect(),
                position: state.position(),
            }
        };
        for question in questions {
            self.late(question).await;
        }
        Ok(Response::new(answer))
    }

    async fn list_changes(
        &self,
        request: Request<pb::ListChangesRequest>,
    ) -> Result<Response<pb::ListChangesResponse>, Status> {
        let state = self.ask()?;
        if !state.tells_changes && request.get_ref().after.is_some() {
            return Err(Status::unimplemented("the fake has no feed"));
        }
        Ok(Response::new(pb::ListChangesResponse {
            position: state.position(),
            secret_tag_keys: vec![pb::SecretTagKey {
                version: 1,
                key: TAG_KEY.to_vec(),
            }],
            authority_host: "auth.example".to_owned(),
            ..Default::default()
        }))
    }

    async fn report_secret_use(
        &self,
        _: Request<pb::ReportSecretUseRequest>,
    ) -> Result<Response<pb::ReportSecretUseResponse>, Status> {
        Ok(Response::new(pb::ReportSecretUseResponse {}))
    }

    async fn report_signing_algorithms(
        &self,
        request: Request<pb::ReportSigningAlgorithmsRequest>,
    ) -> Result<Response<pb::ReportSigningAlgorithmsResponse>, Status> {
        let mut state = self.ask()?;
        let algorithms = request.into_inner().algorithms;
        let mut clients = state.clients.values();
        let follows = clients.any(|client| client.security_profile() == pb::SecurityProfile::Fapi20);
        if follows && algorithms.iter().any(|name| name == "RS256") {
            let (code, reason) = (Code::FailedPrecondition, ErrorReason::WrongState);
            return Err(Problem::new(code, reason, "refused").into());
        }
        state.signing_algorithms = algorithms;
        Ok(Response::new(pb::ReportSigningAlgorithmsResponse {}))
    }

    async fn list_operator_actions(
        &self,
        request: Request<pb::ListOperatorActionsRequest>,
    ) -> Result<Response<pb::ListOperatorActionsResponse>, Status> {
        let request = request.into_inner();
        let state = self.ask()?;
        // As a registry of an older version, which does not have the method.
        let actions = state.actions.as_ref().ok_or_else(|| Status::unimplemented(""))?;
        let before = &request.before_event_id;
        let mut found: Vec<_> = actions
            .iter()
            .filter(|(tenant_id, action)| {
                *tenant_id == request.tenant_id && (before.is_empty() || action.event_id < *before)
            })
            .map(|(_, action)| action.clone())
            .collect();
        found.sort_by(|one, other| other.event_id.cmp(&one.event_id));
        found.truncate(usize::try_from(request.page_size).unwrap());
        Ok(Response::new(pb::ListOperatorActionsResponse {
            operator_actions: found,
        }))
    }
}

/// Compares names as the registry does.
fn is_name(user: &User, name: &str) -> bool {
    AccountName::parse(name).is_ok_and(|name| AccountName::parse(&user.account_name) == Ok(name))
}
