//! Runs registry-service: opens its store, and gives routes, permissions and periodic work to [`run`](run::run).

use std::sync::Arc;

use accord::{
    audit::v1::audit_service_server::AuditServiceServer,
    clock::{Clock, SharedClock},
    random::{Random, SharedRandom},
    registry::v1::{
        client_service_server::ClientServiceServer, directory_service_server::DirectoryServiceServer,
        integration_request_service_server::IntegrationRequestServiceServer,
        operator_service_server::OperatorServiceServer,
        provisioning_service_server::ProvisioningServiceServer, scope_service_server::ScopeServiceServer,
        tenant_service_server::TenantServiceServer, user_service_server::UserServiceServer,
    },
    rpc::{
        audit_service::AuditApi,
        auth::{Authorizer, Caller, CallerDirectory, Credential, Permissions},
        config::settings::ServiceSettings,
        run::{self, AuditLog, Options, Service},
        telemetry::admin::Readiness,
    },
    store::{Database, rows::RowTable},
};
use anyhow::{anyhow, bail};
use tonic::{Status, service::RoutesBuilder};

use crate::{
    config::Settings,
    error::Error,
    grpc::Api,
    model::tenant::authority_host,
    permissions::{END_WITH_CALLER, SERVICES, TABLE},
    store::{self, Store, caller, migration::Migrator},
};

/// How many callers an error names.
const MOST_NAMED: u64 = 10;

/// An open registry, ready to serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RegistryServer {
    api: Api,
    options: Options,
}

impl RegistryServer {
    /// Applies the migrations. Replicas may race.
    pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
        run::migrate::<Migrator>(&settings.service.database_url).await
    }

    /// Starts a new epoch, for a database that was restored from a copy. Ends the unused one-time links: some may have
    /// been used after the copy was made.
    pub async fn start_epoch(
        settings: &Settings,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> anyhow::Result<()> {
        run::start_epoch::<Migrator>(&settings.service, random, async |db| {
            Ok(store::end_links(db, clock, random).await?)
        })
        .await
    }

    /// Opens the database and its keys.
    pub async fn open(settings: &Settings, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        let opened = run::open::<Migrator>(&settings.service, store::PURPOSES, clock.clone(), &*random);
        let (db, keyring) = opened.await?;
        Ok(Self {
            api: Api {
                store: Store::new(db, keyring, clock, random, settings.second_operator),
                public_base_url: settings.public_base_url.as_str().into(),
                has_client_ca: settings.service.tls().has_client_ca(),
            },
            options: settings.service.options(),
        })
    }

    /// Reports its readiness there.
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.options.readiness = readiness;
        self
    }

    /// Returns the registry's store.
    pub fn store(&self) -> &Store {
        &self.api.store
    }
}

impl Service for RegistryServer {
    const GRPC_SERVICES: &'static [&'static str] = SERVICES;

    fn database(&self) -> &Database {
        &self.api.store.db
    }

    fn audit_log(&self) -> Option<AuditLog<'_>> {
        Some(AuditLog {
            keyring: &self.api.store.keyring,
            host: authority_host(&self.api.public_base_url),
            service: "registry",
        })
    }

    fn recorded_tables(&self) -> Vec<RowTable> {
        store::recorded_tables()
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn clock(&self) -> &dyn Clock {
        &*self.api.store.clock
    }

    fn authorizer(&self) -> Authorizer {
        let directory = Arc::new(self.api.store.clone());
        let permissions = Permissions::new(TABLE).ending_with_caller(END_WITH_CALLER);
        Authorizer::new(permissions, directory, self.api.store.clock.clone())
    }

    fn routes(&self) -> RoutesBuilder {
        let api = self.api.clone();
        let of = api.store.clone();
        accord::grpc_routes! {
            IntegrationRequestServiceServer: api.clone(),
            TenantServiceServer: api.clone(),
            UserServiceServer: api.clone(),
            ScopeServiceServer: api.clone(),
            ClientServiceServer: api.clone(),
            ProvisioningServiceServer: api.clone(),
            OperatorServiceServer: api.clone(),
            DirectoryServiceServer: api,
            AuditServiceServer: AuditApi::new(of.db, of.keyring, store::recorded_tables(), of.clock),
        }
    }

    async fn check_ready(&self) -> anyhow::Result<()> {
        let complete = self.api.store.keyring.check_complete();
        complete.map_err(|why| anyhow!("data keys in use can't be opened: {why}"))
    }

    async fn maintain_keys(&self) -> anyhow::Result<()> {
        Ok(self.api.store.keyring.refresh().await?)
    }

    async fn delete_expired(&self) -> anyhow::Result<()> {
        self.api.store.expire_deliveries().await?;
        Ok(())
    }
}

/// Returns an error if callers with a certificate name exist but `--client-ca` is not set.
pub async fn require_client_ca(db: &Database, settings: &ServiceSettings) -> anyhow::Result<()> {
    if !settings.tls().has_client_ca() {
        let named = caller::with_certificate_names(db, MOST_NAMED).await?;
        if !named.is_empty() {
            let named = named.join(", ");
            bail!(
                "--client-ca is missing: there are workloads or operators with certificate names, such as {named}"
            );
        }
    }
    Ok(())
}

/// Looks credentials up in the registry's own tables.
#[tonic::async_trait]
impl CallerDirectory for Store {
    async fn find_caller(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        // An old primary may not know that the caller was revoked.
        self.db.check_current().await.map_err(Error::from)?;
        let record = self.find_caller_record(credential).await?;
        Ok(record.map(|record| record.caller))
    }

    async fn find_revoked(&self, credential: Credential<'_>) -> Result<Option<Caller>, Status> {
        Ok(self.find_revoked_caller(credential).await?)
    }
}
