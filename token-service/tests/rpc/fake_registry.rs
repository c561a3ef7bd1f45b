//! A registry in memory: `DirectoryService`, and of one-time links what anyone may call. It keeps the rules
//! that token-service relies on: every change moves the feed's position, and what ends tokens or sessions
//! says where.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use accord::{
    random::{Random, SystemRandom},
    registry::v1::{
        self as pb, authenticate_caller_response::Caller, directory_service_server::DirectoryService,
        resolve_user_request::User as Which,
    },
    rpc::{
        auth::{Role, WorkloadKind},
        status::{ErrorReason, Problem},
    },
    testing::test_clock,
    text::{
        id::{ClientId, OperatorId, SecretId, TenantId, UserId, WorkloadId},
        opaque::{ClientSecret, OpaqueToken, SecretTagKey, TokenKind},
    },
};
use tonic::{Code, Request, Response, Status};

mod links;

use links::Links;

/// What tenants' authority URLs begin with.
pub const PUBLIC_BASE_URL: &str = "https://auth.example";

/// The key that tags its Client Secrets.
const TAG_KEY: [u8; 32] = [3; 32];

/// The registry. Cheap to clone: clones are one registry.
#[derive(Clone, Default)]
pub struct FakeRegistry(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    epoch: u32,
    seq: i64,
    unavailable: bool,
    tells_changes: bool,
    tenants: BTreeMap<String, pb::TenantProfile>,
    clients: BTreeMap<String, pb::ClientProfile>,
    users: Vec<User>,
    secrets: HashMap<String, (String, String)>,
    callers: HashMap<String, Caller>,
    delays: HashMap<Question, Delay>,
    counts: BTreeMap<Question, usize>,
    links: Links,
}

/// A question that is counted, and whose answer a test can hold back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    Tenant,
    Client,
    User,
    Secret,
    SignIn,
}

/// What happens after an answer was read and before it arrives.
type Delay = Pin<Box<dyn Future<Output = ()> + Send>>;

struct User {
    profile: pb::UserProfile,
    account_name: String,
    password: String,
}

impl State {
    fn position(&self) -> Option<pb::FeedPosition> {
        Some(pb::FeedPosition {
            epoch: format!("epoch{:05}", self.epoch),
            seq: self.seq,
        })
    }

    fn user(&mut self, user_id: &str) -> &mut User {
        let mut users = self.users.iter_mut();
        users.find(|user| user.profile.user_id == user_id).unwrap()
    }
}

impl FakeRegistry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Makes a change and moves the position; the change is told its own.
    fn change<T>(&self, change: impl FnOnce(&mut State, i64) -> T) -> T {
        let mut state = self.state();
        state.seq += 1;
        let seq = state.seq;
        change(&mut state, seq)
    }

    /// The state for an answer.
    fn ask(&self) -> Result<MutexGuard<'_, State>, Status> {
        let state = self.state();
        if state.unavailable {
            return Err(Problem::unavailable().into());
        }
        Ok(state)
    }

    /// Lets every question fail, or no more, but for those about callers: so a call gets as far as its
    /// own questions.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state().unavailable = unavailable;
    }

    /// Answers questions about changes, and that there are none: for tests that make none.
    pub fn tell_changes(&self) {
        self.state().tells_changes = true;
    }

    /// Holds the next answer to this question back, as it is then, until all this has happened.
    pub fn delay(&self, question: Question, meanwhile: impl Future<Output = ()> + Send + 'static) {
        self.state().delays.insert(question, Box::pin(meanwhile));
    }

    /// Whether every delay was met.
    pub fn was_delayed(&self) -> bool {
        self.state().delays.is_empty()
    }

    /// Answers at once again.
    pub fn end_delays(&self) {
        self.state().delays.clear();
    }

    /// How often each question was asked since the last call.
    pub fn take_counts(&self) -> BTreeMap<Question, usize> {
        std::mem::take(&mut self.state().counts)
    }

    fn count(&self, question: Question) {
        *self.state().counts.entry(question).or_default() += 1;
    }

    async fn late(&self, question: Question) {
        let delay = self.state().delays.remove(&question);
        if let Some(delay) = delay {
            delay.await;
        }
    }

    /// Starts a new epoch, as a restored database does.
    pub fn start_epoch(&self) {
        self.state().epoch += 1;
    }

    /// Adds an active tenant.
    pub fn add_tenant(&self, tenant_id: &str) -> pb::TenantProfile {
        TenantId::parse(tenant_id).unwrap();
        let tenant = pb::TenantProfile {
            tenant_id: tenant_id.into(),
            display_name: format!("Tenant {tenant_id}"),
            state: pb::TenantState::Active.into(),
            tenant_authority_url: format!("{PUBLIC_BASE_URL}/{tenant_id}"),
            cloud_api_url: format!("https://api.example/{tenant_id}"),
            tokens_ended_seq: 0,
        };
        self.change(|state, _| state.tenants.insert(tenant_id.into(), tenant.clone()));
        tenant
    }

    /// Adds an active client of these tenants and scopes, and gives it a secret.
    pub fn add_client(&self, tenant_ids: &[&str], scopes: &[&str], redirect_uri: &str) -> (String, String) {
        let id = ClientId::generate(&*test_clock(), &SystemRandom);
        let secret_id = SecretId::generate(&*test_clock(), &SystemRandom);
        let client_id = id.to_string();
        let scope = |name: &&str| pb::ProfileScope {
            name: (*name).into(),
            description: format!("Allows {name}"),
            reason: format!("Needs {name}"),
        };
        let client = pb::ClientProfile {
            client_id: client_id.clone(),
            display_name: "Contact Sync".into(),
            partner_name: "Partner Ltd".into(),
            purpose: "Keep contacts in step".into(),
            state: pb::ClientState::Active.into(),
            tenant_ids: tenant_ids.iter().map(ToString::to_string).collect(),
            scopes: scopes.iter().map(scope).collect(),
            redirect_uris: vec![redirect_uri.into()],
            version: 1,
            tokens_ended_seq: 0,
            families_ended_seq: 0,
            json_web_key_set: String::new(),
            live_secrets: vec![pb::LiveSecret {
                secret_id: secret_id.to_string(),
                expire_time: None,
            }],
        };
        let mut bits = [0; 32];
        SystemRandom.fill(&mut bits);
        let tag_key = SecretTagKey::new(1, &TAG_KEY);
        let secret = ClientSecret::compose(&tag_key, &id, secret_id.clone(), &bits)
            .expose()
            .to_owned();
        self.change(|state, _| {
            state.clients.insert(client_id.clone(), client);
            let entry = (client_id.clone(), secret_id.to_string());
            state.secrets.insert(secret.clone(), entry);
        });
        (client_id, secret)
    }

    /// Adds an active user; the password is of use to a Tenant Admin alone.
    pub fn add_user(
        &self,
        tenant_id: &str,
        account_name: &str,
        password: &str,
        tenant_admin: bool,
    ) -> String {
        let user_id = UserId::generate(&*test_clock(), &SystemRandom).to_string();
        self.change(|state, _| {
            let profile = pb::UserProfile {
                user_id: user_id.clone(),
                tenant_id: tenant_id.into(),
                label: format!("User {}", state.users.len() + 1),
                tenant_admin,
                state: pb::UserState::Active.into(),
                tokens_ended_seq: 0,
                sessions_ended_seq: 0,
            };
            state.users.push(User {
                profile,
                account_name: account_name.into(),
                password: password.into(),
            });
        });
        user_id
    }

    /// Adds an operator with this role. Gives its token.
    pub fn add_operator(&self, role: Role) -> OpaqueToken {
        let role = match role {
            Role::Registrar => pb::OperatorRole::Registrar,
            Role::Approver => pb::OperatorRole::Approver,
            Role::Security => pb::OperatorRole::Security,
            Role::Auditor => pb::OperatorRole::Auditor,
            Role::Admin => pb::OperatorRole::Admin,
        };
        let operator = pb::Operator {
            operator_id: OperatorId::generate(&*test_clock(), &SystemRandom).into(),
            roles: vec![role.into()],
            ..Default::default()
        };
        self.add_caller(TokenKind::Operator, Caller::Operator(operator))
    }

    /// Adds a workload of this kind. Gives its token.
    pub fn add_workload(&self, kind: WorkloadKind) -> OpaqueToken {
        let kind = match kind {
            WorkloadKind::Gateway => pb::WorkloadKind::Gateway,
            WorkloadKind::TokenService => pb::WorkloadKind::TokenService,
            WorkloadKind::InternalService => pb::WorkloadKind::InternalService,
        };
        let workload = pb::Workload {
            workload_id: WorkloadId::generate(&*test_clock(), &SystemRandom).into(),
            kind: kind.into(),
            ..Default::default()
        };
        self.add_caller(TokenKind::Workload, Caller::Workload(workload))
    }

    fn add_caller(&self, kind: TokenKind, caller: Caller) -> OpaqueToken {
        let token = OpaqueToken::generate(kind, &SystemRandom);
        self.change(|state, _| state.callers.insert(token.expose().to_owned(), caller));
        token
    }

    /// Changes a client as a consent page would show it.
    pub fn edit_client(&self, client_id: &str, edit: impl FnOnce(&mut pb::ClientProfile)) {
        self.change(|state, _| edit(state.clients.get_mut(client_id).unwrap()));
    }

    /// Changes a tenant as a page would show it.
    pub fn edit_tenant(&self, tenant_id: &str, edit: impl FnOnce(&mut pb::TenantProfile)) {
        self.change(|state, _| edit(state.tenants.get_mut(tenant_id).unwrap()));
    }

    /// Suspends a client, which ends its access tokens, or reinstates it.
    pub fn suspend_client(&self, client_id: &str, suspended: bool) {
        self.change(|state, seq| {
            let client = state.clients.get_mut(client_id).unwrap();
            client.set_state(if suspended {
                pb::ClientState::Suspended
            } else {
                pb::ClientState::Active
            });
            if suspended {
                client.tokens_ended_seq = seq;
            }
        });
    }

    /// Suspends a tenant, which ends its access tokens and admin sessions, or reinstates it.
    pub fn suspend_tenant(&self, tenant_id: &str, suspended: bool) {
        self.change(|state, seq| {
            let tenant = state.tenants.get_mut(tenant_id).unwrap();
            tenant.set_state(if suspended {
                pb::TenantState::Suspended
            } else {
                pb::TenantState::Active
            });
            if suspended {
                tenant.tokens_ended_seq = seq;
            }
        });
    }

    /// Deactivates a user, which ends access tokens and admin sessions, or reactivates.
    pub fn deactivate_user(&self, user_id: &str, deactivated: bool) {
        self.change(|state, seq| {
            let user = &mut state.user(user_id).profile;
            user.set_state(if deactivated {
                pb::UserState::Deactivated
            } else {
                pb::UserState::Active
            });
            if deactivated {
                user.tokens_ended_seq = seq;
                user.sessions_ended_seq = seq;
            }
        });
    }

    /// Makes a user a Tenant Admin, or takes that away, which ends the sessions.
    pub fn set_tenant_admin(&self, user_id: &str, tenant_admin: bool) {
        self.change(|state, seq| {
            let user = &mut state.user(user_id).profile;
            user.tenant_admin = tenant_admin;
            if !tenant_admin {
                user.sessions_ended_seq = seq;
            }
        });
    }

    /// Ends a user's sessions, as a reset of the password does.
    pub fn end_sessions(&self, user_id: &str) {
        self.change(|state, seq| state.user(user_id).profile.sessions_ended_seq = seq);
    }
}

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
                && user.account_name == request.account_name
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
        let caller = state.callers.get(&request.into_inner().token).cloned();
        Ok(Response::new(pb::AuthenticateCallerResponse {
            caller: Some(caller.ok_or_else(|| refused(ErrorReason::Unauthenticated))?),
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
                Which::AccountName(name) => users.find(|user| user.account_name == name),
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
            let client = state.clients.get(&request.into_inner().client_id);
            pb::GetClientProfileResponse {
                client: Some(client.ok_or_else(|| not_found("client"))?.clone()),
                position: state.position(),
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
            ..Default::default()
        }))
    }

    async fn report_secret_use(
        &self,
        _: Request<pb::ReportSecretUseRequest>,
    ) -> Result<Response<pb::ReportSecretUseResponse>, Status> {
        Ok(Response::new(pb::ReportSecretUseResponse {}))
    }
}
