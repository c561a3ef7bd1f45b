#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    collections::HashMap,
    io::{Read, Seek},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::http::HeaderValue;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc, task::spawn_blocking};
use tonic::{
    Request, Response, Status as RpcStatus,
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};

use super::*;
use crate::testing::certificates::{Authority, Subject};

/// A collector that hands on the spans of each export.
struct Collector(mpsc::UnboundedSender<Vec<Span>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, RpcStatus> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let _ = self.0.send(scopes.flat_map(|scope| scope.spans).collect());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<Vec<Span>>) {
    collector_of(Server::builder()).await
}

async fn collector_of(mut server: Server) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<Span>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (spans, exported) = mpsc::unbounded_channel();
    let server = server.add_service(TraceServiceServer::new(Collector(spans)));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    (address, exported)
}

/// Builds the exporter that these variables describe.
fn build(variables: &[(&str, &str)]) -> anyhow::Result<Option<SpanExporter>> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    exporter(|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn traced_by(endpoint: &str) -> SdkTracerProvider {
    let variables = [(ENDPOINT[1], endpoint), (TIMEOUT[1], "300")];
    provider(
        "test-service",
        Reporting::new(build(&variables).unwrap().unwrap()),
    )
}

fn parent(value: &str) -> HeaderMap {
    HeaderMap::from_iter([("traceparent".parse().unwrap(), value.parse().unwrap())])
}

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn ended<'a>(protocol: &'static str, method: &'a Method, route: &'a str, code: Option<&'a str>) -> Ended<'a> {
    Ended {
        protocol,
        method,
        route,
        request_id: "request-1",
        code,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_continues_the_trace_of_the_caller_and_says_what_happened() {
    let (address, mut exported) = collector().await;
    let provider = traced_by(&format!("http://{address}"));
    let tracer = provider.tracer("test");
    let mut headers = parent(SAMPLED);
    headers.insert("tracestate", HeaderValue::from_static("vendor=acs_secret"));
    let mut grpc = CallSpan::begin_with(Some(&tracer), &headers);
    let next = grpc.parent_of_next().unwrap();
    grpc.end(&ended("grpc", &Method::POST, "a.A/Open", Some("Unavailable")));
    let brew = Method::from_bytes(b"acl_secret").unwrap();
    let mut http = CallSpan::begin_with(Some(&tracer), &HeaderMap::new());
    http.end(&ended("http", &brew, "/claim/{token}", Some("404")));
    spawn_blocking(move || provider.shutdown())
        .await
        .unwrap()
        .unwrap();

    let spans = exported.recv().await.unwrap();
    let [grpc, http] = &spans[..] else {
        panic!("{spans:?}");
    };
    assert_eq!(
        (grpc.name.as_str(), http.name.as_str()),
        ("a.A/Open", "_OTHER /claim/{token}")
    );
    let caller = TraceParent::parse(SAMPLED).unwrap();
    assert_eq!(grpc.trace_id, caller.trace_id.to_be_bytes());
    assert_eq!(grpc.parent_span_id, caller.span_id.to_be_bytes());
    assert_eq!((next.trace_id, next.flags), (caller.trace_id, 1));
    assert_eq!(grpc.span_id, next.span_id.to_be_bytes());
    assert!(http.parent_span_id.is_empty() && http.trace_id != grpc.trace_id);
    let text = format!("{spans:?}");
    for said in ["request-1", "Unavailable", "rpc.method", "http.route"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    // 2 is ERROR: only faults of the server are errors of its span.
    let status = |span: &Span| span.status.as_ref().map(|status| status.code);
    assert_eq!((status(grpc), status(http).unwrap_or_default()), (Some(2), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_its_caller_does_not_sample_is_passed_on_and_not_exported() {
    let (address, mut exported) = collector().await;
    let provider = traced_by(&format!("http://{address}"));
    let tracer = provider.tracer("test");
    let headers = parent(&SAMPLED.replace("-01", "-00"));
    let mut span = CallSpan::begin_with(Some(&tracer), &headers);
    let next = span.parent_of_next().unwrap();
    assert_eq!(
        (next.trace_id, next.flags),
        (TraceParent::parse(SAMPLED).unwrap().trace_id, 0)
    );
    span.end(&ended("grpc", &Method::POST, "a.A/Open", None));
    spawn_blocking(move || provider.shutdown())
        .await
        .unwrap()
        .unwrap();
    assert!(exported.try_recv().is_err());
}

#[test]
fn without_a_collector_the_trace_of_the_caller_is_passed_on() {
    let span = CallSpan::begin_with(None, &parent(SAMPLED));
    assert_eq!(span.parent_of_next().unwrap().to_string(), SAMPLED);
    let mut twice = parent(SAMPLED);
    twice.append("traceparent", SAMPLED.parse().unwrap());
    for headers in [HeaderMap::new(), parent("acs_secret"), twice] {
        assert_eq!(CallSpan::begin_with(None, &headers).parent_of_next(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_says_nothing_costs_spans_and_holds_up_nothing() {
    // It accepts connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    for address in [silent.local_addr().unwrap(), closed] {
        let provider = traced_by(&format!("http://{address}"));
        let tracer = provider.tracer("test");
        let calls = Instant::now();
        // More than the queue holds.
        for _ in 0..10_000 {
            let mut span = CallSpan::begin_with(Some(&tracer), &parent(SAMPLED));
            span.end(&ended("grpc", &Method::POST, "a.A/Open", None));
        }
        let (calls, stop) = (calls.elapsed(), Instant::now());
        spawn_blocking(move || drop(Traces(provider))).await.unwrap();
        assert!(calls < Duration::from_secs(5), "{calls:?}");
        assert!(stop.elapsed() < Duration::from_secs(5), "{:?}", stop.elapsed());
    }
}

#[tokio::test]
async fn an_https_collector_is_verified_and_never_gets_plaintext() {
    let directory = tempfile::tempdir().unwrap();
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let pair = own.issue(&Subject::localhost());
    let identity = Identity::from_pem(&pair.certificate, &pair.private_key);
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    let (address, mut exported) = collector_of(server.unwrap()).await;
    let export = |address: SocketAddr, authority: &Authority| {
        let url = format!("https://localhost:{}", address.port());
        let ca = authority.write(directory.path(), "ca.pem");
        let variables = [
            (ENDPOINT[1], url.as_str()),
            (CERTIFICATE[1], ca.to_str().unwrap()),
            (TIMEOUT[1], "2000"),
        ];
        Reporting::new(build(&variables).unwrap().unwrap())
    };
    let good = export(address, &own);
    sdk::SpanExporter::export(&good, Vec::new()).await.unwrap();
    assert!(exported.recv().await.unwrap().is_empty());

    // One warning a minute, and no span.
    let file = Arc::new(tempfile::tempfile().unwrap());
    let lines = tracing_subscriber::fmt().with_writer(file.clone()).finish();
    let logging = tracing::subscriber::set_default(lines);
    let foreign = export(address, &other);
    for _ in 0..3 {
        sdk::SpanExporter::export(&foreign, Vec::new()).await.unwrap_err();
    }
    drop(logging);
    let (mut file, mut text) = (&*file, String::new());
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{text}");
    assert!(warnings[0].contains("UnknownIssuer"), "{text}");
    assert!(exported.try_recv().is_err());

    // A handshake comes first, whatever listens there.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to_plain = export(plain.local_addr().unwrap(), &own);
    let listen = async {
        let (mut stream, _) = plain.accept().await.unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.unwrap();
        // The type of a record of the handshake (RFC 8446, section 5.1).
        assert_eq!(first, [22]);
    };
    let (sent, ()) = tokio::join!(sdk::SpanExporter::export(&to_plain, Vec::new()), listen);
    sent.unwrap_err();
}

/// Records whether an export failed.
#[derive(Debug)]
struct Fails(Mutex<usize>);

impl sdk::SpanExporter for Fails {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        *self.0.lock().unwrap() += 1;
        Err(opentelemetry_sdk::error::OTelSdkError::InternalFailure(
            "down".to_owned(),
        ))
    }
}

#[test]
fn failed_exports_are_counted() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let exporter = Reporting::new(Fails(Mutex::default()));
    ::metrics::with_local_recorder(&recorder, || {
        for _ in 0..3 {
            let export = sdk::SpanExporter::export(&exporter, Vec::new());
            assert!(futures_util::FutureExt::now_or_never(export).unwrap().is_err());
        }
    });
    assert_eq!(*exporter.exporter.0.lock().unwrap(), 3);
    let scrape = recorder.handle().render();
    assert!(
        scrape.contains("accord_trace_export_failures_total 3"),
        "{scrape}"
    );
}

#[tokio::test]
async fn a_variable_that_can_not_be_used_is_named_without_its_value() {
    for variables in [
        &[][..],
        &[(ENDPOINT[1], "  ")],
        &[
            (ENDPOINT[1], "http://127.0.0.1:4317"),
            ("OTEL_SDK_DISABLED", "true"),
        ],
        &[
            (ENDPOINT[0], "http://127.0.0.1:4317"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ],
    ] {
        assert!(build(variables).unwrap().is_none(), "{variables:?}");
    }
    for good in [
        &[(ENDPOINT[0], "http://127.0.0.1:4317")][..],
        &[(ENDPOINT[1], "https://127.0.0.1:4317"), (PROTOCOL[1], "grpc")],
        &[(ENDPOINT[1], "http://127.0.0.1:4317"), (TIMEOUT[0], "500")],
    ] {
        assert!(build(good).unwrap().is_some(), "{good:?}");
    }
    let endpoint = (ENDPOINT[1], "http://127.0.0.1:4317");
    for (wrong, variables) in [
        (ENDPOINT[1], &[(ENDPOINT[1], "u:sup3rs3cret@collector:4317")][..]),
        (
            ENDPOINT[0],
            &[endpoint, (ENDPOINT[0], "http://sup3rs3cret collector")],
        ),
        (PROTOCOL[1], &[endpoint, (PROTOCOL[1], "http/protobuf")]),
        (
            PROTOCOL[0],
            &[endpoint, (PROTOCOL[1], "grpc"), (PROTOCOL[0], "http/json")],
        ),
        (TIMEOUT[1], &[endpoint, (TIMEOUT[1], "10s")]),
        (
            CERTIFICATE[1],
            &[
                (ENDPOINT[1], "https://127.0.0.1:4317"),
                (CERTIFICATE[1], "/sup3rs3cret.pem"),
            ],
        ),
    ] {
        let error = format!("{:#}", build(variables).unwrap_err());
        assert!(error.contains(wrong), "{error}");
        assert!(!error.contains("sup3rs3cret"), "{error}");
    }
}
