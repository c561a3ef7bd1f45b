//! Starts a registry for one test, on loopback and with the production code, and makes callers of every kind.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use accord::{
    audit::v1::{AuditEvent, ListAuditEventsRequest, audit_service_client::AuditServiceClient},
    clock::ManualClock,
    keys::FileMasterKey,
    random::{SharedRandom, SystemRandom},
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        scope_service_client::ScopeServiceClient, tenant_service_client::TenantServiceClient,
    },
    rpc::{
        auth::{Role, WorkloadKind},
        config::settings::ServiceSettings,
        run::{self, Listeners},
    },
    store::{Creation, audit::Origin},
    testing::{TestDatabase, calls::authorized, sqlite, test_clock},
    text::opaque::{OpaqueToken, TokenKind},
};
use registry_service::{
    config::Settings,
    model::caller::{Authority, NewCaller},
    server::RegistryServer,
};
use sea_orm::DatabaseTransaction;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub use accord::testing::calls::{CallerChannel, assert_rejected, assert_violations, ok};

/// `--public-base-url` of every test's registry.
pub const PUBLIC_BASE_URL: &str = "https://auth.example";

/// A running registry. It stops when this is dropped.
pub struct Harness {
    /// The registry that is served.
    pub registry: RegistryServer,
    /// The registry's clock.
    pub clock: Arc<ManualClock>,
    /// The settings it was opened with.
    pub settings: Settings,
    /// Stops it.
    pub shutdown: CancellationToken,
    channel: Channel,
    operators: BTreeMap<Role, OpaqueToken>,
    workloads: BTreeMap<WorkloadKind, OpaqueToken>,
    _directory: TempDir,
    database: TestDatabase,
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Harness {
    /// Starts a registry on an empty SQLite database, with an operator of each role and a workload of
    /// each kind.
    pub async fn start() -> Self {
        Self::start_on(sqlite()).await
    }

    /// Starts a registry on this empty database.
    pub async fn start_on(database: TestDatabase) -> Self {
        Self::start_with(database, |_| {}).await
    }

    /// Starts a registry that requires a second operator, as `serve` does by default.
    pub async fn start_with_second_operator() -> Self {
        Self::start_with(sqlite(), |settings| settings.second_operator = true).await
    }

    /// Starts a registry whose callers may have certificate names. Nothing reads the file of the authorities.
    pub async fn start_with_client_ca() -> Self {
        Self::start_with(sqlite(), |settings| settings.service.client_ca = "ca.pem".into()).await
    }

    /// Starts a registry on this empty database, with settings that `change` has changed.
    pub async fn start_with(database: TestDatabase, change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(&database, directory.path().join("key"));
        change(&mut settings);
        let clock = test_clock();
        let random: SharedRandom = Arc::new(SystemRandom);
        RegistryServer::migrate(&settings).await.unwrap();
        let registry = RegistryServer::open(&settings, clock.clone(), random)
            .await
            .unwrap();

        let mut operators = BTreeMap::new();
        for role in Role::ALL {
            operators.insert(role, operator(&registry, role).await);
        }
        let mut workloads = BTreeMap::new();
        for kind in WorkloadKind::ALL {
            workloads.insert(kind, workload(&registry, kind).await);
        }

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let listeners = Listeners::plaintext(listener, None);
        tokio::spawn(run::run(registry.clone(), listeners, shutdown.clone()));
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            registry,
            clock,
            settings,
            shutdown,
            channel,
            operators,
            workloads,
            _directory: directory,
            database,
        }
    }

    /// Calls of the operator who has this role and no other.
    pub fn operator(&self, role: Role) -> CallerChannel {
        self.token(self.operators[&role].expose())
    }

    /// Calls of the workload of this kind.
    pub fn workload(&self, kind: WorkloadKind) -> CallerChannel {
        self.token(self.workloads[&kind].expose())
    }

    /// The bearer token of the operator who has this role and no other.
    pub fn operator_token(&self, role: Role) -> &OpaqueToken {
        &self.operators[&role]
    }

    /// The bearer token of the workload of this kind.
    pub fn workload_token(&self, kind: WorkloadKind) -> &OpaqueToken {
        &self.workloads[&kind]
    }

    /// Calls that bring this bearer token.
    pub fn token(&self, token: &str) -> CallerChannel {
        self.authorization(&format!("Bearer {token}"))
    }

    /// Calls that bring this `authorization` header.
    pub fn authorization(&self, value: &str) -> CallerChannel {
        authorized(&self.channel, value)
    }

    /// Calls without a credential.
    pub fn anonymous(&self) -> CallerChannel {
        authorized(&self.channel, "")
    }

    /// Takes the lock of the SQLite database. What writes waits until the transaction is dropped.
    pub async fn hold_writes(&self) -> DatabaseTransaction {
        self.database.hold_writes().await
    }

    /// Runs statements as somebody who can write the database and holds no key.
    pub async fn edit(&self, statements: &str) {
        self.database.edit(statements).await;
    }

    /// Adds a tenant.
    pub async fn tenant(&self, tenant_id: &str) -> pb::Tenant {
        let request = pb::CreateTenantRequest {
            tenant_id: tenant_id.into(),
            display_name: format!("Tenant {tenant_id}"),
            cloud_api_url: format!("https://api.example/{tenant_id}"),
            ..Default::default()
        };
        let mut tenants = TenantServiceClient::new(self.operator(Role::Registrar));
        ok(tenants.create_tenant(request).await).tenant.unwrap()
    }

    /// Adds a scope.
    pub async fn scope(&self, name: &str) -> pb::Scope {
        let request = pb::CreateScopeRequest {
            name: name.into(),
            description: format!("Allows {name}"),
            ..Default::default()
        };
        let mut scopes = ScopeServiceClient::new(self.operator(Role::Registrar));
        ok(scopes.create_scope(request).await).scope.unwrap()
    }

    /// Submits a request for these tenants and scopes, which exist.
    pub async fn submitted_request(&self, tenant_ids: &[&str], scopes: &[&str]) -> pb::IntegrationRequest {
        let mut requests = IntegrationRequestServiceClient::new(self.operator(Role::Registrar));
        ok(requests
            .submit_integration_request(submission(tenant_ids, scopes))
            .await)
        .integration_request
        .unwrap()
    }

    /// Submits and approves such a request.
    pub async fn approved_request(&self, tenant_ids: &[&str], scopes: &[&str]) -> pb::IntegrationRequest {
        let submitted = self.submitted_request(tenant_ids, scopes).await;
        let request = pb::ApproveIntegrationRequestRequest {
            integration_request_id: submitted.integration_request_id,
        };
        let mut requests = IntegrationRequestServiceClient::new(self.operator(Role::Approver));
        ok(requests.approve_integration_request(request).await)
            .integration_request
            .unwrap()
    }

    /// Submits and approves this request. Returns its id.
    pub async fn approved(&self, request: pb::SubmitIntegrationRequestRequest) -> String {
        let mut requests = IntegrationRequestServiceClient::new(self.operator(Role::Registrar));
        let submitted = ok(requests.submit_integration_request(request).await);
        let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
        let approve = pb::ApproveIntegrationRequestRequest {
            integration_request_id: integration_request_id.clone(),
        };
        let mut requests = IntegrationRequestServiceClient::new(self.operator(Role::Approver));
        ok(requests.approve_integration_request(approve).await);
        integration_request_id
    }

    /// Submits, approves and applies an amendment of this client.
    pub async fn amend(&self, client_id: &str, additions: pb::SubmitIntegrationRequestRequest) -> pb::Client {
        let request = pb::SubmitIntegrationRequestRequest {
            client_id: client_id.into(),
            ..additions
        };
        let request = pb::AmendClientRequest {
            integration_request_id: self.approved(request).await,
        };
        let mut clients = ClientServiceClient::new(self.operator(Role::Registrar));
        ok(clients.amend_client(request).await).client.unwrap()
    }

    /// Audit events with this action, newest first.
    pub async fn audit_events(&self, action: &str) -> Vec<AuditEvent> {
        let request = ListAuditEventsRequest {
            action: action.into(),
            page_size: 500,
            ..Default::default()
        };
        let mut audit = AuditServiceClient::new(self.operator(Role::Auditor));
        ok(audit.list_audit_events(request).await).audit_events
    }
}

/// A well-formed request for these tenants and scopes.
pub fn submission(tenant_ids: &[&str], scopes: &[&str]) -> pb::SubmitIntegrationRequestRequest {
    pb::SubmitIntegrationRequestRequest {
        partner_name: "Partner Ltd".into(),
        display_name: "Contact Sync".into(),
        contact_email: "dev@partner.example".into(),
        goals: "Keep contacts in step".into(),
        tenant_ids: tenant_ids.iter().map(ToString::to_string).collect(),
        scopes: scopes
            .iter()
            .map(|name| pb::RequestedScope {
                name: (*name).into(),
                reason: format!("to use {name}"),
            })
            .collect(),
        redirect_uris: vec!["https://app.partner.example/callback".into()],
        ..Default::default()
    }
}

/// A new request id.
pub fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Settings for this database, with a new master key at `key`.
pub fn settings(database: &TestDatabase, key: PathBuf) -> Settings {
    FileMasterKey::create(&key, &SystemRandom).unwrap();
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        service: ServiceSettings::new(database.url.clone(), key),
        public_base_url: PUBLIC_BASE_URL.into(),
        second_operator: false,
        ..Settings::default()
    }
}

fn creation(method: &'static str) -> Creation {
    Creation {
        origin: Origin::system("test"),
        method,
        request_id: None,
        content: Default::default(),
    }
}

async fn operator(registry: &RegistryServer, role: Role) -> OpaqueToken {
    caller(registry, role.as_ref(), Authority::Roles(vec![role])).await
}

async fn workload(registry: &RegistryServer, kind: WorkloadKind) -> OpaqueToken {
    caller(registry, kind.as_ref(), Authority::Kind(kind)).await
}

async fn caller(registry: &RegistryServer, name: &str, authority: Authority) -> OpaqueToken {
    let is_operator = matches!(authority, Authority::Roles(_));
    let new = NewCaller {
        name: format!("the {name}"),
        authority,
        certificate_name: None,
        person: is_operator.then(|| format!("the {name}")),
    };
    let created = registry.store().create_caller(&creation("Create"), new).await;
    created.unwrap().1.unwrap()
}

/// Returns a well-formed bearer token of no caller.
pub fn strangers_token(kind: TokenKind) -> String {
    OpaqueToken::generate(kind, &SystemRandom).expose().to_owned()
}
