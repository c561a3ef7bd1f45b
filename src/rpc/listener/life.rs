//! The life of an accepted connection: it must begin in time, ends when it is idle or old, and is closed with notice.

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
/// The pause before another look at an incomplete preface. Honest clients send it in one piece.
const PREFACE_PAUSE: Duration = Duration::from_millis(50);
/// A connection without a call for this long is closed, at the latest after twice this time. HTTP/1 is closed earlier.
const IDLE: Duration = Duration::from_secs(300);
/// A connection is closed after this time, so that clients spread over replicas again and no stream lasts for ever.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// By how much the ages of connections differ, so that those opened together are not closed together.
const MAX_SPREAD_SECONDS: u16 = 360;

/// The calls of a connection.
#[derive(Default)]
struct Calls {
    /// How many began.
    begun: AtomicU64,
}

/// Serves a connection until its client or `stop` ends it, or it exceeds a limit.
pub(super) async fn serve<IO>(
    stream: TcpStream,
    accept: fn(TcpStream) -> IO,
    server: &auto::Builder<TokioExecutor>,
    routes: impl Routes,
    stop: &CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let beginning = timeout(BEGIN_TIMEOUT, has_begun(&stream));
    // A connection that is only opened, as health checks of balancers do, ends here without a line in the log.
    if stop.run_until_cancelled(beginning).await != Some(Ok(true)) {
        return;
    }
    // Ports differ from connection to connection.
    let spread = stream
        .peer_addr()
        .map_or(0, |peer| peer.port() % MAX_SPREAD_SECONDS);
    let age = MAX_AGE + Duration::from_secs(spread.into());
    let calls = Arc::new(Calls::default());
    let counted = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let call = counted.clone();
        call.begun.fetch_add(1, Ordering::Relaxed);
        let answer = routes.clone().oneshot(request.map(Body::new));
        async move {
            let Ok(response) = answer.await;
            // The call lasts until its response is sent.
            Ok::<_, Infallible>(response.map(|body| {
                body.map_frame(move |frame| {
                    let _ = &call;
                    frame
                })
            }))
        }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(accept(stream)), service));
    let ends = async {
        let mut begun = 0;
        loop {
            sleep(IDLE).await;
            let before = std::mem::replace(&mut begun, calls.begun.load(Ordering::Relaxed));
            // This function and the service have one reference each, and every call that is under way has one.
            if before == begun && Arc::strong_count(&calls) == 2 {
                return;
            }
        }
    };
    // A broken connection concerns only its client.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = ends => {}
        () = sleep(age) => {}
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(MAX_CALL_TIME, connection).await;
}

/// Waits until a client has sent the preface of HTTP/2, or what is none. Returns whether it has.
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
