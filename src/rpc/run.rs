//! The lifecycle of a service: migrate, open, serve, become ready, drain.

use std::{
    future::Future,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use sea_orm_migration::MigratorTrait;
use tokio::{
    net::TcpListener,
    time::{Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::{
    clock::Clock,
    keys::{FileMasterKey, Keyring},
    random::Random,
    rpc::{
        auth::Authorizer,
        config::require_loopback,
        grpc::{self, Grpc, Health},
        http::Http,
        listener, middleware, telemetry,
    },
    store::{Database, Transaction, change, idempotency, keyring, origin},
};

/// How often readiness is checked. With the time that a check may take, readiness is true within two seconds.
const READINESS_PERIOD: Duration = Duration::from_millis(750);
/// How long a readiness check may take.
const READINESS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long its small write may take.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(800);
/// The largest difference between the clocks of a ready server and of its database.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);
/// How often expired rows are deleted.
const DELETION_PERIOD: Duration = Duration::from_secs(60);
/// The exit status of a process that SIGINT ended, as shells report it.
const INTERRUPTED: i32 = 130;
/// How long the database may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A service that [`run`] serves.
pub trait Service: Clone + Send + Sync + 'static {
    /// The full names of the gRPC services, for health and reflection.
    const GRPC_SERVICES: &'static [&'static str];

    /// Returns the service's database.
    fn database(&self) -> &Database;

    /// Returns the service's clock.
    fn clock(&self) -> &dyn Clock;

    /// Returns the authorizer of its methods.
    fn authorizer(&self) -> Authorizer;

    /// Returns the gRPC routes.
    fn routes(&self) -> RoutesBuilder;

    /// Returns the HTTP routes, if the service has any. `ready` tells whether the server is ready.
    fn http(&self, _ready: Arc<AtomicBool>) -> Option<Http> {
        None
    }

    /// Checks everything but the database that must be ready. Must not depend on the registry: only calls that need it
    /// fail without it. The log holds the error.
    fn check_ready(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        async { Ok(()) }
    }

    /// Follows change feeds in the background until `stop`.
    fn follow_changes(&self, _stop: &CancellationToken) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Writes pending data, after the last call and before the database closes.
    fn before_close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Deletes expired rows. It may run late: each use of a row checks its expiry.
    fn delete_expired(&self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Applies a service's migrations and creates its change feed. Replicas may race.
pub async fn migrate<M: MigratorTrait>(database_url: &str, random: &dyn Random) -> anyhow::Result<()> {
    let db = connect(database_url).await?;
    db.migrate::<M>().await.context("migrating the database")?;
    let started = change::ensure(db.read(), random).await;
    started.context("starting the change feed")
}

/// Starts a new epoch of the change feed, for a database restored from a backup. Tokens issued before are rejected from
/// then on. `end` runs in the same transaction and ends what may have ended after the backup, such as unused links.
pub async fn start_epoch(
    database_url: &str,
    random: &dyn Random,
    end: impl AsyncFnOnce(&Transaction) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let db = connect(database_url).await?;
    let tx = db.write().await?;
    let started = change::start_epoch(&tx, random).await;
    started.context("starting a new epoch")?;
    end(&tx)
        .await
        .context("ending what may have ended after the backup")?;
    tx.commit().await.context("starting a new epoch")
}

/// Opens a migrated database and its keyring.
pub async fn open<M: MigratorTrait>(
    database_url: &str,
    master_key_file: &Path,
    purposes: &[&'static str],
    clock: &dyn Clock,
    random: &dyn Random,
) -> anyhow::Result<(Database, Keyring)> {
    let db = connect_existing(database_url).await?;
    require_migrated::<M>(&db).await?;
    let master = FileMasterKey::load(master_key_file).context("the master key file")?;
    let keyring = keyring::open(&db, &master, purposes, clock, random).await;
    Ok((db, keyring.context("opening the keyring")?))
}

/// Checks that a service could serve from its database with its master key. Changes nothing.
pub async fn check<M: MigratorTrait>(database_url: &str, master_key_file: &Path) -> anyhow::Result<()> {
    let db = connect_existing(database_url).await?;
    require_migrated::<M>(&db).await?;
    refuse_development(&db).await?;
    let master = FileMasterKey::load(master_key_file).context("the master key file")?;
    let checked = keyring::check(&db, &master).await;
    checked.context("opening the keyring")
}

/// Refuses a database of `accord dev`: a file holds its operators' tokens in plaintext.
pub async fn refuse_development(db: &Database) -> anyhow::Result<()> {
    let is_for_development = db.is_for_development().await;
    if is_for_development.context("reading what the database was created for")? {
        bail!("the database is one of `accord dev`, which is for development only");
    }
    Ok(())
}

async fn require_migrated<M: MigratorTrait>(db: &Database) -> anyhow::Result<()> {
    let migrated = db.is_migrated::<M>().await;
    if !migrated.context("reading the database's schema")? {
        bail!("the database's schema is not up to date: run `migrate` first");
    }
    Ok(())
}

/// Connects to a database that was migrated. Creates no file: the path may be wrong.
async fn connect_existing(database_url: &str) -> anyhow::Result<Database> {
    if origin::is_missing(database_url) {
        bail!("the database does not exist: run `migrate` first");
    }
    connect(database_url).await
}

async fn connect(database_url: &str) -> anyhow::Result<Database> {
    let connected = Database::connect(database_url).await;
    connected.context("connecting to the database")
}

/// Serves on loopback listeners until `shutdown`. Then running calls have ten seconds to finish.
pub async fn run<S: Service>(
    service: S,
    grpc: TcpListener,
    http: Option<TcpListener>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    for listener in [&grpc].into_iter().chain(&http) {
        require_loopback(listener.local_addr()?)?;
    }
    let authorizer = service.authorizer();
    let (routes, health) = grpc::router(service.routes(), S::GRPC_SERVICES).await?;
    let ready = Arc::new(AtomicBool::new(false));
    let serving_http = async {
        if let Some((listener, http)) = http.zip(service.http(ready.clone())) {
            listener::serve_http(listener, http.into_routes(), &shutdown).await;
        }
    };
    tokio::join!(
        listener::serve_grpc(grpc, middleware::stack(Grpc { authorizer }, routes), &shutdown),
        serving_http,
        service.follow_changes(&shutdown),
        report_readiness(&service, &health, &ready, &shutdown),
        delete_expired(&service, &shutdown),
    );
    // Calls that outlive the drain must not delay the end of the process.
    let closing = async {
        service.before_close().await;
        service.database().close().await;
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
    Ok(())
}

/// Returns what the gRPC listener serves to callers whom `authorizer` admits, for tests that make very many calls.
#[cfg(feature = "testing")]
pub(crate) async fn in_process<S: Service>(
    service: &S,
    authorizer: Authorizer,
) -> anyhow::Result<impl middleware::Routes> {
    let (routes, _) = grpc::router(service.routes(), S::GRPC_SERVICES).await?;
    Ok(middleware::stack(Grpc { authorizer }, routes))
}

async fn report_readiness(
    service: &impl Service,
    health: &Health,
    ready: &AtomicBool,
    stop: &CancellationToken,
) {
    let (mut ticks, mut last) = (every(READINESS_PERIOD), None);
    let checks = async {
        loop {
            ticks.tick().await;
            telemetry::report_dropped();
            let check = timeout(READINESS_TIMEOUT, check_ready(service)).await;
            service.database().discard_stale_connections();
            let problem = match check.unwrap_or_else(|_| Err(anyhow!("the database did not answer in time")))
            {
                Ok(()) => None,
                Err(error) => Some(format!("{error:#}")),
            };
            let is_ready = problem.is_none();
            ready.store(is_ready, Ordering::Relaxed);
            health.set_serving(is_ready).await;
            if last.as_ref() != Some(&problem) {
                match &problem {
                    None => tracing::info!("ready"),
                    Some(reason) => tracing::warn!(reason, "not ready"),
                }
                last = Some(problem);
            }
        }
    };
    stop.run_until_cancelled(checks).await;
    ready.store(false, Ordering::Relaxed);
    health.set_serving(false).await;
    health.end_watches().await;
}

async fn check_ready(service: &impl Service) -> anyhow::Result<()> {
    let db = service.database();
    let written = db.check_writable(HEARTBEAT_TIMEOUT).await;
    written.context("the database can't be written")?;
    service.check_ready().await?;
    let skew = db.clock_skew(service.clock()).await;
    if skew.context("the database's clock can't be read")? > MAX_CLOCK_SKEW {
        // Without the figure, which changes all the time, the line is logged once.
        bail!("this clock and the database's differ by more than {MAX_CLOCK_SKEW:?}");
    }
    Ok(())
}

async fn delete_expired(service: &impl Service, stop: &CancellationToken) {
    let mut ticks = every(DELETION_PERIOD);
    let rounds = async {
        loop {
            ticks.tick().await;
            let request_ids = idempotency::sweep(service.database(), service.clock().now()).await;
            let rows = service.delete_expired().await;
            for error in [request_ids.map_err(anyhow::Error::from).err(), rows.err()]
                .into_iter()
                .flatten()
            {
                tracing::warn!(error = format!("{error:#}"), "expired rows were not deleted");
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Returns a token that the first SIGTERM, SIGINT or SIGHUP cancels. A SIGINT after that ends the process.
///
/// Call it before anything that takes time: until then, the first process of a container ignores them all.
pub fn shutdown_signal() -> io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // By default it would end the process without a drain. Changed files need no signal.
    let mut hangup = signal(SignalKind::hangup())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
        tracing::info!("stopping");
        cancelled.cancel();
        // A person who presses Ctrl-C again does not want to wait for the calls under way.
        interrupt.recv().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}

/// Returns the exit status for a program's result. Prints an error on one line of standard error.
pub fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // If standard error is closed, the exit status still tells of the failure.
    let _ = writeln!(io::stderr(), "{program}: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
#[path = "tests/run.rs"]
mod tests;
