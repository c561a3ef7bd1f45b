//! The lifecycle of a service: start, serve, become ready, drain.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use metrics::gauge;
use tokio::{
    net::TcpListener,
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

pub use self::{
    keys::{Key, rotate},
    signals::{Signals, exit, print_line, service_signals, shutdown_signal},
    start::{
        Outage, check, migrate, open, require_not_development, start_epoch, when_reachable, with_schema,
    },
};
use crate::{
    clock::Clock,
    metrics as names,
    rpc::{
        auth::Authorizer,
        config::require_loopback,
        grpc::{self, Grpc, Health},
        http::Http,
        listener::{self, Drain},
        middleware::{self, Shared, address::Gateways, limits::AddressLimit, rejected_calls::RejectedCalls},
        telemetry::{self, Telemetry, admin::Readiness},
        tls::server::ServerTls,
    },
    store::{
        Database,
        audit::Rollup,
        keyring::{self, SharedKeyring},
        rows::RowTable,
    },
};

mod deletion;
mod keys;
pub mod probe;
mod row_check;
mod sealing;
mod signals;
mod start;
pub mod witness;

use witness::Witness;

/// How often readiness is checked. With the time that a check may take, readiness is true within two seconds.
const READINESS_PERIOD: Duration = Duration::from_millis(750);
/// How long a readiness check may take.
const READINESS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the small write of a readiness check may take.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_millis(800);
/// The largest difference between the clocks of a ready server and of its database.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5);
/// How often counts of rejected calls are looked at.
const REJECTED_PERIOD: Duration = Duration::from_secs(1);
/// How long the database may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A service that [`run`] serves.
pub trait Service: Clone + Send + Sync + 'static {
    /// The full names of the gRPC services, for health and reflection.
    const GRPC_SERVICES: &'static [&'static str];

    /// Returns the service's database.
    fn database(&self) -> &Database;

    /// Returns what seals the audit record; `None` while its name is not known yet. Then nothing is sealed.
    fn audit_log(&self) -> Option<AuditLog<'_>> {
        None
    }

    /// Returns the tables whose rows events name. Their rows are compared with the events.
    fn recorded_tables(&self) -> Vec<RowTable>;

    /// Returns what sums up the events that are sealed.
    fn rollup(&self) -> impl Rollup {}

    /// Returns the service's clock.
    fn clock(&self) -> &dyn Clock;

    /// Returns the authorizer of its methods.
    fn authorizer(&self) -> Authorizer;

    /// Returns the gRPC routes.
    fn routes(&self) -> RoutesBuilder;

    /// Returns the HTTP routes, if the service has any.
    fn http(&self) -> Option<Http> {
        None
    }

    /// Returns what its settings say to [`run`].
    fn options(&self) -> &Options;

    /// Records gauges of the service's own, such as the age of its facts. Called about once a second.
    fn record_gauges(&self) -> impl Future<Output = ()> + Send {
        async {}
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

    /// Reads new keys, and rotates those that are due. The log holds the error.
    fn maintain_keys(&self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Deletes expired rows. It may run late: each use of a row checks its expiry.
    fn delete_expired(&self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// How to run a service. By default calls are not limited, and the audit record is kept for ever and pushed nowhere.
#[derive(Clone, Debug)]
pub struct Options {
    /// The limit on calls from one address.
    pub address_limit: Arc<AddressLimit>,
    /// How many gateways a call from outside passes: the caller's address is the element of `X-Forwarded-For` in this place
    /// from the right.
    pub trusted_hops: usize,
    /// How long the audit record keeps events; `None` means for ever.
    pub audit_retention: Option<Duration>,
    /// Where signed heads of the record's log are pushed.
    pub audit_witness: Option<Witness>,
    /// Where [`run`] tells whether the service is ready.
    pub readiness: Readiness,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address_limit: Arc::new(AddressLimit::new(0)),
            trusted_hops: 1,
            audit_retention: None,
            audit_witness: None,
            readiness: Readiness::default(),
        }
    }
}

/// What the log of a service's audit record is made with.
#[derive(Debug)]
pub struct AuditLog<'a> {
    /// Holds the keys that events and the log's signing key derive from.
    pub keyring: &'a SharedKeyring,
    /// The host of the Tenant Authority URLs. It and `service` name the log.
    pub host: String,
    /// The service.
    pub service: &'static str,
}

/// The listeners of a service.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For HTTP, if the service has pages.
    pub http: Option<TcpListener>,
    /// The TLS of both. Without it they must be on loopback.
    pub tls: Option<ServerTls>,
    /// How long the service goes on serving after it must stop, so that balancers learn of it first.
    pub drain_delay: Duration,
}

impl Listeners {
    /// Returns listeners on loopback that speak plaintext and stop at once.
    pub fn plaintext(grpc: TcpListener, http: Option<TcpListener>) -> Self {
        Self {
            grpc,
            http,
            tls: None,
            drain_delay: Duration::ZERO,
        }
    }
}

/// Serves until it must stop. Then it reports NOT_SERVING, serves on for the drain delay, closes its listeners, and gives
/// running calls ten seconds to finish.
pub async fn run<S: Service>(
    service: S,
    listeners: Listeners,
    signals: impl Into<Signals>,
) -> anyhow::Result<()> {
    let Listeners {
        grpc,
        http,
        tls,
        drain_delay,
    } = listeners;
    let Signals { shutdown, reload } = signals.into();
    if tls.is_none() {
        for listener in [&grpc].into_iter().chain(&http) {
            require_loopback(listener.local_addr()?)?;
        }
    }
    let authorizer = service.authorizer();
    let (routes, health) = grpc::router(service.routes(), S::GRPC_SERVICES).await?;
    let rejected = RejectedCalls::new(service.database().clone(), authorizer.clock());
    let (drain, drained) = (Drain::default(), CancellationToken::new());
    let shared = shared(&service, &authorizer, tls.is_some(), &drain, rejected.clone());
    let serving_http = async {
        if let Some((listener, http)) = http.zip(service.http()) {
            let routes = http.into_routes(shared.clone());
            listener::serve_http(listener, tls.as_ref(), routes, &drain).await;
        }
    };
    let serving = async {
        let routes = middleware::stack(Grpc { authorizer }, shared.clone(), routes);
        let serving_grpc = listener::serve_grpc(grpc, tls.as_ref(), routes, &drain);
        // Boxed, or the compiler gives up on the depth of the future.
        tokio::join!(Box::pin(serving_grpc), Box::pin(serving_http));
        drained.cancel();
    };
    let stopping = async {
        shutdown.cancelled().await;
        sleep(drain_delay).await;
        drain.stop.cancel();
    };
    let following_files = async {
        if let Some(tls) = &tls {
            tls.follow(&reload, &drained).await;
        }
    };
    tokio::join!(
        serving,
        stopping,
        following_files,
        // Calls of the drain need facts that are fresh.
        Box::pin(service.follow_changes(&drained)),
        Box::pin(report_readiness(
            &service,
            &health,
            tls.as_ref(),
            (&shutdown, &drain.stop)
        )),
        Box::pin(maintain_keys(&service, &shutdown)),
        Box::pin(deletion::delete_expired(&service, &shutdown)),
        Box::pin(sealing::seal(&service, &shutdown)),
        Box::pin(record_rejected(&rejected, &drained)),
    );
    let calls = drain.cutoff.calls();
    if calls > 0 {
        tracing::warn!(calls, "calls lasted longer than the drain and were ended");
    }
    // Calls that outlive the drain must not delay the end of the process.
    let closing = async {
        rejected.write_all().await;
        service.before_close().await;
        service.database().close().await;
    };
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
    Ok(())
}

/// Returns what the calls of all listeners of a service pass.
fn shared(
    service: &impl Service,
    authorizer: &Authorizer,
    has_tls: bool,
    drain: &Drain,
    rejected: RejectedCalls,
) -> Shared {
    let options = service.options();
    Shared {
        limit: options.address_limit.clone(),
        gateways: Gateways {
            authorizer: authorizer.clone(),
            has_tls,
            trusted_hops: options.trusted_hops,
        },
        cutoff: drain.cutoff.clone(),
        detached: drain.detached.clone(),
        rejected: Some(rejected),
    }
}

/// Runs a service of this name as the whole process: starts its log, and stops on the signals of the process. A signal also ends
/// `start`, which opens the service.
pub async fn serve<S: Service>(
    name: &str,
    start: impl Future<Output = anyhow::Result<(S, Listeners, Telemetry)>>,
) -> anyhow::Result<()> {
    let _log = telemetry::init(name);
    let signals = service_signals()?;
    let started = signals.shutdown.run_until_cancelled(start).await;
    match started.transpose()? {
        Some((service, listeners, _telemetry)) => run(service, listeners, signals).await,
        None => Ok(()),
    }
}

/// Returns what the gRPC listener serves to callers whom `authorizer` admits, for tests that make very many calls.
#[cfg(feature = "testing")]
pub(crate) async fn in_process<S: Service>(
    service: &S,
    authorizer: Authorizer,
) -> anyhow::Result<impl middleware::Routes> {
    let (routes, _) = grpc::router(service.routes(), S::GRPC_SERVICES).await?;
    let rejected = RejectedCalls::new(service.database().clone(), authorizer.clock());
    let shared = shared(service, &authorizer, false, &Drain::default(), rejected);
    Ok(middleware::stack(Grpc { authorizer }, shared, routes))
}

async fn report_readiness(
    service: &impl Service,
    health: &Health,
    tls: Option<&ServerTls>,
    (shutdown, stop): (&CancellationToken, &CancellationToken),
) {
    let (mut ticks, mut last) = (every(READINESS_PERIOD), None);
    let ready = gauge!(names::READY);
    let checks = async {
        loop {
            ticks.tick().await;
            telemetry::report_dropped();
            let gauges = timeout(READINESS_TIMEOUT, service.record_gauges());
            let (check, _) = tokio::join!(timeout(READINESS_TIMEOUT, check_ready(service)), gauges);
            service.database().discard_stale_connections();
            let check = check.unwrap_or_else(|_| Err(anyhow!("the database did not answer in time")));
            // The log has the causes, which may tell more than strangers may know.
            service
                .options()
                .readiness
                .set(check.as_ref().err().map(ToString::to_string));
            let problem = check.err().map(|error| format!("{error:#}"));
            let is_ready = problem.is_none();
            ready.set(f64::from(u8::from(is_ready)));
            health.set_serving(is_ready).await;
            service.database().record_gauges();
            if let Some(tls) = tls {
                tls.record_expiry();
            }
            if last.as_ref() != Some(&problem) {
                match &problem {
                    None => tracing::info!("ready"),
                    Some(reason) => tracing::warn!(reason, "not ready"),
                }
                last = Some(problem);
            }
        }
    };
    shutdown.run_until_cancelled(checks).await;
    ready.set(0.0);
    let stopping = "the service is stopping".to_owned();
    service.options().readiness.set(Some(stopping));
    health.set_serving(false).await;
    stop.cancelled().await;
    health.end_watches().await;
}

async fn check_ready(service: &impl Service) -> anyhow::Result<()> {
    let db = service.database();
    let written = db.check_writable(HEARTBEAT_TIMEOUT).await;
    written.context("the database can't be written")?;
    service.check_ready().await?;
    let skew = db.clock_skew(service.clock()).await;
    if skew.context("the database's clock can't be read")? > MAX_CLOCK_SKEW {
        // The figure changes all the time. Without it equal lines are recognised, and one is logged.
        bail!("this clock and the database's differ by more than {MAX_CLOCK_SKEW:?}");
    }
    Ok(())
}

async fn maintain_keys(service: &impl Service, stop: &CancellationToken) {
    let mut ticks = every(keyring::READ_EVERY);
    let rounds = async {
        loop {
            ticks.tick().await;
            if let Err(error) = service.maintain_keys().await {
                tracing::warn!(error = format!("{error:#}"), "keys could not be maintained");
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
}

/// Writes the counts of rejected calls when their minute is over.
async fn record_rejected(rejected: &RejectedCalls, stop: &CancellationToken) {
    let mut ticks = every(REJECTED_PERIOD);
    let rounds = async {
        loop {
            ticks.tick().await;
            rejected.write_ended().await;
        }
    };
    stop.run_until_cancelled(rounds).await;
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
#[path = "../tests/run.rs"]
mod tests;
