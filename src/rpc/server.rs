//! Serves gRPC on a bound listener: own acceptor, limits, health, reflection, and a timed drain.
//!
//! It knows no service by name; each hands in its routes, permissions and service names.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{service::RoutesBuilder, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::rpc::{auth::Authorizer, connection::Connection, middleware::GateLayer};

/// The largest message that is read or written, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The most bytes of headers that a call may bring.
pub const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// The most calls at a time on one connection.
pub const MAX_CONCURRENT_CALLS: u32 = 1024;
/// How long calls may go on after the signal to stop.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Health of a server's services, as the health service tells it. It begins as not serving.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl Health {
    /// Tells for each service, and for the server as a whole (the empty name), whether it serves.
    pub async fn set_serving(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in self.services.iter().copied().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// A server that is ready to run.
#[derive(Debug)]
pub struct GrpcServer {
    routes: RoutesBuilder,
    authorizer: Authorizer,
    health: Health,
}

impl GrpcServer {
    /// Adds health and reflection (v1 and v1alpha) for `services`, named in full, to `routes`.
    ///
    /// # Errors
    /// When the descriptor set can't be read, which is a defect of the build.
    pub async fn new(
        mut routes: RoutesBuilder,
        authorizer: Authorizer,
        services: &'static [&'static str],
    ) -> Result<Self, tonic_reflection::server::Error> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let health = Health { reporter, services };
        health.set_serving(false).await;
        let reflection = || {
            let mut builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(crate::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .with_service_name("grpc.health.v1.Health");
            for service in services {
                builder = builder.with_service_name(*service);
            }
            builder
        };
        routes.add_service(health_service);
        routes.add_service(reflection().build_v1()?);
        routes.add_service(reflection().build_v1alpha()?);
        Ok(Self {
            routes,
            authorizer,
            health,
        })
    }

    /// The handle by which the owner tells whether it serves.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Serves until `shutdown`, then reports not serving, takes no new calls, and lets those under
    /// way finish for up to `drain`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
        drain: Duration,
    ) -> Result<(), tonic::transport::Error> {
        let stop = shutdown.clone();
        let health = self.health.clone();
        let serving = Server::builder()
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .max_concurrent_streams(MAX_CONCURRENT_CALLS)
            // A gateway, and token-service, speak for many on one connection: those who hang up before their call was
            // begun, as many as there may be, must not end it for the others. h2 would allow 20.
            .http2_max_pending_accept_reset_streams(Some(MAX_CONCURRENT_CALLS as usize))
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .layer(GateLayer::new(self.authorizer))
            .add_routes(self.routes.routes())
            .serve_with_incoming_shutdown(Acceptor { listener }, async move {
                stop.cancelled().await;
                health.set_serving(false).await;
            });
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            result = serving => result,
            () = overdue => {
                tracing::warn!("calls were still under way when the drain ended");
                Ok(())
            }
        }
    }
}

/// Accepts connections for ever; a connection that fails on the way in is passed over.
struct Acceptor {
    listener: TcpListener,
}

impl Stream for Acceptor {
    type Item = io::Result<Connection<TcpStream>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.listener.poll_accept(cx).map(|accepted| {
            Some(accepted.map(|(stream, _peer)| {
                // Without this, small answers wait for the peer's acknowledgement.
                let _ = stream.set_nodelay(true);
                Connection::new(stream)
            }))
        })
    }
}

/// Cancelled at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the signal handlers can't be set.
pub fn shutdown_signal() -> io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        cancelled.cancel();
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use tokio::task::spawn_blocking;

    use super::*;
    use crate::{
        rpc::auth::Permissions,
        testing::{Nobody, http2::hang_up},
    };

    #[tokio::test]
    async fn many_who_hang_up_at_once_do_not_end_the_connection_of_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authorizer = Authorizer::new(Permissions::new(&[]), Arc::new(Nobody));
        let server = GrpcServer::new(RoutesBuilder::default(), authorizer, &[]);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(server.await.unwrap().serve(listener, shutdown.clone(), DRAIN));
        let calling = spawn_blocking(move || hang_up(address, MAX_CONCURRENT_CALLS - 1));
        calling.await.unwrap();
        shutdown.cancel();
        serving.await.unwrap().unwrap();
    }
}
