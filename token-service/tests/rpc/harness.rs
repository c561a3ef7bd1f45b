//! A token-service of a test's own, served on loopback by the production code, with a fake registry and
//! callers of every kind.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{AuditEvent, ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    clock::ManualClock,
    keys::FileMasterKey,
    random::{SharedRandom, SystemRandom},
    registry::v1::{
        directory_service_server::DirectoryServiceServer,
        provisioning_service_server::ProvisioningServiceServer, user_service_server::UserServiceServer,
    },
    rpc::{
        auth::{Role, WorkloadKind},
        run::{self, Listeners},
        tls::server::ServerTls,
    },
    testing::{TestDatabase, calls::authorized, test_clock},
    text::opaque::OpaqueToken,
    token::v1::{
        consent_service_client::ConsentServiceClient, setup_service_client::SetupServiceClient,
        signing_key_service_client::SigningKeyServiceClient, token_service_client::TokenServiceClient,
    },
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement};
use tempfile::TempDir;
use token_service::{
    cache::Cache, config::Settings, model::signing_key::Algorithm, server::TokenServer, store::Store,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Server, server::TcpIncoming};

pub use accord::testing::calls::{CallerChannel, assert_rejected, assert_violations, ok};

use crate::fake_registry::FakeRegistry;

/// How soon an event is sealed.
const SEALED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A running token-service. It ends when this is dropped.
pub struct Harness {
    /// token-service's registry.
    pub registry: FakeRegistry,
    /// token-service's clock.
    pub clock: Arc<ManualClock>,
    /// Where gRPC is.
    pub grpc_address: SocketAddr,
    /// Where the HTTP face is.
    pub http_address: SocketAddr,
    /// The token-service.
    pub server: TokenServer,
    /// token-service's store.
    pub store: Store,
    /// Its memory.
    pub cache: Arc<Cache>,
    settings: Settings,
    own_token: OpaqueToken,
    shutdown: CancellationToken,
    channel: Channel,
    operators: BTreeMap<Role, OpaqueToken>,
    workload: OpaqueToken,
    other_workload: OpaqueToken,
    _directory: TempDir,
    database: TestDatabase,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Harness {
    /// Starts a token-service on this empty database, with an operator of each role and two internal
    /// services.
    pub async fn start_on(database: TestDatabase) -> Self {
        Self::start_with(database, |_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(database: TestDatabase, change: impl FnOnce(&mut Settings)) -> Self {
        let registry = FakeRegistry::default();
        let shutdown = CancellationToken::new();
        let registry_url = serve_registry(&registry, &shutdown).await;
        let operators = Role::ALL.map(|role| (role, registry.add_operator(role)));
        let own_token = registry.add_workload(WorkloadKind::TokenService);

        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        FileMasterKey::create(&key, &SystemRandom).unwrap();
        let mut settings = Settings::new(database.url.clone(), key, registry_url);
        change(&mut settings);
        let clock = test_clock();
        let random: SharedRandom = Arc::new(SystemRandom);
        TokenServer::migrate(&settings).await.unwrap();
        let server = TokenServer::open_with_token(&settings, &own_token, clock.clone(), random)
            .await
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let http_address = http.local_addr().unwrap();
        let store = server.oauth().store.clone();
        let cache = server.oauth().cache.clone();
        let listeners = Listeners {
            tls: ServerTls::load(settings.tls(), clock.clone()).unwrap(),
            ..Listeners::plaintext(listener, Some(http))
        };
        let has_tls = listeners.tls.is_some();
        tokio::spawn(run::run(server.clone(), listeners, shutdown.clone()));
        let endpoint = match has_tls {
            false => Endpoint::from_shared(format!("http://{address}")).unwrap(),
            true => {
                let authority = std::fs::read(&settings.service.client_ca).unwrap();
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
                let endpoint = Endpoint::from_shared(format!("https://localhost:{}", address.port()));
                endpoint.unwrap().tls_config(tls).unwrap()
            }
        };
        let channel = endpoint.connect().await.unwrap();
        Self {
            workload: registry.add_workload(WorkloadKind::InternalService),
            other_workload: registry.add_workload(WorkloadKind::InternalService),
            operators: operators.into_iter().collect(),
            registry,
            clock,
            grpc_address: address,
            http_address,
            server,
            store,
            cache,
            settings,
            own_token,
            shutdown,
            channel,
            _directory: directory,
            database,
        }
    }

    /// The authority that signed the listeners' certificate, in PEM form; `None` without TLS.
    pub fn authority(&self) -> Option<Vec<u8>> {
        let has_tls = self.settings.service.tls_certificate != Path::new("");
        has_tls.then(|| std::fs::read(&self.settings.service.client_ca).unwrap())
    }

    /// The token that is right for a method: of an operator with every right, or of an internal service.
    pub fn token_for(&self, path: &str) -> &OpaqueToken {
        let internal = [
            "SetupService",
            "ConsentService",
            "IntrospectToken",
            "ListRevocations",
        ];
        match internal.iter().any(|name| path.contains(name)) {
            true => &self.workload,
            false => &self.operators[&Role::Admin],
        }
    }

    /// Does what is done after the database was restored from a copy, and starts a token-service on it.
    /// The one that runs goes on, as one of two replicas.
    pub async fn restore(&self) {
        let random: SharedRandom = Arc::new(SystemRandom);
        TokenServer::start_epoch(&self.settings, &*self.clock, &*random)
            .await
            .unwrap();
        self.open_again(&self.settings).await.unwrap();
        // It would learn in a moment what the other one did.
        self.cache.catch_up_or_log().await;
    }

    /// Opens another token-service on the database, whose first signing key, if there is none, is for this algorithm.
    pub async fn open_again_with(&self, first: Algorithm) -> anyhow::Result<TokenServer> {
        let settings = Settings {
            signing_algorithm: first,
            ..self.settings.clone()
        };
        self.open_again(&settings).await
    }

    async fn open_again(&self, settings: &Settings) -> anyhow::Result<TokenServer> {
        let random: SharedRandom = Arc::new(SystemRandom);
        TokenServer::open_with_token(settings, &self.own_token, self.clock.clone(), random).await
    }

    /// Waits until the events of all issued tokens are sealed, and counted with that. Writes the counts of rejected requests.
    pub async fn usage_written(&self) {
        const UNSEALED: &str = "SELECT 1 FROM audit_groups JOIN audit_writers
            ON audit_writers.writer = audit_groups.writer WHERE audit_groups.number > audit_writers.sealed";
        self.store.write_rejections().await;
        let database = sea_orm::Database::connect(&self.database.url).await.unwrap();
        let unsealed = Statement::from_string(database.get_database_backend(), UNSEALED);
        let started = Instant::now();
        while database.query_one_raw(unsealed.clone()).await.unwrap().is_some() {
            assert!(started.elapsed() < SEALED, "the record is not sealed");
            sleep(POLL).await;
        }
        database.close().await.unwrap();
    }

    /// Renames the table of the audit record, so that whatever reads or writes it fails.
    pub async fn hide_audit_record(&self) {
        self.edit("ALTER TABLE audit_events RENAME TO hidden").await;
    }

    /// Takes the lock of the SQLite database. What writes waits until the transaction is dropped.
    pub async fn hold_writes(&self) -> DatabaseTransaction {
        self.database.hold_writes().await
    }

    /// Executes a statement in the database, as somebody who can write it.
    pub async fn edit(&self, statement: &str) {
        self.database.edit(statement).await;
    }

    /// `SetupService`, called by an internal service.
    pub fn setups(&self) -> SetupServiceClient<CallerChannel> {
        SetupServiceClient::new(self.token(&self.workload))
    }

    /// `SetupService`, called by another internal service.
    pub fn other_setups(&self) -> SetupServiceClient<CallerChannel> {
        SetupServiceClient::new(self.token(&self.other_workload))
    }

    /// `ConsentService`, called by the first internal service.
    pub fn consents(&self) -> ConsentServiceClient<CallerChannel> {
        ConsentServiceClient::new(self.token(&self.workload))
    }

    /// `ConsentService`, called by the other internal service.
    pub fn other_consents(&self) -> ConsentServiceClient<CallerChannel> {
        ConsentServiceClient::new(self.token(&self.other_workload))
    }

    /// `ConsentService`, called by the operator who has this role and no other.
    pub fn consents_of(&self, role: Role) -> ConsentServiceClient<CallerChannel> {
        ConsentServiceClient::new(self.operator(role))
    }

    /// `SigningKeyService`, called by the operator for security.
    pub fn signing_keys(&self) -> SigningKeyServiceClient<CallerChannel> {
        SigningKeyServiceClient::new(self.token(&self.operators[&Role::Security]))
    }

    /// `SigningKeyService`, called with this token.
    pub fn signing_keys_with(&self, token: &OpaqueToken) -> SigningKeyServiceClient<CallerChannel> {
        SigningKeyServiceClient::new(self.token(token))
    }

    /// `TokenService`, called without a credential.
    pub fn tokens(&self) -> TokenServiceClient<CallerChannel> {
        TokenServiceClient::new(self.anonymous())
    }

    /// `TokenService`, called by an internal service.
    pub fn internal_tokens(&self) -> TokenServiceClient<CallerChannel> {
        TokenServiceClient::new(self.token(&self.workload))
    }

    /// Calls without a credential.
    pub fn anonymous(&self) -> CallerChannel {
        authorized(&self.channel, "")
    }

    /// Calls of the operator who has this role and no other.
    pub fn operator(&self, role: Role) -> CallerChannel {
        self.token(&self.operators[&role])
    }

    /// Calls of the first internal service.
    pub fn internal_service(&self) -> CallerChannel {
        self.token(&self.workload)
    }

    fn token(&self, token: &OpaqueToken) -> CallerChannel {
        authorized(&self.channel, &format!("Bearer {}", token.expose()))
    }

    /// `AuditService`, called by the operator who has this role and no other.
    pub fn audit_of(&self, role: Role) -> AuditServiceClient<CallerChannel> {
        AuditServiceClient::new(self.operator(role))
    }

    /// Audit events with this action, newest first.
    pub async fn audit_events(&self, action: &str) -> Vec<AuditEvent> {
        let request = ListAuditEventsRequest {
            action: action.into(),
            page_size: 500,
            ..Default::default()
        };
        let mut audit = self.audit_of(Role::Auditor);
        ok(audit.list_audit_events(request).await).audit_events
    }
}

/// Serves a registry on loopback. Returns its URL.
async fn serve_registry(registry: &FakeRegistry, shutdown: &CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::builder()
        .add_service(DirectoryServiceServer::new(registry.clone()))
        .add_service(ProvisioningServiceServer::new(registry.clone()))
        .add_service(UserServiceServer::new(registry.clone()));
    let stop = shutdown.clone().cancelled_owned();
    // Else every answer waits for the kernel to hope for more.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop));
    format!("http://{address}")
}

/// A new request id.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
