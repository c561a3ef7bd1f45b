#![allow(clippy::unwrap_used, clippy::panic)]

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, body::Body, http::Response, routing::get};
use http_body_util::BodyExt;
use sea_orm::ConnectionTrait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_types::StatusExt;
use tower::ServiceExt;

use super::{deletion::delete_old_events, *};
use crate::{
    audit::v1::{
        self as pb,
        audit_service_client::AuditServiceClient,
        audit_service_server::{AuditService, AuditServiceServer},
    },
    clock::{Clock, ManualClock, SystemClock},
    rpc::{
        auth::{Access, Permissions},
        listener::MAX_CONCURRENT_CALLS,
    },
    store::audit::{self, Sealed},
    testing::{NoCallers, calls::assert_rejected, http2::hang_up, postgres, sqlite, test_clock},
    text::page::PageRequest,
};

const DAY: Duration = Duration::from_secs(86_400);

/// A service whose every method and page panics.
#[derive(Clone)]
struct Panics {
    db: Database,
    clock: Arc<ManualClock>,
    options: Options,
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

    fn recorded_tables(&self) -> Vec<RowTable> {
        Vec::new()
    }

    fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn authorizer(&self) -> Authorizer {
        let table = [("/accord.audit.v1.AuditService/ListAuditEvents", Access::Anyone)];
        Authorizer::new(Permissions::new(&table), Arc::new(NoCallers), self.clock.clone())
    }

    fn routes(&self) -> RoutesBuilder {
        let mut routes = RoutesBuilder::default();
        routes.add_service(AuditServiceServer::new(self.clone()));
        routes
    }

    fn options(&self) -> &Options {
        &self.options
    }

    fn http(&self) -> Option<Http> {
        async fn page() -> &'static str {
            panic!("boom")
        }
        Some(Http {
            ends_with_caller: &[],
            router: Router::new()
                .route("/panic", get(page))
                .route("/ok", get(async || "fine")),
            error: |status| {
                let mut response = Response::new(Body::from(status.message().to_owned()));
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                response
            },
        })
    }

    async fn maintain_keys(&self) -> anyhow::Result<()> {
        Ok(())
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
        options: Options::default(),
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
        run(service, Listeners::plaintext(grpc, Some(http)), shutdown).await
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

/// Sends the bytes of a body to a method. Returns the status in the response's headers or trailers.
async fn send(channel: &Channel, path: &str, encoding: &str, body: &'static [u8]) -> Status {
    let request = http::Request::post(path).header("content-type", "application/grpc");
    let request = request.header("grpc-encoding", encoding);
    let body = tonic::body::Body::new(Body::from(body));
    let response = channel
        .clone()
        .oneshot(request.body(body).unwrap())
        .await
        .unwrap();
    let in_headers = Status::from_header_map(response.headers());
    let body = response.into_body().collect().await.unwrap();
    in_headers.unwrap_or_else(|| Status::from_header_map(body.trailers().unwrap()).unwrap())
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_an_invalid_argument() {
    const LIST: &str = "/accord.audit.v1.AuditService/ListAuditEvents";
    const CHECK: &str = "/grpc.health.v1.Health/Check";
    const WATCH: &str = "/grpc.health.v1.Health/Watch";
    const REFLECT: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let shutdown = CancellationToken::new();
    let (grpc, _, running) = start(&shutdown).await;
    let channel = Channel::from_shared(format!("http://{grpc}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let unreadable: [&[u8]; 7] = [
        &[0, 0],
        &[0, 0, 0, 0, 9, 1],
        &[0, 0, 0, 0, 1, 0xff],
        // A string that is not UTF-8, or longer than the message.
        &[0, 0, 0, 0, 3, 0x0a, 1, 0xff],
        &[0, 0, 0, 0, 2, 0x0a, 0x7f],
        &[1, 0, 0, 0, 0],
        &[7, 0, 0, 0, 0],
    ];
    for path in [LIST, CHECK, WATCH] {
        for body in unreadable {
            let status = send(&channel, path, "identity", body).await;
            assert_rejected::<()>(Err(status), Code::InvalidArgument, "INVALID_FIELDS");
        }
        let too_large = send(&channel, path, "identity", &[0, 0xff, 0xff, 0xff, 0xff]).await;
        assert!(too_large.message().contains("the limit is"), "{too_large:?}");
        assert_rejected::<()>(Err(too_large), Code::InvalidArgument, "INVALID_FIELDS");
        let without = send(&channel, path, "identity", &[]).await;
        assert_rejected::<()>(Err(without), Code::InvalidArgument, "INVALID_FIELDS");
        let compressed = send(&channel, path, "gzip", &[1, 0, 0, 0, 0]).await;
        assert_rejected::<()>(Err(compressed), Code::Unimplemented, "NOT_AVAILABLE");
    }
    let unknown = send(&channel, CHECK, "identity", &[0, 0, 0, 0, 3, 0x0a, 1, b'x']).await;
    assert_rejected::<()>(Err(unknown), Code::NotFound, "NOT_FOUND");
    // Reflection ends the stream.
    for body in unreadable {
        assert_eq!(send(&channel, REFLECT, "identity", body).await.code(), Code::Ok);
    }
    // Its own errors are in trailers: of an unknown symbol, and of a request for nothing.
    let unknown = send(&channel, REFLECT, "identity", &[0, 0, 0, 0, 3, 0x22, 1, b'x']).await;
    assert_rejected::<()>(Err(unknown), Code::NotFound, "NOT_FOUND");
    let nothing = send(&channel, REFLECT, "identity", &[0, 0, 0, 0, 0]).await;
    assert_rejected::<()>(Err(nothing), Code::InvalidArgument, "INVALID_FIELDS");
    drop(channel);
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
async fn streams_that_anyone_may_open_are_bounded() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let shutdown = CancellationToken::new();
    let (grpc, _http, running) = start(&shutdown).await;
    let channel = Channel::from_shared(format!("http://{grpc}")).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let mut streams = Vec::new();
    for _ in 0..grpc::MAX_OPEN_STREAMS {
        streams.push(health.watch(HealthCheckRequest::default()).await.unwrap());
    }
    let refused = health.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(
        refused.get_details_error_info().unwrap().reason,
        "RESOURCE_EXHAUSTED"
    );
    assert!(refused.get_details_retry_info().is_some());
    // Probes are no streams.
    health.check(HealthCheckRequest::default()).await.unwrap();
    streams.pop();
    // The server learns of it with the next frames.
    while health.watch(HealthCheckRequest::default()).await.is_err() {}
    shutdown.cancel();
    drop((health, streams));
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_open_watch_learns_of_the_stop_and_does_not_delay_it() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let shutdown = CancellationToken::new();
    let (grpc, _http, running) = start(&shutdown).await;
    let channel = Channel::from_shared(format!("http://{grpc}")).unwrap();
    let mut health = HealthClient::new(channel.connect().await.unwrap());
    let mut watch = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    while watch.message().await.unwrap().unwrap().status() != ServingStatus::Serving {}
    let stopped = Instant::now();
    shutdown.cancel();
    let told = watch.message().await.unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap(), None);
    running.await.unwrap().unwrap();
    assert!(stopped.elapsed() < listener::DRAIN / 2, "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = listener::bind("--http-listen", address, None).await.unwrap_err();
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
        assert_eq!(check_ready(&service).await.is_ok(), ready);
    }
}

#[tokio::test]
async fn readiness_follows_a_service_from_its_start_to_its_stop() {
    let (database, shutdown) = (sqlite(), CancellationToken::new());
    let service = panics(&database.url).await;
    let readiness = service.options.readiness.clone();
    assert_eq!(readiness.problem().as_deref(), Some("the service is starting"));
    let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let running = tokio::spawn(run(service, Listeners::plaintext(grpc, None), shutdown.clone()));
    let until = async |expected: Option<&str>| {
        while readiness.problem().as_deref() != expected {
            tokio::task::yield_now().await;
        }
    };
    until(None).await;
    shutdown.cancel();
    until(Some("the service is stopping")).await;
    running.await.unwrap().unwrap();
    assert_eq!(readiness.problem().as_deref(), Some("the service is stopping"));
}

#[tokio::test]
async fn a_server_with_a_closed_database_is_not_ready() {
    let database = sqlite();
    let service = panics(&database.url).await;
    check_ready(&service).await.unwrap();
    service.db.close().await;
    let error = check_ready(&service).await.unwrap_err();
    assert!(
        format!("{error:#}").starts_with("the database can't be written"),
        "{error:#}"
    );
}

/// SQLite has no clock of its own.
#[tokio::test]
async fn retention_waits_while_this_clock_differs_from_the_databases() {
    for mut record in Sealed::each().await {
        record.change("old").await;
        record.seal().await;
        let service = Panics {
            db: record.db.clone(),
            clock: record.clock.clone(),
            options: Options {
                audit_retention: Some(DAY),
                ..Options::default()
            },
        };
        let is_kept = async || {
            let (all, first) = (audit::Filter::default(), PageRequest::first(10));
            let events = audit::list(record.db.read(), &all, &first).await.unwrap();
            let events = events.into_parts().0;
            events.iter().any(|event| event.action == "old")
        };
        delete_old_events(&service).await.unwrap();
        assert!(is_kept().await, "{:?}", record.place);
        let has_clock = record.place.label == "postgres";
        // Ahead of what the event says, and not what the database says.
        record.clock.advance(2 * DAY);
        delete_old_events(&service).await.unwrap();
        assert_eq!(is_kept().await, has_clock, "{:?}", record.place);
        record.clock.set(SystemClock.now());
        delete_old_events(&service).await.unwrap();
        assert!(!is_kept().await, "{:?}", record.place);
    }
}
