//! Serves an accepted connection. Drops it if the client does not begin in time, and shuts it down gracefully when it is
//! idle or too old, or when the authority that admitted its client is gone.

use std::{convert::Infallible, error::Error, iter, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::Extensions,
};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    idle::{ActiveCall, OpenConnections},
    pending::PendingConnections,
    stream::Stream,
};
use crate::{
    log_limit::LogLimit,
    rpc::{
        middleware::{MAX_CALL_TIME, Routes, address::PeerAddress},
        tls::{acceptor::Acceptor, peer::Peer},
    },
};

/// How long a client may take for the handshake and its first bytes.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The log has one line of each kind about wrong connections in this time.
const LOG_PERIOD: Duration = Duration::from_secs(1);
/// The age at which a connection is closed, so that clients spread over all replicas and no stream lasts for ever.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// How much later than [`MAX_AGE`] a connection may be closed. It differs between connections, so that those opened
/// together are not closed together.
const MAX_SPREAD_SECONDS: u16 = 360;

/// How long a client without a call may take to leave when the listener is full. A call that it sent before it learned of that
/// arrives within a round trip.
const NOTICE: Duration = Duration::from_millis(500);

/// An accepted connection, and what it may cost.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    /// How to shake hands, and what ends connections whose client certificate it verified.
    pub(super) tls: Option<(Arc<Acceptor>, CancellationToken)>,
    /// The connections that have not begun.
    pub(super) pending: Arc<PendingConnections>,
    /// Those that have.
    pub(super) begun: Arc<OpenConnections>,
}

/// Serves a connection until its client or `drain` ends it, or it exceeds a limit.
pub(super) async fn serve<IO>(
    accepted: Accepted,
    wrap: fn(Stream) -> IO,
    server: &auto::Builder<TokioExecutor>,
    routes: impl Routes,
    drain: &CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Accepted {
        stream,
        address,
        tls,
        pending,
        begun: connections,
    } = accepted;
    let (acceptor, retired) = tls.unzip();
    let beginning = Stream::begin(stream, acceptor, Instant::now() + BEGIN_TIMEOUT);
    let begun = drain.run_until_cancelled(pending.wait_for_start(beginning)).await;
    let (stream, peer) = match begun.flatten() {
        Some(Ok(Some(begun))) => begun,
        // A connection without any bytes, such as a load balancer's health check, ends here and is not logged.
        None | Some(Ok(None)) => return,
        Some(Err(reason)) => return log_refusal(reason, address),
    };
    // Without a certificate of the client CA, no authority has admitted the client.
    let retired = retired.filter(|_| matches!(peer, Some(Peer::Caller(_))));
    let retired = retired.unwrap_or_default();
    let open = connections.add();
    let calls = open.calls.clone();
    let counted = calls.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        insert_peer(request.extensions_mut(), address, peer.as_ref());
        let call = counted.begin();
        let response = routes.clone().oneshot(request.map(Body::new));
        async move {
            let Ok(response) = response.await;
            Ok::<_, Infallible>(response.map(|body| counted_until_sent(body, call)))
        }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(wrap(stream)), service));
    let mut must_make_room = false;
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                log_violation(&*error, address);
            }
            return;
        }
        () = calls.wait_until_unused() => {}
        () = sleep(max_age(address)) => {}
        () = retired.cancelled() => {}
        () = drain.cancelled() => {}
        () = calls.must_leave() => must_make_room = true,
    }
    connection.as_mut().graceful_shutdown();
    // A client that says nothing might keep its place for as long as a call.
    if must_make_room && (timeout(NOTICE, connection.as_mut()).await.is_ok() || calls.is_idle()) {
        return;
    }
    let _ = timeout(MAX_CALL_TIME, connection).await;
}

/// Returns the age at which a connection is closed. The client's port stands in for a random number: it differs between
/// connections.
fn max_age(client: SocketAddr) -> Duration {
    let spread = client.port() % MAX_SPREAD_SECONDS;
    MAX_AGE + Duration::from_secs(spread.into())
}

/// Puts the client's address and certificate into the extensions of a request.
fn insert_peer(extensions: &mut Extensions, address: SocketAddr, peer: Option<&Peer>) {
    extensions.insert(PeerAddress(address.ip().to_canonical()));
    match peer {
        Some(Peer::Caller(certificate)) => {
            extensions.insert(certificate.clone());
        }
        Some(Peer::Client(certificate)) => {
            extensions.insert(certificate.clone());
        }
        None => {}
    }
}

/// Lets the body of a response hold its call, so that the call counts as running until the response is sent.
fn counted_until_sent(body: Body, call: ActiveCall) -> impl HttpBody<Data = Bytes, Error = axum::Error> {
    body.map_frame(move |frame| {
        let _ = &call;
        frame
    })
}

/// Logs why a connection was refused.
fn log_refusal(reason: &str, client: SocketAddr) {
    static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
    if let Some(unlogged) = LIMIT.check(reason) {
        tracing::warn!(client = %client.ip(), reason, unlogged, "a connection was refused");
    }
}

/// Logs that a client broke the rules of its protocol, as a flood does. That a connection broke concerns only its client.
fn log_violation(error: &(dyn Error + 'static), client: SocketAddr) {
    static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
    let reason = iter::successors(Some(error), |error| (*error).source()).find_map(|error| {
        let http1 = error.downcast_ref::<hyper::Error>();
        if http1.is_some_and(|error| error.is_parse()) {
            return Some("the client sent no valid HTTP".to_owned());
        }
        let http2 = error.downcast_ref::<h2::Error>()?;
        // What the library detected; what the client said is not logged.
        let reason = http2.reason().filter(|_| http2.is_library())?;
        Some(reason.to_string())
    });
    if let Some(reason) = reason
        && let Some(unlogged) = LIMIT.check(&reason)
    {
        tracing::warn!(client = %client.ip(), reason, unlogged, "a connection was ended");
    }
}
