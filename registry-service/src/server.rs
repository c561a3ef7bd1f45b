//! registry-service as a server: opens the store, serves every service, tells whether it is ready,
//! and clears away what has expired.

use std::{sync::Arc, time::Duration};

use accord::{
    audit::v1::audit_service_server::AuditServiceServer,
    clock::{Clock, SharedClock},
    keys::FileMasterKey,
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
        auth::{Authorizer, Caller, CallerDirectory},
        config::require_loopback,
        server::{DRAIN, GrpcServer, Health, MAX_MESSAGE_BYTES},
    },
    store::{Database, change, idempotency, keyring},
    text::opaque::OpaqueToken,
};
use anyhow::{Context, bail};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, service::RoutesBuilder};

use crate::{
    config::Settings,
    grpc::Api,
    model::caller,
    permissions::{self, permissions},
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

/// An open registry, ready to serve. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Store,
    public_base_url: Arc<str>,
}

impl Registry {
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

    /// Starts a new epoch of the change feed, for a database that was restored from a copy: tokens
    /// that were issued before are refused from then on, and one-time links that the copy holds unused
    /// end, since nobody knows which of them were used meanwhile.
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
        store::end_links(&tx, clock.now())
            .await
            .context("ending what the copy holds")?;
        tx.commit().await.context("starting a new epoch")?;
        Ok(())
    }

    /// Opens the database and its keys.
    ///
    /// # Errors
    /// When the database does not answer or is not migrated, or the master key is missing or
    /// another one.
    pub async fn open(settings: &Settings, clock: SharedClock, random: SharedRandom) -> anyhow::Result<Self> {
        let db = connect(settings).await?;
        if !db
            .is_migrated::<Migrator>()
            .await
            .context("reading the database's version")?
        {
            bail!("the database's tables are not up to date: run `registry-service migrate` first");
        }
        let master = FileMasterKey::load(&settings.master_key_file)?;
        let keyring = keyring::open(&db, &master, store::PURPOSES, &*clock, &*random)
            .await
            .context("opening the keyring")?;
        Ok(Self {
            store: Store::new(db, keyring, clock, random),
            public_base_url: settings.public_base_url.as_str().into(),
        })
    }

    /// The registry's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serves on `listener`, which must be on a loopback address, until `shutdown`; then calls under
    /// way have ten seconds to finish.
    ///
    /// # Errors
    /// When the listener is on another address, or fails.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        require_loopback(listener.local_addr()?)?;
        let authorizer = Authorizer::new(permissions(), Arc::new(BearerTokens(self.store.clone())));
        let server = GrpcServer::new(self.routes(), authorizer, permissions::SERVICES).await?;
        let health = server.health();
        // Ends the loops also when the server ends by itself.
        let stop = shutdown.child_token();
        let serving = async {
            let served = server.serve(listener, shutdown, DRAIN).await;
            stop.cancel();
            served
        };
        let (served, (), ()) = tokio::join!(
            serving,
            tell_readiness(&self.store, &health, &stop),
            clear_away(&self.store, &stop),
        );
        Ok(served?)
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
}

async fn connect(settings: &Settings) -> anyhow::Result<Database> {
    Database::connect(&settings.database_url)
        .await
        .context("connecting to the database")
}

/// Looks bearer tokens up in the registry's own tables.
#[derive(Debug)]
struct BearerTokens(Store);

#[tonic::async_trait]
impl CallerDirectory for BearerTokens {
    async fn find_caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Status> {
        let record = caller::find_by_token(&self.0, token).await?;
        Ok(record.map(|record| record.caller()))
    }
}

/// Says at once, and every five seconds, whether this server can serve.
async fn tell_readiness(store: &Store, health: &Health, stop: &CancellationToken) {
    let mut ticks = interval(READINESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_ready = None;
    let looks = async {
        loop {
            ticks.tick().await;
            let ready = timeout(READINESS_PATIENCE, is_ready(store))
                .await
                .unwrap_or(false);
            if was_ready != Some(ready) {
                tracing::info!(ready, "readiness");
                was_ready = Some(ready);
            }
            health.set_serving(ready).await;
        }
    };
    stop.run_until_cancelled(looks).await;
    health.set_serving(false).await;
}

async fn is_ready(store: &Store) -> bool {
    if store.db.ping().await.is_err() {
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

/// Clears away request ids and one-time links that have expired. Whether they still count is decided
/// where they are used: nothing depends on this being in time.
async fn clear_away(store: &Store, stop: &CancellationToken) {
    let mut ticks = interval(JANITOR_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rounds = async {
        loop {
            ticks.tick().await;
            if let Err(error) = idempotency::sweep(&store.db, store.now()).await {
                tracing::warn!(%error, "expired request ids were not cleared away");
            }
            if let Err(error) = store.expire_deliveries().await {
                tracing::warn!(%error, "expired links were not cleared away");
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::{
        clock::{Clock, SystemClock},
        testing::{postgres, sqlite},
    };

    use super::*;
    use crate::store::testing::store;

    #[tokio::test]
    async fn a_clock_far_from_the_databases_is_not_ready() {
        let Some(database) = postgres() else { return };
        let (store, clock) = store(&database.url).await;
        clock.set(SystemClock.now());
        assert!(is_ready(&store).await);
        clock.set(SystemClock.now().plus(Duration::from_secs(60)));
        assert!(!is_ready(&store).await);
        clock.set(SystemClock.now().minus(Duration::from_secs(60)));
        assert!(!is_ready(&store).await);
    }

    #[tokio::test]
    async fn a_database_that_is_gone_is_not_ready() {
        let database = sqlite();
        let (store, _) = store(&database.url).await;
        assert!(is_ready(&store).await);
        store.db.close().await.unwrap();
        assert!(!is_ready(&store).await);
    }
}
