//! Runs token-service: opens its store and caches, and gives routes, permissions and periodic work to [`run`](run::run).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use accord::{
    audit::v1::audit_service_server::AuditServiceServer,
    clock::{Clock, SharedClock},
    metrics::SIGNING_KEY_ACTIVATED,
    random::{Random, SharedRandom},
    rpc::{
        audit_service::AuditApi,
        auth::{Authorizer, Permissions},
        channel::{HopChannel, HopToken},
        http::Http,
        middleware::{client_certificate::ClientCertificates, limits::RateLimit},
        run::{self, AuditLog, Options, Outage, Service},
        telemetry::admin::Readiness,
        tls::certificate::record_registry_expiry,
    },
    store::{Database, audit::Rollup, rows::RowTable},
    text::opaque::OpaqueToken,
    tls::ClientTls,
    token::v1::{
        consent_service_server::ConsentServiceServer, setup_service_server::SetupServiceServer,
        signing_key_service_server::SigningKeyServiceServer, token_service_server::TokenServiceServer,
    },
};
use anyhow::{Context, anyhow};
use metrics::gauge;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    cache::Cache,
    config::Settings,
    consent::{Consents, sign_in_delay::SignInDelays},
    error::Error,
    http::{self, HttpState},
    oauth::{
        OAuth,
        client_keys::{ClientKeySets, fetch::KeySetFetcher},
        dpop::Dpop,
        issuance::begin_counts,
        mutual_tls::MutualTls,
        signing_keys,
    },
    permissions::{END_WITH_CALLER, SERVICES, TABLE},
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
    /// TLS of the connection to the registry.
    registry_tls: Option<ClientTls>,
    /// The generation of its files whose expiry is recorded; `u64::MAX` before the first.
    recorded_generation: Arc<AtomicU64>,
    options: Options,
    signing_key_period: Option<Duration>,
}

impl TokenServer {
    /// Applies the migrations. If several replicas start at once, one of them does it.
    pub async fn migrate(settings: &Settings) -> anyhow::Result<()> {
        run::migrate::<Migrator>(&settings.service.database_url).await
    }

    /// Starts a new epoch, for a database restored from a backup. Ends the families, sessions and signing keys
    /// that the backup holds. [`Self::open`] creates new keys.
    pub async fn start_epoch(
        settings: &Settings,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> anyhow::Result<()> {
        run::start_epoch::<Migrator>(&settings.service, random, async |db| {
            Ok(store::end_all_before(db, clock, random).await?)
        })
        .await
    }

    /// Opens the database and its keys, with this service's own credential from the files that the settings name.
    pub async fn open(settings: &Settings, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        let token = settings.registry_token()?;
        Self::open_with(settings, token, clock, random).await
    }

    /// Does the same with this given token of this service.
    pub async fn open_with_token(
        settings: &Settings,
        token: &OpaqueToken,
        clock: SharedClock,
        random: SharedRandom,
    ) -> anyhow::Result<Self> {
        Self::open_with(settings, Some(HopToken::fixed(token)), clock, random).await
    }

    async fn open_with(
        settings: &Settings,
        token: Option<HopToken>,
        clock: SharedClock,
        random: SharedRandom,
    ) -> anyhow::Result<Self> {
        let opened = run::open::<Migrator>(&settings.service, store::PURPOSES, clock.clone(), &*random);
        let (db, keyring) = opened.await?;
        let sign_in_delays = SignInDelays::new(&*random);
        let target = settings.registry_target()?;
        let registry_tls = target.tls().cloned();
        let credential = match token {
            Some(_) => "--registry-token-file",
            None => "--registry-client-certificate",
        };
        let registry = Registry::new(HopChannel::new(target, token));
        let store = Store::new(db, keyring, clock, random.clone());
        match signing_keys::ensure(&registry, &store, settings.signing_algorithm).await {
            Err(error @ Error::RegistryUnavailable) => {
                return Err(error).context(Outage("the registry, which must agree to RS256"));
            }
            // Waiting does not mend it.
            Err(error @ Error::RegistryRejectsCredential) => return Err(error).context(credential),
            created => created.context("creating signing keys")?,
        }
        let stale_max = settings.registry_stale_max();
        let cache = Cache::new(registry.clone(), store.clone(), &*random, stale_max);
        let cache = Arc::new(cache);
        let fetcher = KeySetFetcher::new(settings.jwks_allowed_networks());
        let client_keys = ClientKeySets::new(fetcher, store.clock.clone());
        let mutual_tls = MutualTls {
            certificates: ClientCertificates::new(settings.certificate_header()),
            authorities: settings.partner_authorities()?,
            base_url: Some(settings.mtls_base_url.as_str().into()).filter(|url: &Arc<str>| !url.is_empty()),
            is_offered: settings.takes_client_certificates(),
        };
        begin_counts();
        Ok(Self {
            consents: Consents {
                store: store.clone(),
                registry: registry.clone(),
                cache: cache.clone(),
                sign_in_delays,
            },
            oauth: OAuth {
                store,
                registry,
                cache,
                lifetimes: settings.lifetimes(),
                client_limit: RateLimit::new(settings.client_calls_per_second).map(Arc::new),
                client_keys,
                mutual_tls,
                dpop: Arc::new(Dpop::new(settings.dpop_nonce)),
                algorithm_report: Arc::default(),
            },
            registry_tls,
            recorded_generation: Arc::new(AtomicU64::new(u64::MAX)),
            options: settings.service.options(),
            product_name: settings.product_name.as_str().into(),
            signing_key_period: settings.signing_key_period(),
        })
    }

    /// Reports its readiness there.
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.options.readiness = readiness;
        self
    }

    /// The OAuth 2.0 operations.
    pub fn oauth(&self) -> &OAuth {
        &self.oauth
    }
}

impl Service for TokenServer {
    const GRPC_SERVICES: &'static [&'static str] = SERVICES;

    fn database(&self) -> &Database {
        &self.oauth.store.db
    }

    fn audit_log(&self) -> Option<AuditLog<'_>> {
        let host = self.oauth.registry.authority_host()?;
        Some(AuditLog {
            keyring: &self.oauth.store.keyring,
            host: host.to_string(),
            service: "token",
        })
    }

    fn recorded_tables(&self) -> Vec<RowTable> {
        store::recorded_tables()
    }

    fn rollup(&self) -> impl Rollup {
        self.oauth.store.rollup()
    }

    fn options(&self) -> &Options {
        &self.options
    }

    async fn record_gauges(&self) {
        self.oauth.store.record_gauges();
        self.oauth.cache.record_gauges();
        if let Some(tls) = &self.registry_tls {
            let generation = tls.generation();
            // It parses all certificates.
            if self.recorded_generation.swap(generation, Relaxed) != generation {
                record_registry_expiry(tls);
            }
        }
        let keys = self.oauth.cache.keys().await;
        if let Some(since) = keys.ok().and_then(|keys| keys.value.signing_since()) {
            gauge!(SIGNING_KEY_ACTIVATED).set(since.as_millis() as f64 / 1e3);
        }
    }

    fn clock(&self) -> &dyn Clock {
        &*self.oauth.store.clock
    }

    fn authorizer(&self) -> Authorizer {
        let clock = self.oauth.store.clock.clone();
        let permissions = Permissions::new(TABLE).ending_with_caller(END_WITH_CALLER);
        Authorizer::new(permissions, self.oauth.cache.clone(), clock)
    }

    fn routes(&self) -> RoutesBuilder {
        let audit = AuditApi::new(
            self.oauth.store.db.clone(),
            self.oauth.store.keyring.clone(),
            store::recorded_tables(),
            self.oauth.store.clock.clone(),
        )
        .with_tracer(self.consents.clone());
        accord::grpc_routes! {
            SetupServiceServer: self.consents.clone(),
            ConsentServiceServer: self.consents.clone(),
            TokenServiceServer: self.oauth.clone(),
            SigningKeyServiceServer: self.oauth.clone(),
            AuditServiceServer: audit,
        }
    }

    fn http(&self) -> Option<Http> {
        Some(http::routes(HttpState {
            oauth: self.oauth.clone(),
            consents: self.consents.clone(),
            authorizer: self.authorizer(),
            readiness: self.options.readiness.clone(),
            product_name: self.product_name.clone(),
        }))
    }

    async fn check_ready(&self) -> anyhow::Result<()> {
        let active = self.oauth.store.active_signing_key().await;
        active.map(drop).context("no signing key can be read")?;
        let complete = self.oauth.store.keyring.check_complete();
        complete.map_err(|why| anyhow!("data keys in use can't be opened: {why}"))
    }

    async fn follow_changes(&self, stop: &CancellationToken) {
        self.oauth.cache.follow(stop).await;
    }

    async fn before_close(&self) {
        self.oauth.store.write_rejections().await;
    }

    async fn maintain_keys(&self) -> anyhow::Result<()> {
        if let Some(authorities) = self.oauth.mutual_tls.authorities.clone() {
            // Keys are maintained all the same.
            if let Err(problem) = tokio::task::spawn_blocking(move || authorities.reload()).await? {
                tracing::error!(%problem, "the authorities of partners can't be used");
            }
        }
        self.oauth.store.keyring.refresh().await?;
        let rotated = signing_keys::maintain(&self.oauth, self.signing_key_period).await?;
        if let Some(kid) = rotated {
            tracing::info!(kid, "signing key rotated by schedule");
            self.oauth.cache.catch_up_or_log().await;
        }
        Ok(())
    }

    async fn delete_expired(&self) -> anyhow::Result<()> {
        if let Some(limit) = &self.oauth.client_limit {
            limit.forget_idle();
        }
        let store = &self.oauth.store;
        let now = store.now();
        self.oauth.dpop.drop_ended(now);
        let cleared = store.delete_ended_rows(now.minus(KEEP_REVOCATIONS), now.minus(KEEP_ENDED));
        cleared.await?;
        Ok(store.delete_old_usage().await?)
    }
}
