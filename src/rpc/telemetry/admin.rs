//! The listener for operations: `/metrics`, `/livez`, `/readyz`. Plaintext, without credentials, and without anything
//! secret: a kubelet and a Prometheus must reach it.
//!
//! It is served from the start of the process to its end. `/livez` depends on nothing, so that an outage of the database
//! restarts no replica.

use std::{convert::Infallible, io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use super::metrics;
use crate::{lock::Lock, rpc::config::AdminListen};

/// The most connections. Further ones wait.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may take for its one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of headers in a request.
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// The pause after a failed accept: file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The content type of Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a service is ready, and why not. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Lock<Option<String>>>);

impl Default for Readiness {
    /// A service that starts is not ready.
    fn default() -> Self {
        Self(Arc::new(Lock::new(Some("the service is starting".to_owned()))))
    }
}

impl Readiness {
    /// Returns why the service is not ready; `None` if it is.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Sets why the service is not ready. The text holds nothing secret.
    pub fn set(&self, problem: Option<String>) {
        *self.0.lock() = problem;
    }
}

/// The running listener. Dropping it ends the listener.
#[derive(Debug, Default)]
pub struct Admin {
    /// What `/readyz` tells.
    pub readiness: Readiness,
    _stop: Option<DropGuard>,
}

/// Installs the recorder of metrics and serves the listener where `listen` says, or else at `default`. Call it once in a
/// process, before anything that measures is created. `service` is the name in `accord_build_info`.
///
/// If `default` is taken, as by another replica on the same machine, there is no listener and a warning.
///
/// # Errors
/// If the address of `listen` can't be bound, or if the process has a recorder.
pub async fn start(service: &str, listen: Option<AdminListen>, default: SocketAddr) -> anyhow::Result<Admin> {
    let address = match listen {
        None => default,
        Some(AdminListen(Some(address))) => address,
        Some(AdminListen(None)) => return Ok(Admin::default()),
    };
    let listener = match TcpListener::bind(address).await {
        Err(error) if listen.is_none() && error.kind() == ErrorKind::AddrInUse => {
            let problem = "the default address is taken: this process serves no metrics; set --admin-listen";
            tracing::warn!(listener = "--admin-listen", %address, problem);
            return Ok(Admin::default());
        }
        bound => bound.with_context(|| format!("--admin-listen {address}"))?,
    };
    let address = listener.local_addr()?.to_string();
    tracing::info!(listener = "--admin-listen", address, "listening");
    Ok(serve(listener, metrics::install(service)?))
}

fn serve(listener: TcpListener, metrics: PrometheusHandle) -> Admin {
    let readiness = Readiness::default();
    let (routes, stop) = (
        routes(metrics.clone(), readiness.clone()),
        CancellationToken::new(),
    );
    let stopped = stop.clone();
    tokio::spawn(async move {
        let upkeep = async {
            let mut ticks = interval(metrics::UPKEEP_PERIOD);
            loop {
                ticks.tick().await;
                metrics.run_upkeep();
            }
        };
        let serving = async { tokio::join!(accept(listener, routes), upkeep) };
        stopped.run_until_cancelled(serving).await;
    });
    Admin {
        readiness,
        _stop: Some(stop.drop_guard()),
    }
}

fn routes(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    let scrape = async |State(metrics): State<PrometheusHandle>| {
        ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics::render(&metrics))
    };
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(metrics)
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.problem() {
        None => "ready\n".into_response(),
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

/// Serves one request on each connection, so that a client that reads nothing can't hold a place.
async fn accept(listener: TcpListener, routes: Router) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server
        .http1()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(MAX_HEADER_BYTES);
    // The semaphore is never closed.
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Ok((stream, _peer)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (server, routes) = (server.clone(), routes.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = routes.clone().oneshot(request.map(Body::new));
                async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
            });
            let connection = server.serve_connection(TokioIo::new(stream), service);
            // The error of a broken connection concerns only its client.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(slot);
        });
    }
}

#[cfg(test)]
#[path = "../tests/admin.rs"]
mod tests;
