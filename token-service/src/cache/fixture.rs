//! A registry on loopback with one client of one tenant, and a cache that follows it.

#![allow(clippy::unwrap_used)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use accord::{
    random::{SeededRandom, SystemRandom},
    registry::v1::{
        self as pb,
        directory_service_server::{DirectoryService, DirectoryServiceServer},
    },
    rpc::{
        channel,
        status::{ErrorReason, Problem},
    },
    store::{
        audit::{self, Event, Origin},
        rows,
    },
    testing::{TestDatabase, sqlite, test_clock},
    text::{
        id::{ClientId, GrantId, SecretId, UserId},
        opaque::{ClientSecret, OpaqueToken, SecretTagKey, TokenKind},
    },
};
use tokio::{net::TcpListener, sync::Semaphore};
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use super::Cache;
use crate::{
    model::{client::DisplayInfo, signing_key::Algorithm},
    registry::Registry,
    store::{Store, entity, fixture},
};

/// The one tenant.
pub const TENANT: &str = "acme";
/// The one scope.
pub const SCOPE: &str = "contacts.read";

/// The one tag key.
const TAG_KEY: [u8; 32] = [7; 32];

/// How often secrets were checked, clients read, and callers looked up.
#[derive(Debug, Default)]
pub struct Checks {
    pub profiles: usize,
    pub profile_calls: usize,
    pub callers: usize,
    pub all: usize,
    /// The most at the same time.
    pub at_once: usize,
    under_way: usize,
}

#[derive(Clone)]
pub struct FakeRegistry {
    url: String,
    pub client_id: ClientId,
    pub user_id: UserId,
    secret: Arc<ClientSecret>,
    checks: Arc<Mutex<Checks>>,
    /// Whether the secret has ended.
    pub ended: Arc<AtomicBool>,
    /// How calls fail that ask for more than a number of facts.
    pub fails: Arc<Mutex<Option<(Code, usize)>>>,
    /// Answers about facts and to reports wait while it has no permit.
    pub gate: Arc<Semaphore>,
    /// The epoch of its database.
    epoch: &'static str,
    /// Whether it answers nothing.
    pub is_down: Arc<AtomicBool>,
}

impl FakeRegistry {
    /// The client's secret.
    pub fn secret(&self) -> &ClientSecret {
        &self.secret
    }

    /// Takes the counts since the last call.
    pub fn checks(&self) -> Checks {
        std::mem::take(&mut self.checks.lock().unwrap())
    }

    fn position(&self) -> Option<pb::FeedPosition> {
        Some(pb::FeedPosition {
            epoch: self.epoch.into(),
            seq: 1,
        })
    }

    /// Fails while it is down.
    fn is_up(&self) -> Result<(), Status> {
        let is_down = self.is_down.load(Ordering::Relaxed);
        (!is_down).then_some(()).ok_or(Status::unavailable(""))
    }

    fn user(&self) -> pb::UserProfile {
        pb::UserProfile {
            user_id: self.user_id.to_string(),
            tenant_id: TENANT.into(),
            state: pb::UserState::Active.into(),
            ..Default::default()
        }
    }

    fn client(&self) -> Option<pb::ClientProfile> {
        Some(pb::ClientProfile {
            client_id: self.client_id.to_string(),
            state: pb::ClientState::Active.into(),
            tenants: vec![pb::ProfileTenant {
                tenant_id: TENANT.into(),
                added_seq: 0,
            }],
            scopes: vec![pb::ProfileScope {
                name: SCOPE.into(),
                ..Default::default()
            }],
            live_secrets: (!self.ended.load(Ordering::Relaxed))
                .then(|| pb::LiveSecret {
                    secret_id: self.secret.secret_id().to_string(),
                    expire_time: None,
                })
                .into_iter()
                .collect(),
            ..Default::default()
        })
    }
}

fn tenant() -> pb::TenantProfile {
    pb::TenantProfile {
        tenant_id: TENANT.into(),
        state: pb::TenantState::Active.into(),
        tenant_authority_url: "https://auth.example/acme".into(),
        cloud_api_url: "https://api.example/acme".into(),
        ..Default::default()
    }
}

/// Composes a secret with these bits.
pub fn secret(client_id: &ClientId, secret_id: SecretId, bits: u8) -> ClientSecret {
    let key = SecretTagKey::new(1, &TAG_KEY);
    ClientSecret::compose(&key, client_id, secret_id, &[bits; 32])
}

#[tonic::async_trait]
impl DirectoryService for FakeRegistry {
    async fn list_changes(
        &self,
        request: Request<pb::ListChangesRequest>,
    ) -> Result<Response<pb::ListChangesResponse>, Status> {
        self.is_up()?;
        let after = request.into_inner().after;
        Ok(Response::new(pb::ListChangesResponse {
            position: self.position(),
            secret_tag_keys: vec![pb::SecretTagKey {
                version: 1,
                key: TAG_KEY.to_vec(),
            }],
            authority_host: "auth.example".to_owned(),
            reset: after.is_some_and(|after| after.epoch != self.epoch),
            ..Default::default()
        }))
    }

    async fn get_profiles(
        &self,
        request: Request<pb::GetProfilesRequest>,
    ) -> Result<Response<pb::GetProfilesResponse>, Status> {
        self.is_up()?;
        let asked = request.into_inner();
        {
            let mut checks = self.checks.lock().unwrap();
            checks.profile_calls += 1;
            checks.profiles += asked.client_ids.len();
        }
        let facts = asked.client_ids.len() + asked.tenant_ids.len() + asked.users.len();
        if let Some((code, most)) = *self.fails.lock().unwrap()
            && facts > most
        {
            return Err(Status::new(code, ""));
        }
        let known = |id: &String| *id == self.client_id.as_str();
        let users = asked
            .users
            .iter()
            .filter(|key| key.user_id == self.user_id.as_str());
        let answer = pb::GetProfilesResponse {
            clients: asked
                .client_ids
                .iter()
                .filter(|id| known(id))
                .filter_map(|_| self.client())
                .collect(),
            tenants: asked
                .tenant_ids
                .iter()
                .filter(|id| *id == TENANT)
                .map(|_| tenant())
                .collect(),
            users: users.map(|_| self.user()).collect(),
            position: self.position(),
        };
        // The answer is made, and waits.
        let _open = self.gate.acquire().await.unwrap();
        Ok(Response::new(answer))
    }

    async fn get_client_profile(
        &self,
        _: Request<pb::GetClientProfileRequest>,
    ) -> Result<Response<pb::GetClientProfileResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn authenticate_client(
        &self,
        request: Request<pb::AuthenticateClientRequest>,
    ) -> Result<Response<pb::AuthenticateClientResponse>, Status> {
        let count = |count: fn(&mut Checks)| count(&mut self.checks.lock().unwrap());
        count(|checks| {
            checks.all += 1;
            checks.under_way += 1;
            checks.at_once = checks.at_once.max(checks.under_way);
        });
        // Lets concurrent calls arrive before this one leaves.
        tokio::task::yield_now().await;
        count(|checks| checks.under_way -= 1);
        if request.get_ref().client_secret != self.secret.expose() || self.ended.load(Ordering::Relaxed) {
            return Err(Problem::new(Code::Unauthenticated, ErrorReason::InvalidClient, "").into());
        }
        Ok(Response::new(pb::AuthenticateClientResponse {
            client: self.client(),
            secret_id: self.secret.secret_id().to_string(),
            secret_expire_time: None,
            position: self.position(),
        }))
    }

    async fn authenticate_tenant_admin(
        &self,
        _: Request<pb::AuthenticateTenantAdminRequest>,
    ) -> Result<Response<pb::AuthenticateTenantAdminResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn authenticate_caller(
        &self,
        _: Request<pb::AuthenticateCallerRequest>,
    ) -> Result<Response<pb::AuthenticateCallerResponse>, Status> {
        self.checks.lock().unwrap().callers += 1;
        Err(Problem::new(Code::Unauthenticated, ErrorReason::InvalidCaller, "").into())
    }

    async fn resolve_user(
        &self,
        _: Request<pb::ResolveUserRequest>,
    ) -> Result<Response<pb::ResolveUserResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_tenant_profile(
        &self,
        _: Request<pb::GetTenantProfileRequest>,
    ) -> Result<Response<pb::GetTenantProfileResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report_secret_use(
        &self,
        _: Request<pb::ReportSecretUseRequest>,
    ) -> Result<Response<pb::ReportSecretUseResponse>, Status> {
        let _open = self.gate.acquire().await.unwrap();
        Ok(Response::new(pb::ReportSecretUseResponse {}))
    }

    async fn report_signing_algorithms(
        &self,
        _: Request<pb::ReportSigningAlgorithmsRequest>,
    ) -> Result<Response<pb::ReportSigningAlgorithmsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_operator_actions(
        &self,
        _: Request<pb::ListOperatorActionsRequest>,
    ) -> Result<Response<pb::ListOperatorActionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Creates a cache over such a registry and a new database, and catches up with both.
pub async fn cache() -> (Arc<Cache>, FakeRegistry, TestDatabase) {
    let random = SeededRandom::new(1);
    let clock = test_clock();
    let client_id = ClientId::generate(&*clock, &random);
    let secret = secret(&client_id, SecretId::generate(&*clock, &random), 1);
    let registry = FakeRegistry {
        url: String::new(),
        client_id,
        user_id: UserId::generate(&*clock, &random),
        secret: Arc::new(secret),
        checks: Arc::default(),
        ended: Arc::default(),
        fails: Arc::default(),
        gate: Arc::new(Semaphore::new(1)),
        epoch: "epochone",
        is_down: Arc::default(),
    }
    .serve()
    .await;
    let database = sqlite();
    let (store, _) = fixture::store(&database.url).await;
    store.ensure_signing_keys(Algorithm::EdDsa).await.unwrap();
    let cache = replica(&registry.url, &store, true).await;
    (Arc::new(cache), registry, database)
}

/// Creates an empty cache on the same database, as another process has it.
async fn replica(url: &str, store: &Store, has_lease: bool) -> Cache {
    let random = SystemRandom;
    let token = OpaqueToken::generate(TokenKind::Workload, &random);
    // A long lease, because the rules are about positions and the machine may be slow.
    let stale_max = Duration::from_secs(3600);
    let client = Registry::new(channel::connect(url, &token).unwrap());
    let cache = Cache::new(client, store.clone(), &random, stale_max);
    if has_lease {
        cache.registry_changes.catch_up(&cache.facts).await.unwrap();
        cache.own_changes.catch_up(&cache.facts).await.unwrap();
    }
    cache
}

impl FakeRegistry {
    async fn serve(self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let registry = Self { url, ..self };
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = Server::builder().add_service(DirectoryServiceServer::new(registry.clone()));
        tokio::spawn(serving.serve_with_incoming(incoming));
        registry
    }

    /// Another registry, whose database is a copy with an epoch of its own, and a cache without a lease that reaches
    /// both.
    pub async fn beside_a_copy(&self, of: &Cache) -> (Cache, FakeRegistry) {
        let copy = Self {
            epoch: "epochtwo",
            is_down: Arc::default(),
            ..self.clone()
        };
        let copy = copy.serve().await;
        let urls = format!("{},{}", self.url, copy.url);
        (replica(&urls, &of.store, false).await, copy)
    }

    /// Another replica on the same database; without a lease unless `has_lease`.
    pub async fn replica(&self, of: &Cache, has_lease: bool) -> Cache {
        replica(&self.url, &of.store, has_lease).await
    }
}

impl Cache {
    /// Returns the store behind the cache.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the client of the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Stores an active grant of the tenant to the client.
    pub async fn insert_grant(&self, registry: &FakeRegistry) {
        let now = self.store.now().as_millis();
        let grant = entity::grant::Model {
            tenant_id: TENANT.into(),
            grant_id: GrantId::generate(&*self.store.clock, &*self.store.random).into(),
            client_id: registry.client_id.to_string(),
            profile: serde_json::to_value(DisplayInfo::default()).unwrap(),
            scopes: serde_json::json!([SCOPE]),
            designated_user_id: registry.user_id.to_string(),
            granted_by_user_id: registry.user_id.to_string(),
            state: "active".into(),
            family_id: None,
            client_version: 0,
            created_at: now,
            redeem_until: now,
            allowed_networks: serde_json::json!([]),
            activated_at: Some(now),
            expires_at: None,
            ended_at: None,
            mac: Vec::new(),
        };
        let tx = self.store.db.write().await.unwrap();
        rows::insert::<entity::grant::Entity>(&tx, grant).await.unwrap();
        let (origin, event) = (Origin::system("test"), Event::test("test.event"));
        audit::record(&tx, &*test_clock(), &SystemRandom, &origin, event).await;
        tx.commit().await.unwrap();
    }
}
