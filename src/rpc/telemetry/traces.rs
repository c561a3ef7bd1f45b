//! Traces: one server span for each call, exported by OTLP over gRPC. The standard variables `OTEL_*` configure it; without an
//! endpoint there are no spans, and a caller's `traceparent` is passed on unchanged.
//!
//! A span holds method or route, code and request id. It must hold no path, query, header, token or name of a person. A
//! caller's `tracestate` and baggage are dropped, because they may hold anything.
//!
//! Spans wait in a bounded queue of another thread. A collector that is slow or gone costs spans, and no call waits.

use std::{borrow::Cow, env, fs, sync::OnceLock, time::Duration};

use ::metrics::counter;
use anyhow::{Context as _, bail};
use axum::http::{HeaderMap, Method};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer,
        TracerProvider,
    },
};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self as sdk, SdkTracer, SdkTracerProvider, SpanData},
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use crate::{log_limit::LogLimit, metrics as names, rpc::context::TraceParent};

/// The variables of the collector's address, the more special one first, and of its protocol and CA.
const ENDPOINT: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const PROTOCOL: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
/// How long an export may take, unless a variable says otherwise.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last spans may take at the end of the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the log says that spans can't be exported.
const LOG_PERIOD: Duration = Duration::from_secs(60);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The exporter of this process. Dropping it exports the last spans, within a second.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Drop for Traces {
    fn drop(&mut self) {
        let _ = self.0.shutdown_with_timeout(SHUTDOWN_TIMEOUT);
    }
}

/// Starts the exporter of this process, if the environment names a collector. Must be called inside a tokio runtime.
///
/// # Errors
/// If a variable has a value that can't be used. The error names the variable.
pub(super) fn start(service: &str) -> anyhow::Result<Option<Traces>> {
    let exporter = exporter(|name| env::var(name).ok())?;
    Ok(exporter.map(|exporter| {
        let provider = provider(service, Reporting::new(exporter));
        // The first one stays, as with the log.
        let _ = TRACER.set(provider.tracer("accord"));
        Traces(provider)
    }))
}

/// Sampler, limits and batches come from their variables.
fn provider(service: &str, exporter: impl sdk::SpanExporter + 'static) -> SdkTracerProvider {
    let mut resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").unwrap_or_default().is_empty() {
        resource = resource.with_service_name(service.to_owned());
    }
    SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(exporter)
        .build()
}

/// Returns the exporter that these variables describe; `None` without an endpoint.
fn exporter(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<SpanExporter>> {
    // An empty variable counts as unset.
    let variable = |name: &'static str| {
        let value = variable(name)?.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    };
    let first = |names: [&'static str; 2]| names.into_iter().find_map(variable);
    let is = |name, expected: &str| variable(name).is_some_and(|(_, value)| value == expected);
    let Some((name, endpoint)) = first(ENDPOINT) else {
        return Ok(None);
    };
    if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    if let Some((name, protocol)) = first(PROTOCOL)
        && protocol != "grpc"
    {
        bail!("{name} must be grpc");
    }
    let timeout = match first(TIMEOUT) {
        Some((name, value)) => {
            let millis = value
                .parse()
                .with_context(|| format!("{name} must be milliseconds"))?;
            Duration::from_millis(millis)
        }
        None => EXPORT_TIMEOUT,
    };
    let is_https = endpoint.starts_with("https://");
    if !is_https && !endpoint.starts_with("http://") {
        bail!("{name} must begin with http:// or https://");
    }
    let mut endpoint = Endpoint::from_shared(endpoint)
        .map_err(|_| anyhow::anyhow!("{name} is not a URL"))?
        .connect_timeout(timeout)
        .timeout(timeout);
    if is_https {
        let tls = match first(CERTIFICATE) {
            Some((name, path)) => {
                let pem = fs::read(path).with_context(|| name)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        endpoint = endpoint.tls_config(tls).with_context(|| name)?;
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_lazy())
        .build();
    Ok(Some(exporter.context("the exporter of traces")?))
}

/// Counts and logs failed exports.
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    limit: LogLimit,
}

impl<E> Reporting<E> {
    const fn new(exporter: E) -> Self {
        let limit = LogLimit::new(LOG_PERIOD);
        Self { exporter, limit }
    }
}

impl<E: sdk::SpanExporter> sdk::SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported {
            counter!(names::TRACE_EXPORT_FAILURES).increment(1);
            if self.limit.check("").is_some() {
                tracing::warn!(reason = %error, spans, "spans can't be exported");
            }
        }
        exported
    }

    fn shutdown_with_timeout(&mut self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The server span of a call.
pub(in crate::rpc) struct CallSpan {
    span: Option<sdk::Span>,
    caller: Option<TraceParent>,
}

/// What a span says when its call has ended.
pub(in crate::rpc) struct Ended<'a> {
    pub(in crate::rpc) protocol: &'static str,
    pub(in crate::rpc) method: &'a Method,
    /// One of a fixed set.
    pub(in crate::rpc) route: &'a str,
    pub(in crate::rpc) request_id: &'a str,
    /// The code of a failed call.
    pub(in crate::rpc) code: Option<&'a str>,
}

impl CallSpan {
    /// Begins the span of a call with these headers.
    pub(in crate::rpc) fn begin(headers: &HeaderMap) -> Self {
        Self::begin_with(TRACER.get(), headers)
    }

    fn begin_with(tracer: Option<&SdkTracer>, headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TraceParent::HEADER).iter();
        let value = values.next().filter(|_| values.next().is_none());
        let caller = value.and_then(|value| TraceParent::parse(value.to_str().ok()?));
        let span = tracer.map(|tracer| {
            let parent = caller.map_or_else(Context::new, |caller| {
                Context::new().with_remote_span_context(SpanContext::new(
                    TraceId::from(caller.trace_id),
                    SpanId::from(caller.span_id),
                    TraceFlags::new(caller.flags) & TraceFlags::SAMPLED,
                    true,
                    TraceState::NONE,
                ))
            });
            // The route is known when the call ends.
            let span = SpanBuilder::from_name("call").with_kind(SpanKind::Server);
            tracer.build_with_context(span, &parent)
        });
        Self { span, caller }
    }

    /// Returns the parent of the spans of further calls.
    pub(in crate::rpc) fn parent_of_next(&self) -> Option<TraceParent> {
        let Some(span) = &self.span else {
            return self.caller;
        };
        let span = span.span_context();
        span.is_valid().then(|| TraceParent {
            trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(span.span_id().to_bytes()),
            flags: span.trace_flags().to_u8(),
        })
    }

    /// Ends the span.
    pub(in crate::rpc) fn end(&mut self, ended: &Ended<'_>) {
        let Some(mut span) = self.span.take().filter(sdk::Span::is_recording) else {
            return;
        };
        let mut set = |key, value: Cow<'static, str>| span.set_attribute(KeyValue::new(key, value));
        let route = || Cow::Owned(ended.route.to_owned());
        let name = match ended.protocol {
            "grpc" => {
                let (service, method) = ended.route.split_once('/').unwrap_or(("", ended.route));
                set("rpc.system", "grpc".into());
                set("rpc.service", service.to_owned().into());
                set("rpc.method", method.to_owned().into());
                route()
            }
            _ => {
                let method = known_method(ended.method);
                set("http.request.method", method.into());
                set("http.route", route());
                format!("{method} {}", ended.route).into()
            }
        };
        set("accord.request_id", ended.request_id.to_owned().into());
        if let Some(code) = ended.code {
            set("error.type", code.to_owned().into());
            if is_fault(code) {
                span.set_status(Status::error(""));
            }
        }
        span.update_name(name);
        span.end();
    }
}

/// Returns the name of a method of HTTP. A caller may send any other one.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let known = known.into_iter().find(|known| *known == method.as_str());
    known.unwrap_or("_OTHER")
}

/// Returns whether a code tells of a fault of the server.
fn is_fault(code: &str) -> bool {
    let faults = [
        "Unknown",
        "DeadlineExceeded",
        "Internal",
        "Unavailable",
        "DataLoss",
    ];
    faults.contains(&code) || code.starts_with('5')
}

#[cfg(test)]
#[path = "../tests/traces.rs"]
mod tests;
