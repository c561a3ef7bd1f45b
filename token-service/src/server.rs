//! token-service as a server: opens store and keys, serves gRPC and HTTP, tells whether it is ready,
//! and clears away what has expired.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use accord::{
    audit::v1::audit_service_server::AuditServiceServer,
    clock::{Clock, SharedClock},
    keys::FileMasterKey,
    random::{Random, SharedRandom},
    rpc::{
        audit_service::AuditApi,
        auth::Authorizer,
        config::require_loopback,
        server::{DRAIN, GrpcServer, Health, MAX_MESSAGE_BYTES},
    },
    store::{Database, change, idempotency, keyring},
    text::opaque::{OpaqueToken, TokenKind},
    token::v1::{
        consent_service_server::ConsentServiceServer, setup_service_server::SetupServiceServer,
        signing_key_service_server::SigningKeyServiceServer, token_service_server::TokenServiceServer,
    },
};
use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use zeroize::Zeroizing;

use crate::{
    cache::{
        grants::Ledger,
        registry::{self, Directory},
    },
    config::Settings,
    consent::{Consents, sign_in_delay::SignInDelays},
    http::{self, Gateway},
    oauth::OAuth,
    permissions::{self, permissions},
    registry::Registry,
    store::{self, Store, migration::Migrator},
};

/// How often the server looks whether it is ready.
const READINESS_EVERY: Duration = Duration::from_secs(5);
/// How long the database may take to say that it is there.
const READINESS_PATIENCE: Duration = Duration::from_secs(4);
/// A server whose clock is further from the database's than this is not ready.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);
/// How often what has expired is cleared away.
const JANITOR_EVERY: Duration = Duration::from_secs(60);
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
    /// How often both feeds are asked what changed; `None`: never, and nothing is answered from memory.
    poll_every: Option<Duration>,
}

impl TokenServer {
    /// Brings the database's tables up to date. Of replicas that race, one does it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn migrate(settings: &Settings, random: &dyn Random) -> anyhow::Result<()> {
        let db = connect(settings).await?;
        db.migrate::<Migrator>().await.context("migrating the database")?;
        change::ensure(db.read(), random)
            .await
            .context("starting the change feed")?;
        Ok(())
    }

    /// Starts a new epoch of the change feed, for a database that was restored from a copy: access
    /// tokens that were issued before are refused from then on, and the families, sessions and signing
    /// keys that the copy holds end, since nobody knows how they went on. [`Self::open`] makes new keys.
    ///
    /// # Errors
    /// What the database says, one that is not migrated among it.
    pub async fn start_epoch(
        settings: &Settings,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> anyhow::Result<()> {
        let db = connect(settings).await?;
        let tx = db.write().await?;
        change::start_epoch(&tx, random)
            .await
            .context("starting a new epoch")?;
        store::end_all_before(&tx, clock, random)
            .await
            .context("ending what the copy holds")?;
        tx.commit().await.context("starting a new epoch")?;
        Ok(())
    }

    /// Opens the database and its keys, with this service's own token from the file that the settings
    /// name.
    ///
    /// # Errors
    /// When the database does not answer or is not migrated, the master key is missing or another
    /// one, or the token's file can't be used.
    pub async fn open(settings: &Settings, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        let token = read_token(&settings.registry_token_file)?;
        Self::open_with_token(settings, &token, clock, random).await
    }

    /// [`Self::open`] with this service's own token handed in.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_token(
        settings: &Settings,
        token: &OpaqueToken,
        clock: SharedClock,
        random: SharedRandom,
    ) -> anyhow::Result<Self> {
        let db = connect(settings).await?;
        if !db
            .is_migrated::<Migrator>()
            .await
            .context("reading the database's version")?
        {
            bail!("the database's tables are not up to date: run `token-service migrate` first");
        }
        let master = FileMasterKey::load(&settings.master_key_file)?;
        let keyring = keyring::open(&db, &master, store::PURPOSES, &*clock, &*random)
            .await
            .context("opening the keyring")?;
        let sign_in_delays = SignInDelays::new(&*random);
        let registry = Registry::new(&settings.registry_url, token).context("the registry's URL")?;
        let directory = Directory::new(registry.clone(), clock.clone(), &*random, settings.memory());
        let store = Store::new(db, keyring, clock, random);
        let ledger = Ledger::new(store.clone(), settings.poll_every().is_some());
        store.ensure_signing_keys().await.context("making signing keys")?;
        Ok(Self {
            consents: Consents {
                store: store.clone(),
                registry,
                ledger: ledger.clone(),
                sign_in_delays,
            },
            oauth: OAuth {
                store,
                directory,
                ledger,
                lifetimes: settings.lifetimes(),
            },
            product_name: settings.product_name.as_str().into(),
            poll_every: settings.poll_every(),
        })
    }

    /// What the OAuth 2.0 operations work with.
    pub fn oauth(&self) -> &OAuth {
        &self.oauth
    }

    /// Serves gRPC and HTTP, both on loopback addresses, until `shutdown`; then calls under way have
    /// ten seconds to finish.
    ///
    /// # Errors
    /// When a listener is on another address, or fails.
    pub async fn serve(
        self,
        grpc: TcpListener,
        http: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        require_loopback(grpc.local_addr()?)?;
        require_loopback(http.local_addr()?)?;
        let authorizer = Authorizer::new(permissions(), Arc::new(self.oauth.directory.clone()));
        let server = GrpcServer::new(self.routes(), authorizer, permissions::SERVICES).await?;
        let health = server.health();
        let ready = Arc::new(AtomicBool::new(false));
        // Ends the loops also when a server ends by itself.
        let stop = shutdown.child_token();
        let serving_grpc = async {
            let served = server.serve(grpc, stop.clone(), DRAIN).await;
            stop.cancel();
            served
        };
        let serving_http = async {
            let gateway = Gateway {
                oauth: self.oauth.clone(),
                consents: self.consents.clone(),
                ready: ready.clone(),
                product_name: self.product_name.clone(),
            };
            http::serve(http, gateway, stop.clone(), DRAIN).await;
            stop.cancel();
        };
        let following = async {
            if let Some(every) = self.poll_every {
                tokio::join!(
                    registry::follow(&self.oauth.directory, every, &stop),
                    self.oauth.ledger.follow(every, &stop),
                );
            }
        };
        let (served, (), (), (), ()) = tokio::join!(
            serving_grpc,
            serving_http,
            following,
            tell_readiness(&self.oauth.store, &health, &ready, &stop),
            clear_away(&self.oauth.store, &stop),
        );
        // Calls that outlived the drain must not hold the process back.
        let _ = timeout(Duration::from_secs(2), self.oauth.store.db.close()).await;
        Ok(served?)
    }

    fn routes(&self) -> RoutesBuilder {
        let mut routes = RoutesBuilder::default();
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
        );
        let audit = AuditApi::new(self.oauth.store.db.clone());
        routes.add_service(AuditServiceServer::new(audit).max_decoding_message_size(MAX_MESSAGE_BYTES));
        routes
    }
}

async fn connect(settings: &Settings) -> anyhow::Result<Database> {
    Database::connect(&settings.database_url)
        .await
        .context("connecting to the database")
}

/// This service's own token, from a file that nobody else can read.
fn read_token(path: &Path) -> anyhow::Result<OpaqueToken> {
    let shown = path.display();
    let metadata = path.metadata().with_context(|| format!("can't read {shown}"))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        bail!("{shown} must not be readable by group or others");
    }
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("can't read {shown}"))?;
    OpaqueToken::parse(TokenKind::Workload, text.trim_end())
        .with_context(|| format!("{shown} holds no token"))
}

/// Says at once, and every five seconds, whether this server can serve. The registry need not answer:
/// calls that need it say so themselves.
async fn tell_readiness(store: &Store, health: &Health, is_ready: &AtomicBool, stop: &CancellationToken) {
    let mut ticks = interval(READINESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_ready = None;
    let looks = async {
        loop {
            ticks.tick().await;
            let ready = timeout(READINESS_PATIENCE, can_serve(store))
                .await
                .unwrap_or(false);
            if was_ready != Some(ready) {
                tracing::info!(ready, "readiness");
                was_ready = Some(ready);
            }
            is_ready.store(ready, Ordering::Relaxed);
            health.set_serving(ready).await;
        }
    };
    stop.run_until_cancelled(looks).await;
    is_ready.store(false, Ordering::Relaxed);
    health.set_serving(false).await;
}

async fn can_serve(store: &Store) -> bool {
    if store.db.ping().await.is_err() || store.active_signing_key().await.is_err() {
        return false;
    }
    match store.db.clock_skew(&*store.clock).await {
        Ok(skew) if skew <= MAX_CLOCK_SKEW => true,
        Ok(skew) => {
            let skew_ms = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(skew_ms, "this clock and the database's are too far apart");
            false
        }
        Err(_) => false,
    }
}

/// Clears away what has expired. Whether it still counts is decided where it is used: nothing depends
/// on this being in time.
async fn clear_away(store: &Store, stop: &CancellationToken) {
    let mut ticks = interval(JANITOR_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rounds = async {
        loop {
            ticks.tick().await;
            if let Err(error) = idempotency::sweep(&store.db, store.now()).await {
                tracing::warn!(%error, "expired request ids were not cleared away");
            }
            let (soon, late) = (store.now().minus(KEEP_REVOCATIONS), store.now().minus(KEEP_ENDED));
            if let Err(error) = store.clear_away(soon, late).await {
                tracing::warn!(%error, "what has expired was not cleared away");
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
}
