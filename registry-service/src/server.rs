//! Runs registry-service: opens its store, and gives routes, permissions and periodic work to [`run()`].

use std::{path::Path, sync::Arc};

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
        auth::{Authorizer, Caller, CallerDirectory, Permissions},
        grpc::MAX_MESSAGE_BYTES,
        run::{self, Service, run},
    },
    store::Database,
    text::opaque::OpaqueToken,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::RoutesBuilder};

use crate::{
    config::Settings,
    grpc::Api,
    permissions::{SERVICES, TABLE},
    store::{self, Store, migration::Migrator},
};

/// An open registry, ready to serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Store,
    public_base_url: Arc<str>,
}

impl Registry {
    /// Applies the migrations. Replicas may race.
    pub async fn migrate(settings: &Settings, random: &dyn Random) -> anyhow::Result<()> {
        run::migrate::<Migrator>(&settings.database_url, random).await
    }

    /// Starts a new epoch, for a database that was restored from a copy. Ends the unused one-time links: some may have
    /// been used after the copy was made.
    pub async fn start_epoch(
        settings: &Settings,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> anyhow::Result<()> {
        run::start_epoch(&settings.database_url, random, async |tx| {
            Ok(store::end_links(tx, clock.now()).await?)
        })
        .await
    }

    /// Opens the database and its keys.
    pub async fn open(settings: &Settings, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        let (url, master): (_, &Path) = (&settings.database_url, &settings.master_key_file);
        let (db, keyring) = run::open::<Migrator>(url, master, store::PURPOSES, &*clock, &*random).await?;
        Ok(Self {
            store: Store::new(db, keyring, clock, random),
            public_base_url: settings.public_base_url.as_str().into(),
        })
    }

    /// Returns the registry's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serves on a loopback listener until `shutdown`, then drains.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        run(self, listener, None, shutdown).await
    }
}

impl Service for Registry {
    const GRPC_SERVICES: &'static [&'static str] = SERVICES;

    fn database(&self) -> &Database {
        &self.store.db
    }

    fn clock(&self) -> &dyn Clock {
        &*self.store.clock
    }

    fn authorizer(&self) -> Authorizer {
        Authorizer::new(Permissions::new(TABLE), Arc::new(self.store.clone()))
    }

    fn routes(&self) -> RoutesBuilder {
        let api = Api {
            store: self.store.clone(),
            public_base_url: self.public_base_url.clone(),
        };
        let mut routes = RoutesBuilder::default();
        macro_rules! add {
            ($($server:ident: $api:expr),* $(,)?) => {
                $(routes.add_service($server::new($api).max_decoding_message_size(MAX_MESSAGE_BYTES));)*
            };
        }
        add! {
            IntegrationRequestServiceServer: api.clone(),
            TenantServiceServer: api.clone(),
            UserServiceServer: api.clone(),
            ScopeServiceServer: api.clone(),
            ClientServiceServer: api.clone(),
            ProvisioningServiceServer: api.clone(),
            OperatorServiceServer: api.clone(),
            DirectoryServiceServer: api,
            AuditServiceServer: AuditApi::new(self.store.db.clone()),
        }
        routes
    }

    async fn delete_expired(&self) -> anyhow::Result<()> {
        self.store.expire_deliveries().await?;
        Ok(())
    }
}

/// Looks bearer tokens up in the registry's own tables.
#[tonic::async_trait]
impl CallerDirectory for Store {
    async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status> {
        let record = Store::find_caller(self, token).await?;
        Ok(record.map(|record| record.caller))
    }
}
