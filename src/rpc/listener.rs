//! Listeners of gRPC and HTTP: bind, accept within limits, drain.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use axum::{body::Body, extract::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::rpc::{config::require_loopback, connection::Connection, middleware::Routes};

/// The most bytes of headers in a request.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The most concurrent calls on one connection.
pub const MAX_CONCURRENT_CALLS: u32 = 1024;
/// How long calls may continue after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a client may take to send the headers of an HTTP/1 request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle HTTP/2 connection is probed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The pause after a failed accept. Usually file descriptors ran out, and connections that end free some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds the address of a flag. The error names the flag.
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
    serve(listener, limits().http2_only(), Connection::new, routes, stop).await;
}

/// Serves HTTP/1 and HTTP/2 until `stop`, then drains.
pub(super) async fn serve_http(listener: TcpListener, routes: impl Routes, stop: &CancellationToken) {
    serve(listener, limits(), |stream| stream, routes, stop).await;
}

fn limits() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
        // A gateway sends the calls of many clients over one connection. Clients that hang up before their call
        // begins must not end it for the others. The default of h2 is 20.
        .max_pending_accept_reset_streams(Some(MAX_CONCURRENT_CALLS as usize));
    server
}

async fn serve<IO>(
    listener: TcpListener,
    server: auto::Builder<TokioExecutor>,
    accept: fn(TcpStream) -> IO,
    routes: impl Routes,
    stop: &CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connections = GracefulShutdown::new();
    let routes = routes.map_request(|request: Request<Incoming>| request.map(Body::new));
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _peer)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Otherwise small writes wait for the peer's acknowledgement.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.clone());
        let connection = server.serve_connection(TokioIo::new(accept(stream)), service);
        let connection = connections.watch(connection.into_owned());
        // A broken connection concerns only its client.
        tokio::spawn(async move { drop(connection.await) });
    }
    drop(listener);
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!("calls were still running when the drain ended");
    }
}
