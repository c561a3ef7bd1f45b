//! Runs token-service: opens its store and caches, and gives routes, permissions and periodic work to [`run()`].

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use accord::{
    audit::v1::audit_service_server::AuditServiceServer,
    clock::{Clock, SharedClock},
    random::{Random, SharedRandom},
    rpc::{
        audit_service::AuditApi,
        auth::{Authorizer, Permissions},
        grpc::MAX_MESSAGE_BYTES,
        http::Http,
        run::{self, Service, run},
    },
    store::Database,
    text::opaque::OpaqueToken,
    token::v1::{
        consent_service_server::ConsentServiceServer, setup_service_server::SetupServiceServer,
        signing_key_service_server::SigningKeyServiceServer, token_service_server::TokenServiceServer,
    },
};
use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    cache::Cache,
    config::{Settings, read_token},
    consent::{Consents, sign_in_delay::SignInDelays},
    http::{self, HttpState},
    oauth::OAuth,
    permissions::{SERVICES, TABLE},
    registry::Registry,
    store::{self, Store, migration::Migrator},
};

/// How long revocations stay past the end of the last token that they end.
const KEEP_REVOCATIONS: Duration = Duration::from_secs(3600);
/// How long codes, setups, sessions and families stay past their end.
const KEEP_ENDED: Duration = Duration::from_secs(7 * 24 * 3600);

/// An open token-service, ready to serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TokenServer {
    oauth: OAuth,
    consents: Consents,
    product_name: Arc<str>,
}

impl TokenServer {
    /// Applies the migrations. Of racing replicas one does it.
    pub async fn migrate(settings: &Settings, random: &dyn Random) -> anyhow::Result<()> {
        run::migrate::<Migrator>(&settings.database_url, random).await
    }

    /// Starts a new epoch, for a database restored from a backup. Ends the families, sessions and signing keys
    /// that the backup holds. [`Self::open`] creates new keys.
    pub async fn start_epoch(
        settings: &Settings,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> anyhow::Result<()> {
        run::start_epoch(&settings.database_url, random, async |tx| {
            Ok(store::end_all_before(tx, clock, random).await?)
        })
        .await
    }

    /// Opens the database and its keys, with this service's own token from the file that the settings name.
    pub async fn open(settings: &Settings, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        let token = read_token(&settings.registry_token_file).context("the file of the registry's token")?;
        Self::open_with_token(settings, &token, clock, random).await
    }

    /// Does the same with this given token of this service.
    pub async fn open_with_token(
        settings: &Settings,
        token: &OpaqueToken,
        clock: SharedClock,
        random: SharedRandom,
    ) -> anyhow::Result<Self> {
        let (url, master): (_, &Path) = (&settings.database_url, &settings.master_key_file);
        let (db, keyring) = run::open::<Migrator>(url, master, store::PURPOSES, &*clock, &*random).await?;
        let sign_in_delays = SignInDelays::new(&*random);
        let registry = Registry::new(&settings.registry_url, token).context("the registry's URL")?;
        let store = Store::new(db, keyring, clock, random.clone());
        let created = store.ensure_signing_keys().await;
        created.context("creating signing keys")?;
        let stale_max = settings.registry_stale_max();
        let cache = Cache::new(registry.clone(), store.clone(), &*random, stale_max);
        let cache = Arc::new(cache);
        Ok(Self {
            consents: Consents {
                store: store.clone(),
                registry,
                cache: cache.clone(),
                sign_in_delays,
            },
            oauth: OAuth {
                store,
                cache,
                lifetimes: settings.lifetimes(),
            },
            product_name: settings.product_name.as_str().into(),
        })
    }

    /// The OAuth 2.0 operations.
    pub fn oauth(&self) -> &OAuth {
        &self.oauth
    }

    /// Serves gRPC and HTTP on loopback listeners until `shutdown`, then drains.
    pub async fn serve(
        self,
        grpc: TcpListener,
        http: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        run(self, grpc, Some(http), shutdown).await
    }
}

impl Service for TokenServer {
    const GRPC_SERVICES: &'static [&'static str] = SERVICES;

    fn database(&self) -> &Database {
        &self.oauth.store.db
    }

    fn clock(&self) -> &dyn Clock {
        &*self.oauth.store.clock
    }

    fn authorizer(&self) -> Authorizer {
        Authorizer::new(Permissions::new(TABLE), self.oauth.cache.clone())
    }

    fn routes(&self) -> RoutesBuilder {
        let mut routes = RoutesBuilder::default();
        let audit = AuditApi::new(self.oauth.store.db.clone());
        macro_rules! add {
            ($($server:ident($api:expr)),* $(,)?) => {
                $(routes.add_service(
                    $server::new($api.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES),
                );)*
            };
        }
        add!(
            SetupServiceServer(self.consents),
            ConsentServiceServer(self.consents),
            TokenServiceServer(self.oauth),
            SigningKeyServiceServer(self.oauth),
            AuditServiceServer(audit),
        );
        routes
    }

    fn http(&self, ready: Arc<AtomicBool>) -> Option<Http> {
        Some(http::routes(HttpState {
            oauth: self.oauth.clone(),
            consents: self.consents.clone(),
            authorizer: self.authorizer(),
            ready,
            product_name: self.product_name.clone(),
        }))
    }

    async fn check_ready(&self) -> anyhow::Result<()> {
        let active = self.oauth.store.active_signing_key().await;
        active.map(drop).context("no signing key can be read")
    }

    async fn follow_changes(&self, stop: &CancellationToken) {
        self.oauth.cache.follow(stop).await;
    }

    async fn before_close(&self) {
        self.oauth.store.write_grant_uses().await;
    }

    async fn delete_expired(&self) -> anyhow::Result<()> {
        let store = &self.oauth.store;
        let now = store.now();
        let cleared = store.clear_away(now.minus(KEEP_REVOCATIONS), now.minus(KEEP_ENDED));
        Ok(cleared.await?)
    }
}
