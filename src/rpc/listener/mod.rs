//! Listeners for gRPC and HTTP: bind, accept within limits, drain.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use metrics::gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    connection::Connection, idle::OpenConnections, lifecycle::Accepted, pending::PendingConnections,
    stream::Stream,
};
use crate::{
    metrics::{CONNECTIONS_MAX, CONNECTIONS_OPEN},
    rpc::{
        config::require_loopback,
        middleware::{Cutoff, Routes, detached_calls::DetachedCalls},
        tls::{
            acceptor::Acceptor,
            server::{CurrentConfig, ServerTls},
        },
    },
};

mod connection;
mod idle;
mod lifecycle;
mod pending;
mod stream;

/// The most bytes of headers in a request.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The most concurrent calls on one connection.
pub const MAX_CONCURRENT_CALLS: u32 = 1024;
/// The most connections of a listener. [`max_connections`] lowers it if the process may not open enough files.
const MAX_CONNECTIONS: u64 = 10_000;
/// The limit on open files that the process requests from the system.
const MAX_FILES: u64 = 65_536;
/// How long calls may continue after the listener is closed.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How long the responses to calls that the drain ended may take to leave.
const LAST_RESPONSES: Duration = Duration::from_secs(1);
/// How long an HTTP/1 client may take to send the headers of its next request, including the idle time before them.
/// Client pools keep idle connections for 60 s, and load balancers for up to 75 s. A server that closed earlier could
/// drop a request that is on its way.
const HTTP1_IDLE: Duration = Duration::from_secs(80);
/// How often an idle HTTP/2 connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How many connections may wait to be accepted. A client that finds no place tries again after a second.
const BACKLOG: u32 = 4096;
/// The pause after a failed accept. Usually file descriptors have run out, and ending connections free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection waits for a place before a further one has to make room.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// A listener logs at most one warning in this time.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// Binds the address that a flag sets. Without TLS it must be on loopback. The error names the flag and the address.
pub async fn bind(flag: &str, address: SocketAddr, tls: Option<&ServerTls>) -> anyhow::Result<TcpListener> {
    if tls.is_none() {
        require_loopback(address)?;
    }
    let listener = listen(address).with_context(|| format!("{flag} {address}"))?;
    let address = listener.local_addr()?.to_string();
    tracing::info!(listener = flag, address, tls = tls.is_some(), "listening");
    Ok(listener)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A service that starts again must not wait for the last connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How the listeners of a service stop.
#[derive(Clone, Debug, Default)]
pub(super) struct Drain {
    /// Closes the listeners. Then calls have [`DRAIN`] to finish.
    pub(super) stop: CancellationToken,
    /// Ends the calls that last longer.
    pub(super) cutoff: Cutoff,
    /// The calls that may outlast their connections.
    pub(super) detached: DetachedCalls,
}

impl Drain {
    /// Waits until the connections and the calls that outlast theirs have ended. Ends the calls that last longer than [`DRAIN`].
    async fn finish(&self, connections: &TaskTracker) {
        if timeout(DRAIN, self.finished(connections)).await.is_err() {
            self.cutoff.end_calls();
            let _ = timeout(LAST_RESPONSES, self.finished(connections)).await;
        }
    }

    async fn finished(&self, connections: &TaskTracker) {
        connections.wait().await;
        self.detached.finished().await;
    }
}

/// Serves gRPC, then drains. Combines the writes of concurrent calls.
pub(super) async fn serve_grpc(
    listener: TcpListener,
    tls: Option<&ServerTls>,
    routes: impl Routes,
    drain: &Drain,
) {
    let tls = tls.map(|tls| (tls, (|current| current.grpc.clone()) as Select));
    serve(
        listener,
        tls,
        (server().http2_only(), Connection::new),
        routes,
        drain,
        "grpc",
    )
    .await;
}

/// Serves HTTP/1 and HTTP/2, then drains.
pub(super) async fn serve_http(
    listener: TcpListener,
    tls: Option<&ServerTls>,
    routes: impl Routes,
    drain: &Drain,
) {
    let tls = tls.map(|tls| (tls, (|current| current.http.clone()) as Select));
    serve(listener, tls, (server(), |stream| stream), routes, drain, "http").await;
}

/// Selects the acceptor of a listener's protocol.
type Select = fn(&CurrentConfig) -> Arc<Acceptor>;

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
    tls: Option<(&ServerTls, Select)>,
    (server, wrap): (auto::Builder<TokioExecutor>, fn(Stream) -> IO),
    routes: impl Routes,
    drain: &Drain,
    protocol: &'static str,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connections = TaskTracker::new();
    let closing = CancellationToken::new();
    let open = gauge!(CONNECTIONS_OPEN, "protocol" => protocol);
    let mut places = Places::new(protocol);
    let accepting = async {
        let mut failure_logged = None;
        loop {
            let (stream, address) = accept(&listener, &mut failure_logged).await;
            let place = places.take().await;
            // Nagle's algorithm would delay small writes until the peer acknowledges earlier ones.
            let _ = stream.set_nodelay(true);
            let accepted = Accepted {
                stream,
                address,
                tls: tls.map(|(tls, select)| {
                    let current = tls.current();
                    (select(&current), current.retired.clone())
                }),
                pending: places.pending.clone(),
                begun: places.begun.clone(),
            };
            let (server, routes, closing) = (server.clone(), routes.clone(), closing.clone());
            let open = open.clone();
            connections.spawn(async move {
                open.increment(1.0);
                lifecycle::serve(accepted, wrap, &server, routes, &closing).await;
                open.decrement(1.0);
                drop(place);
            });
        }
    };
    drain.stop.run_until_cancelled(accepting).await;
    // Before clients learn that their connections close, so that none opens one that nobody accepts.
    drop(listener);
    closing.cancel();
    connections.close();
    drain.finish(&connections).await;
}

/// Accepts the next connection. Pauses after a failure.
async fn accept(listener: &TcpListener, failure_logged: &mut Option<Instant>) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client went away before its connection was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if is_due(failure_logged) {
                    tracing::warn!(reason = %error, "connections can't be accepted");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The places of a listener for connections, and the connections that make room when none is free.
struct Places {
    free: Arc<Semaphore>,
    pending: Arc<PendingConnections>,
    begun: Arc<OpenConnections>,
    limit_logged: Option<Instant>,
}

impl Places {
    fn new(protocol: &'static str) -> Self {
        let most = max_connections();
        gauge!(CONNECTIONS_MAX, "protocol" => protocol).set(most as f64);
        Self {
            free: Arc::new(Semaphore::new(most)),
            pending: Arc::default(),
            begun: Arc::default(),
            limit_logged: None,
        }
    }

    /// Takes a place. While none is free, asks other connections to make room.
    async fn take(&mut self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = self.free.clone().try_acquire_owned() {
                return place;
            }
            if is_due(&mut self.limit_logged) {
                tracing::warn!("the connection limit is reached, so new connections wait");
            }
            // Clients that say nothing must not keep out those that do.
            if !self.pending.make_room() {
                self.begun.make_room();
            }
            // The semaphore is never closed.
            if let Ok(Ok(place)) = timeout(ROOM_PAUSE, self.free.clone().acquire_owned()).await {
                return place;
            }
        }
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
#[path = "../tests/listener.rs"]
mod tests;
