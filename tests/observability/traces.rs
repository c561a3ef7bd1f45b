//! Traces through both services.

use std::time::{Duration, Instant};

use accord::{
    random::SystemRandom,
    rpc::context::{CallContext, TraceParent, scope},
    testing,
    text::opaque::{OpaqueToken, TokenKind},
    token::v1::{IntrospectTokenRequest, token_service_client::TokenServiceClient},
};
use accord_cli::call::with_token;

use crate::{
    demo::walk,
    harness::{collector::Collector, services::Services},
};

tests!(
    one_trace_goes_through_both_services,
    a_collector_that_can_not_be_reached_holds_up_nothing,
    no_sampling_exports_nothing_but_what_callers_sample,
);

const INTROSPECT: &str = "accord.token.v1.TokenService/IntrospectToken";
const AUTHENTICATE: &str = "accord.registry.v1.DirectoryService/AuthenticateCaller";

/// Introspects with a token that only the registry knows to be unknown, as part of a trace.
async fn introspect(services: &Services, trace: TraceParent) {
    let nobody = OpaqueToken::generate(TokenKind::Workload, &SystemRandom);
    let channel = with_token(&services.target.token_grpc, nobody.expose()).unwrap();
    let context = CallContext {
        address: None,
        request_id: "request-of-trace".to_owned(),
        deadline: tokio::time::Instant::now() + Duration::from_secs(20),
        trace: Some(trace),
        notes: Default::default(),
    };
    let request = IntrospectTokenRequest {
        tenant_id: services.target.tenant_id.clone(),
        token: "not-a-token".to_owned(),
        ..Default::default()
    };
    let mut tokens = TokenServiceClient::new(channel);
    scope(context, tokens.introspect_token(request))
        .await
        .unwrap_err();
}

fn trace(flags: u8) -> TraceParent {
    TraceParent {
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        span_id: 0x00f0_67aa_0ba9_02b7,
        flags,
    }
}

/// Ends both services, which exports their last spans.
fn stop(services: &mut Services) {
    for process in [&mut services.token, &mut services.registry] {
        process.signal("TERM");
        assert!(process.wait().success());
    }
}

async fn one_trace_goes_through_both_services() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let (collector, url) = Collector::start().await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let mut services = Services::start_with(&registry.url, &token.url, &settings).await;
    introspect(&services, trace(1)).await;
    stop(&mut services);

    let spans = collector.spans();
    let of = |name: &str| {
        let id = trace(1).trace_id.to_be_bytes();
        let found: Vec<_> = spans
            .iter()
            .filter(|exported| exported.span.name == name && exported.span.trace_id == id)
            .collect();
        assert_eq!(found.len(), 1, "{name}: {spans:?}");
        found[0].clone()
    };
    let (token, registry) = (of(INTROSPECT), of(AUTHENTICATE));
    assert_eq!(token.service, "token-service");
    assert_eq!(registry.service, "registry-service");
    assert_eq!(token.span.parent_span_id, trace(1).span_id.to_be_bytes());
    assert_eq!(registry.span.parent_span_id, token.span.span_id);
    for exported in [&token, &registry] {
        assert!(
            format!("{exported:?}").contains("request-of-trace"),
            "{exported:?}"
        );
    }
}

async fn no_sampling_exports_nothing_but_what_callers_sample() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    let (collector, url) = Collector::start().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.as_str()),
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let mut services = Services::start_with(&registry.url, &token.url, &settings).await;
    walk(&services.target).await;
    introspect(&services, trace(0)).await;
    introspect(&services, trace(1)).await;
    stop(&mut services);
    let spans = collector.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    let id = trace(1).trace_id.to_be_bytes();
    assert!(
        spans.iter().all(|exported| exported.span.trace_id == id),
        "{spans:?}"
    );
}

async fn a_collector_that_can_not_be_reached_holds_up_nothing() {
    let (registry, token) = (testing::sqlite(), testing::sqlite());
    // It accepts connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let mut services = Services::start_with(&registry.url, &token.url, &settings).await;
    walk(&services.target).await;
    let began = Instant::now();
    stop(&mut services);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}
