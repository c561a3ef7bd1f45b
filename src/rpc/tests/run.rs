#![allow(clippy::unwrap_used, clippy::panic)]

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, http::Response, routing::get};
use sea_orm::ConnectionTrait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, spawn_blocking},
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;

use super::*;
use crate::{
    audit::v1::{
        self as pb,
        audit_service_client::AuditServiceClient,
        audit_service_server::{AuditService, AuditServiceServer},
    },
    clock::{ManualClock, SystemClock},
    rpc::{
        auth::{Access, Permissions},
        listener::MAX_CONCURRENT_CALLS,
    },
    testing::{NoCallers, http2::hang_up, postgres, sqlite, test_clock},
};

/// A service whose every method and page panics.
#[derive(Clone)]
struct Panics {
    db: Database,
    clock: Arc<ManualClock>,
}

#[tonic::async_trait]
impl AuditService for Panics {
    async fn list_audit_events(
        &self,
        _: Request<pb::ListAuditEventsRequest>,
    ) -> Result<tonic::Response<pb::ListAuditEventsResponse>, Status> {
        panic!("boom")
    }

    async fn verify_audit_log(
        &self,
        _: Request<pb::VerifyAuditLogRequest>,
    ) -> Result<tonic::Response<pb::VerifyAuditLogResponse>, Status> {
        panic!("boom")
    }

    async fn get_checkpoint(
        &self,
        _: Request<pb::GetCheckpointRequest>,
    ) -> Result<tonic::Response<pb::GetCheckpointResponse>, Status> {
        panic!("boom")
    }

    async fn get_inclusion_proof(
        &self,
        _: Request<pb::GetInclusionProofRequest>,
    ) -> Result<tonic::Response<pb::GetInclusionProofResponse>, Status> {
        panic!("boom")
    }

    async fn get_consistency_proof(
        &self,
        _: Request<pb::GetConsistencyProofRequest>,
    ) -> Result<tonic::Response<pb::GetConsistencyProofResponse>, Status> {
        panic!("boom")
    }

    async fn trace_token(
        &self,
        _: Request<pb::TraceTokenRequest>,
    ) -> Result<tonic::Response<pb::TraceTokenResponse>, Status> {
        panic!("boom")
    }
}

impl Service for Panics {
    const GRPC_SERVICES: &'static [&'static str] = &["accord.audit.v1.AuditService"];

    fn database(&self) -> &Database {
        &self.db
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn authorizer(&self) -> Authorizer {
        let table = [("/accord.audit.v1.AuditService/ListAuditEvents", Access::Anyone)];
        Authorizer::new(Permissions::new(&table), Arc::new(NoCallers))
    }

    fn routes(&self) -> RoutesBuilder {
        let mut routes = RoutesBuilder::default();
        routes.add_service(AuditServiceServer::new(self.clone()));
        routes
    }

    fn http(&self, _ready: Arc<AtomicBool>) -> Option<Http> {
        async fn page() -> &'static str {
            panic!("boom")
        }
        Some(Http {
            router: Router::new()
                .route("/panic", get(page))
                .route("/ok", get(async || "fine")),
            error: |status| {
                let mut response = Response::new(Body::from(status.message().to_owned()));
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                response
            },
            before_secrets: &["/claim/", "/enrol/"],
        })
    }

    async fn delete_expired(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

async fn panics(url: &str) -> Panics {
    let db = Database::connect(url).await.unwrap();
    let heartbeat = "CREATE TABLE heartbeat (id integer PRIMARY KEY, beat bigint)";
    db.read().execute_unprepared(heartbeat).await.unwrap();
    Panics {
        db,
        clock: test_clock(),
    }
}

/// Runs the service. Returns the addresses of gRPC and HTTP.
async fn start(shutdown: &CancellationToken) -> (SocketAddr, SocketAddr, JoinHandle<anyhow::Result<()>>) {
    let database = sqlite();
    let service = panics(&database.url).await;
    let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (grpc_address, http_address) = (grpc.local_addr().unwrap(), http.local_addr().unwrap());
    let shutdown = shutdown.clone();
    let running = tokio::spawn(async move {
        let _database = database;
        run(service, grpc, Some(http), shutdown).await
    });
    (grpc_address, http_address, running)
}

#[tokio::test]
async fn a_panic_is_an_internal_error_of_one_call() {
    let shutdown = CancellationToken::new();
    let (grpc, http, running) = start(&shutdown).await;

    let channel = Channel::from_shared(format!("http://{grpc}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let mut audit = AuditServiceClient::new(channel);
    for _ in 0..2 {
        let request = pb::ListAuditEventsRequest::default();
        let status = audit.list_audit_events(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("boom"), "{status:?}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "INTERNAL");
        assert!(status.message().contains(&info.metadata["error_id"]));
        assert!(status.metadata().contains_key(middleware::REQUEST_ID));
    }
    drop(audit);

    let mut connection = TcpStream::connect(http).await.unwrap();
    let requests =
        "GET /panic HTTP/1.1\r\nhost: a\r\n\r\nGET /ok HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    connection.write_all(requests.as_bytes()).await.unwrap();
    let mut answers = String::new();
    connection.read_to_string(&mut answers).await.unwrap();
    let (panicked, ok) = answers.split_at(answers[1..].find("HTTP/1.1 ").unwrap() + 1);
    assert!(panicked.starts_with("HTTP/1.1 500 "), "{panicked}");
    assert!(
        panicked.contains("internal error ") && !panicked.contains("boom"),
        "{panicked}"
    );
    for header in ["x-request-id: ", "x-content-type-options: nosniff"] {
        assert!(panicked.contains(header), "{panicked}");
    }
    assert!(ok.starts_with("HTTP/1.1 200 ") && ok.ends_with("fine"), "{ok}");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn callers_that_hang_up_do_not_end_the_connection_for_others() {
    let shutdown = CancellationToken::new();
    let (grpc, http, running) = start(&shutdown).await;
    for address in [grpc, http] {
        let calls = spawn_blocking(move || hang_up(address, MAX_CONCURRENT_CALLS - 1));
        calls.await.unwrap();
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = listener::bind("--http-listen", address).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.starts_with(&format!("--http-listen {address}: ")), "{text}");
}

#[tokio::test]
async fn a_server_with_a_skewed_clock_is_not_ready() {
    let Some(database) = postgres() else { return };
    let service = panics(&database.url).await;
    let minute = Duration::from_secs(60);
    let now = SystemClock.now();
    for (clock, ready) in [(now, true), (now.plus(minute), false), (now.minus(minute), false)] {
        service.clock.set(clock);
        assert_eq!(is_ready(&service).await, ready);
    }
}

#[tokio::test]
async fn a_server_with_a_closed_database_is_not_ready() {
    let database = sqlite();
    let service = panics(&database.url).await;
    assert!(is_ready(&service).await);
    service.db.close().await;
    assert!(!is_ready(&service).await);
}

#[tokio::test]
async fn secrets_in_paths_are_not_logged() {
    let database = sqlite();
    let http = panics(&database.url).await.http(Arc::default()).unwrap();
    for (path, logged) in [
        ("/claim/acl_x", "/claim/"),
        ("/firm/enrol/ace_x", "/firm/enrol/"),
        ("/firm/jwks.json", "/firm/jwks.json"),
    ] {
        assert_eq!(middleware::Protocol::loggable(&http, path), logged);
    }
}
