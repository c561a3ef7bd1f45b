//! A stand-in for the services behind the gateway: it answers every request and records it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::harness::envoy::Upstreams;

/// A request as it came out of the gateway.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which listener it reached.
    pub listener: &'static str,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body_bytes: usize,
}

impl Seen {
    /// The values of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }
}

type Requests = Arc<Mutex<Vec<Seen>>>;

pub struct StandIn {
    upstreams: Upstreams,
    requests: Requests,
    servers: Vec<JoinHandle<()>>,
}

impl StandIn {
    pub async fn start() -> Self {
        let requests = Requests::default();
        let mut servers = Vec::new();
        let mut addresses = Vec::new();
        for listener in ["registry gRPC", "token gRPC", "token HTTP"] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(socket.local_addr().unwrap());
            let router = Router::new()
                .fallback(answer)
                .with_state((listener, requests.clone()));
            servers.push(tokio::spawn(async move {
                axum::serve(socket, router).await.unwrap();
            }));
        }
        let at = |index: usize| -> SocketAddr { addresses[index] };
        Self {
            upstreams: Upstreams {
                registry_grpc: at(0),
                token_grpc: at(1),
                token_http: at(2),
            },
            requests,
            servers,
        }
    }

    pub fn upstreams(&self) -> Upstreams {
        self.upstreams
    }

    /// Takes the requests since the last call.
    pub fn taken(&self) -> Vec<Seen> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    /// Takes the only request since the last call.
    #[track_caller]
    pub fn one(&self) -> Seen {
        let mut taken = self.taken();
        assert_eq!(taken.len(), 1, "{taken:?}");
        taken.remove(0)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

/// Returns a response with headers that a gateway should not pass on.
async fn answer(
    State((listener, requests)): State<(&'static str, Requests)>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path_and_query().unwrap().to_string();
    let grpc = parts
        .headers
        .get("content-type")
        .is_some_and(|value| value == "application/grpc");
    requests.lock().unwrap().push(Seen {
        listener,
        path,
        headers: parts.headers,
        body_bytes: body.len(),
    });
    let response = Response::builder()
        .header("server", "stand-in")
        .header("x-envoy-upstream-service-time", "7");
    if grpc {
        let unimplemented = response
            .header("content-type", "application/grpc")
            .header("grpc-status", "12");
        return unimplemented.body(Body::empty()).unwrap();
    }
    response.body(Body::from("reached")).unwrap()
}
