//! Serves an accepted connection. Drops it if the client sends nothing in time, and shuts it down gracefully when it is
//! idle or too old.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::rpc::middleware::{MAX_CALL_TIME, Routes};

/// The first bytes of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a client may take for its first bytes.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait before peeking again at an incomplete preface. Honest clients send it in one piece.
const PREFACE_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection is checked. It is closed if it had no call since the last check, which is after one to two
/// such periods without a call. An HTTP/1 connection is closed earlier.
const IDLE: Duration = Duration::from_secs(300);
/// The age at which a connection is closed, so that clients spread over all replicas and no stream lasts for ever.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// How much later than [`MAX_AGE`] a connection may be closed. It differs between connections, so that those opened
/// together are not closed together.
const MAX_SPREAD_SECONDS: u16 = 360;

/// The calls of a connection.
#[derive(Default)]
struct Calls {
    /// How many have begun.
    begun: AtomicU64,
}

/// Serves a connection until its client or `stop` ends it, or it exceeds a limit.
pub(super) async fn serve<IO>(
    stream: TcpStream,
    wrap: fn(TcpStream) -> IO,
    server: &auto::Builder<TokioExecutor>,
    routes: impl Routes,
    stop: &CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let begun = timeout(BEGIN_TIMEOUT, has_begun(&stream));
    // A connection without any bytes, such as a load balancer's health check, ends here and is not logged.
    if stop.run_until_cancelled(begun).await != Some(Ok(true)) {
        return;
    }
    // The peer's port stands in for a random number: it differs between connections.
    let spread = stream
        .peer_addr()
        .map_or(0, |peer| peer.port() % MAX_SPREAD_SECONDS);
    let age = MAX_AGE + Duration::from_secs(spread.into());
    let calls = Arc::new(Calls::default());
    let counted = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let call = counted.clone();
        call.begun.fetch_add(1, Ordering::Relaxed);
        let response = routes.clone().oneshot(request.map(Body::new));
        async move {
            let Ok(response) = response.await;
            // The body holds the reference, so the call counts as running until its response is sent.
            Ok::<_, Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &call;
                    frame
                })
            }))
        }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(wrap(stream)), service));
    let idle = async {
        let mut begun = 0;
        loop {
            sleep(IDLE).await;
            let before = std::mem::replace(&mut begun, calls.begun.load(Ordering::Relaxed));
            // This function and the service hold one reference each, and each running call holds one more.
            if before == begun && Arc::strong_count(&calls) == 2 {
                return;
            }
        }
    };
    tokio::select! {
        // The error of a broken connection concerns only its client.
        _ = connection.as_mut() => return,
        () = idle => {}
        () = sleep(age) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(MAX_CALL_TIME, connection).await;
}

/// Waits until a client has sent the whole HTTP/2 preface, or bytes that are not its beginning. Returns `false` if the
/// connection ends before that.
async fn has_begun(stream: &TcpStream) -> bool {
    let mut start = [0; PREFACE.len()];
    loop {
        match stream.peek(&mut start).await {
            Ok(0) | Err(_) => return false,
            Ok(length) if length < PREFACE.len() && PREFACE.starts_with(&start[..length]) => {
                sleep(PREFACE_PAUSE).await;
            }
            Ok(_) => return true,
        }
    }
}
