//! A registry in memory: `DirectoryService`, and the methods for one-time links that anyone may call. It follows the
//! rules that token-service relies on: every change moves the feed's position, and a change that ends tokens or
//! sessions records its own.

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use accord::{
    random::{Random, SystemRandom},
    registry::v1::{self as pb, authenticate_caller_response::Caller},
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
use tonic::{Code, Status};

mod directory;
mod links;

use links::Links;

/// The base of every tenant's authority URL.
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
    rejects_credential: bool,
    tells_changes: bool,
    tenants: BTreeMap<String, pb::TenantProfile>,
    clients: BTreeMap<String, pb::ClientProfile>,
    origins: BTreeMap<String, pb::ClientOrigin>,
    users: Vec<User>,
    secrets: HashMap<String, (String, String)>,
    callers: HashMap<String, Caller>,
    delays: HashMap<Question, Delay>,
    counts: BTreeMap<Question, usize>,
    links: Links,
    signing_algorithms: Vec<String>,
    /// What operators did, with the tenant; `None` for a registry that does not tell.
    actions: Option<Vec<(String, pb::OperatorAction)>>,
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

/// The work between reading an answer and sending it.
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

    /// Makes a change, which takes the next position.
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
        if state.rejects_credential {
            let (code, reason) = (Code::Unauthenticated, ErrorReason::Unauthenticated);
            return Err(Problem::new(code, reason, "refused").into());
        }
        Ok(state)
    }

    /// Lets every question fail, or no longer, except those about callers.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.state().unavailable = unavailable;
    }

    /// Rejects token-service's own credential, or no longer, except in questions about callers.
    pub fn reject_credential(&self, rejects: bool) {
        self.state().rejects_credential = rejects;
    }

    /// Answers questions about changes, always with none: for tests that make none.
    pub fn tell_changes(&self) {
        self.state().tells_changes = true;
    }

    /// Tells what operators did: these actions, each with its tenant. Otherwise it is a registry that does not know the
    /// method.
    pub fn tell_operator_actions(&self, actions: Vec<(String, pb::OperatorAction)>) {
        self.state().actions = Some(actions);
    }

    /// Returns the algorithms that were told last.
    pub fn signing_algorithms(&self) -> Vec<String> {
        self.state().signing_algorithms.clone()
    }

    /// Delays the next answer to this question until `meanwhile` has completed.
    pub fn delay(&self, question: Question, meanwhile: impl Future<Output = ()> + Send + 'static) {
        self.state().delays.insert(question, Box::pin(meanwhile));
    }

    /// Returns whether every delay was used.
    pub fn was_delayed(&self) -> bool {
        self.state().delays.is_empty()
    }

    /// Removes all delays.
    pub fn end_delays(&self) {
        self.state().delays.clear();
    }

    /// Returns how often each question was asked since the last call.
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
            added_seq: 0,
        };
        let client = pb::ClientProfile {
            client_id: client_id.clone(),
            display_name: "Contact Sync".into(),
            partner_name: "Partner Ltd".into(),
            purpose: "Keep contacts in step".into(),
            state: pb::ClientState::Active.into(),
            tenants: tenant_ids.iter().map(|id| tenant_since(id, 0)).collect(),
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
            ..Default::default()
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

    /// Adds an active user. Only a Tenant Admin can use the password.
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

    /// Adds an operator with this role. Returns its token.
    pub fn add_operator(&self, role: Role) -> OpaqueToken {
        let operator = pb::Operator {
            operator_id: OperatorId::generate(&*test_clock(), &SystemRandom).into(),
            roles: vec![pb::OperatorRole::from(role).into()],
            ..Default::default()
        };
        self.add_caller(TokenKind::Operator, Caller::Operator(operator))
    }

    /// Adds a workload of this kind. Returns its token.
    pub fn add_workload(&self, kind: WorkloadKind) -> OpaqueToken {
        self.new_workload(kind).1
    }

    /// A new workload's id and token.
    pub fn new_workload(&self, kind: WorkloadKind) -> (String, OpaqueToken) {
        let workload = pb::Workload {
            workload_id: WorkloadId::generate(&*test_clock(), &SystemRandom).into(),
            kind: pb::WorkloadKind::from(kind).into(),
            ..Default::default()
        };
        let workload_id = workload.workload_id.clone();
        let token = self.add_caller(TokenKind::Workload, Caller::Workload(workload));
        (workload_id, token)
    }

    /// Adds a workload of this kind that is known by a name of its certificate.
    pub fn add_named_workload(&self, kind: WorkloadKind, name: &str) {
        let workload = pb::Workload {
            workload_id: WorkloadId::generate(&*test_clock(), &SystemRandom).into(),
            kind: pb::WorkloadKind::from(kind).into(),
            ..Default::default()
        };
        self.change(|state, _| state.callers.insert(name.to_owned(), Caller::Workload(workload)));
    }

    fn add_caller(&self, kind: TokenKind, caller: Caller) -> OpaqueToken {
        let token = OpaqueToken::generate(kind, &SystemRandom);
        self.change(|state, _| state.callers.insert(token.expose().to_owned(), caller));
        token
    }

    /// Sets the requests that a client was registered from and amended by.
    pub fn set_origin(&self, client_id: &str, origin: pb::ClientOrigin) {
        self.state().origins.insert(client_id.to_owned(), origin);
    }

    /// Removes a client, as a registry does that was restored from an older copy.
    pub fn forget_client(&self, client_id: &str) {
        self.change(|state, _| state.clients.remove(client_id));
    }

    /// Changes a client as a consent page would show it.
    pub fn edit_client(&self, client_id: &str, edit: impl FnOnce(&mut pb::ClientProfile)) {
        self.change(|state, _| edit(state.clients.get_mut(client_id).unwrap()));
    }

    /// Registers a client for these tenants. One that it did not have is new.
    pub fn set_client_tenants(&self, client_id: &str, tenant_ids: &[&str]) {
        self.change(|state, seq| {
            let client = state.clients.get_mut(client_id).unwrap();
            let known = std::mem::take(&mut client.tenants);
            let find = |id: &str| known.iter().find(|known| known.tenant_id == id).cloned();
            let tenants = tenant_ids
                .iter()
                .map(|id| find(id).unwrap_or(tenant_since(id, seq)));
            client.tenants = tenants.collect();
            client.version = seq;
        });
    }

    /// Adds a scope to a client, as a new one.
    pub fn add_client_scope(&self, client_id: &str, name: &str) {
        self.change(|state, seq| {
            let client = state.clients.get_mut(client_id).unwrap();
            client.scopes.push(pb::ProfileScope {
                name: name.into(),
                description: format!("Allows {name}"),
                reason: format!("Needs {name}"),
                added_seq: seq,
            });
            client.version = seq;
        });
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

    /// Makes a user a Tenant Admin, or an ordinary user again, which ends the sessions.
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

fn tenant_since(tenant_id: &str, added_seq: i64) -> pb::ProfileTenant {
    pb::ProfileTenant {
        tenant_id: tenant_id.to_owned(),
        added_seq,
    }
}
