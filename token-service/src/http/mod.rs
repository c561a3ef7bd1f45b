//! The HTTP face: what partners' libraries and resource servers read, on its own listener.
//!
//! It calls what the RPCs call, never the store.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use accord::rpc::server::MAX_CONCURRENT_CALLS;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::{Layer, ServiceExt, service_fn};

use crate::{consent::Consents, oauth::OAuth};

mod client;
mod discovery;
mod error;
mod form;
mod openapi;
mod pages;
mod request;
mod token;

/// The largest body that is read, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The most bytes of headers that a request may bring.
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// What the routes work with.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    /// Tokens.
    pub(crate) oauth: OAuth,
    /// Consents.
    pub(crate) consents: Consents,
    /// Whether this server can serve.
    pub(crate) ready: Arc<AtomicBool>,
    /// What pages call the product.
    pub(crate) product_name: Arc<str>,
}

/// Every route, in one place.
fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .merge(pages::routes(&gateway))
        .route("/{tenant}/oauth2/token", post(token::token))
        .route("/{tenant}/oauth2/introspect", post(token::introspect))
        .route("/{tenant}/oauth2/revoke", post(token::revoke))
        .route("/openapi.json", get(openapi::openapi))
        .route("/healthz", get(discovery::healthz))
        .route("/{tenant}/jwks.json", get(discovery::jwks))
        .route(
            "/.well-known/oauth-authorization-server/{tenant}",
            get(discovery::metadata),
        )
        .route(
            "/{tenant}/.well-known/oauth-authorization-server",
            get(discovery::metadata),
        )
        .route(
            "/{tenant}/.well-known/openid-configuration",
            get(discovery::metadata),
        )
        .with_state(gateway)
}

/// Serves until `shutdown`; then requests under way have `drain` to finish.
pub(crate) async fn serve(
    listener: TcpListener,
    gateway: Gateway,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let router = router(Arc::new(gateway));
    let connections = GracefulShutdown::new();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(MAX_HEADER_BYTES);
    server
        .http2()
        .timer(hyper_util::rt::TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        // As for gRPC: a gateway speaks for many.
        .max_pending_accept_reset_streams(Some(MAX_CONCURRENT_CALLS as usize));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: connections that end make room.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let routes = TowerToHyperService::new(tower_service(router.clone()));
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), routes);
        let connection = connections.watch(connection.into_owned());
        tokio::spawn(async move {
            // A connection that breaks concerns its client alone.
            let _ = connection.await;
        });
    }
    if tokio::time::timeout(drain, connections.shutdown()).await.is_err() {
        tracing::warn!("requests were still under way when the drain ended");
    }
}

/// The routes within the bounds of every request. Around the router and not in it, where a layer is copied
/// for each request.
fn tower_service(
    router: Router,
) -> impl tower::Service<
    http::Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = Infallible,
    Future: Send,
> + Clone {
    let routes = DefaultBodyLimit::max(MAX_BODY_BYTES).layer(router);
    service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let routes = routes.clone();
        request::bounded(request.map(axum::body::Body::new), |request| {
            routes.oneshot(request)
        })
    })
}
