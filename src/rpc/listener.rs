//! Listeners for gRPC and HTTP: bind, accept within limits, drain.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::connection::Connection;
use crate::rpc::{config::require_loopback, middleware::Routes};

mod connection;
mod lifecycle;

/// The most bytes of headers in a request.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The most concurrent calls on one connection.
pub const MAX_CONCURRENT_CALLS: u32 = 1024;
/// The most connections of a listener. [`max_connections`] lowers it if the process may not open enough files.
const MAX_CONNECTIONS: u64 = 10_000;
/// The limit on open files that the process requests from the system.
const MAX_FILES: u64 = 65_536;
/// How long calls may continue after the signal to stop.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How long an HTTP/1 client may take to send the headers of its next request, including the idle time before them.
/// Client pools keep idle connections for 60 s, and load balancers for up to 75 s. A server that closed earlier could
/// drop a request that is on its way.
const HTTP1_IDLE: Duration = Duration::from_secs(80);
/// How often an idle HTTP/2 connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The pause after a failed accept. Usually file descriptors have run out, and ending connections free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A listener logs at most one warning in this time.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Binds the address that a flag sets. The error names the flag and the address.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    require_loopback(address)?;
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("{flag} {address}"))?;
    let address = listener.local_addr()?.to_string();
    tracing::info!(listener = flag, address, "listening");
    Ok(listener)
}

/// Serves gRPC until `stop`, then drains. Combines the writes of concurrent calls.
pub(super) async fn serve_grpc(listener: TcpListener, routes: impl Routes, stop: &CancellationToken) {
    serve(listener, server().http2_only(), Connection::new, routes, stop).await;
}

/// Serves HTTP/1 and HTTP/2 until `stop`, then drains.
pub(super) async fn serve_http(listener: TcpListener, routes: impl Routes, stop: &CancellationToken) {
    serve(listener, server(), |stream| stream, routes, stop).await;
}

/// Returns a server with the limits of both protocols.
fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP1_IDLE)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
        // A gateway sends the calls of many clients over one connection. Clients that cancel calls before the server
        // accepts them must not end that connection for the others. The default of h2 is 20.
        .max_pending_accept_reset_streams(Some(MAX_CONCURRENT_CALLS as usize));
    server
}

async fn serve<IO>(
    listener: TcpListener,
    server: auto::Builder<TokioExecutor>,
    wrap: fn(TcpStream) -> IO,
    routes: impl Routes,
    stop: &CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connections = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(max_connections()));
    let (mut limit_logged, mut failure_logged) = (None, None);
    let accepting = async {
        loop {
            if slots.available_permits() == 0 && is_due(&mut limit_logged) {
                tracing::warn!("the connection limit is reached, so new connections wait");
            }
            // The semaphore is never closed.
            let Ok(slot) = slots.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _peer)) => stream,
                // The client went away before its connection was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if is_due(&mut failure_logged) {
                        tracing::warn!(reason = %error, "connections can't be accepted");
                    }
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Nagle's algorithm would delay small writes until the peer acknowledges earlier ones.
            let _ = stream.set_nodelay(true);
            let (server, routes, stop) = (server.clone(), routes.clone(), stop.clone());
            connections.spawn(async move {
                lifecycle::serve(stream, wrap, &server, routes, &stop).await;
                drop(slot);
            });
        }
    };
    stop.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    if timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("calls were still running when the drain ended");
    }
}

/// Returns whether no warning was logged within [`LOG_PERIOD`]. If so, records that one is logged now.
fn is_due(last_logged: &mut Option<Instant>) -> bool {
    let is_due = last_logged.is_none_or(|at| at.elapsed() >= LOG_PERIOD);
    if is_due {
        *last_logged = Some(Instant::now());
    }
    is_due
}

/// Returns how many connections a listener may have. First raises the limit on open files to [`MAX_FILES`], or as far
/// as the system allows.
///
/// A process has at most three listeners. Each gets a quarter of the files, which leaves a quarter for databases.
fn max_connections() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(MAX_FILES, |most| most.min(MAX_FILES));
    let mut files = current.unwrap_or(MAX_FILES);
    if files < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            files = wanted;
        }
    }
    usize::try_from((files / 4).clamp(1, MAX_CONNECTIONS)).unwrap_or(1)
}

#[cfg(test)]
#[path = "tests/listener.rs"]
mod tests;
