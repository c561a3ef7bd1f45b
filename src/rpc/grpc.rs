//! gRPC: routes a service's own methods, health and reflection, and applies permissions, deadlines and statuses.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
    },
    middleware::{self, Next},
};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tonic::{Code, Status, service::RoutesBuilder};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceBuilder;

use crate::rpc::{
    auth::{Authorizer, ConnectionCaller},
    context,
    middleware::{MAX_CALL_TIME, Protocol, Route},
    status::{ErrorReason, Problem, is_rejection, reason_of},
};

/// The largest message that a server reads, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The largest message that health and reflection read, in bytes. Anyone may call them.
const MAX_OPEN_MESSAGE_BYTES: usize = 4 * 1024;

/// The most open streams of health and reflection. Anyone may open one, and leave it open.
pub(super) const MAX_OPEN_STREAMS: usize = 256;
/// How long a rejected caller must wait before it opens a stream.
const RETRY_STREAM: Duration = Duration::from_secs(10);

/// Returns routes of these services, each of which reads messages of at most [`MAX_MESSAGE_BYTES`](crate::rpc::grpc::MAX_MESSAGE_BYTES).
#[macro_export]
macro_rules! grpc_routes {
    ($($server:ident: $api:expr),+ $(,)?) => {{
        let mut routes = tonic::service::RoutesBuilder::default();
        $(routes.add_service($server::new($api).max_decoding_message_size($crate::rpc::grpc::MAX_MESSAGE_BYTES));)+
        routes
    }};
}

/// The health of a server's services. Their first status is NOT_SERVING.
pub(super) struct Health {
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl Health {
    /// Sets the status of every service, and of the whole server (the empty name).
    pub(super) async fn set_serving(&self, serving: bool) {
        let status = match serving {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        };
        for service in self.services.iter().copied().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Ends all streams of `Watch`, after they have told the last status. Otherwise they would last as long as the drain.
    pub(super) async fn end_watches(&self) {
        let mut reporter = self.reporter.clone();
        for service in self.services.iter().copied().chain([""]) {
            reporter.clear_service_status(service).await;
        }
    }
}

/// Adds health and reflection (v1 and v1alpha) to `routes`. `services` holds the full names of the services.
pub(super) async fn router(
    mut routes: RoutesBuilder,
    services: &'static [&'static str],
) -> Result<(Router, Health), tonic_reflection::server::Error> {
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = Health { reporter, services };
    health.set_serving(false).await;
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        let names = services.iter().copied();
        names.fold(builder, |builder, name| builder.with_service_name(name))
    };
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let health_service = health_service.max_decoding_message_size(MAX_OPEN_MESSAGE_BYTES);
    let streams = Arc::new(Semaphore::new(MAX_OPEN_STREAMS));
    let limit = middleware::from_fn_with_state(streams, limit_streams);
    let limited = ServiceBuilder::new().layer(limit);
    routes.add_service(health_service.clone());
    let router = routes.routes().into_axum_router();
    let router = router
        .route_service("/grpc.health.v1.Health/Watch", limited.service(health_service))
        .route_service(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            limited.service(v1.max_decoding_message_size(MAX_OPEN_MESSAGE_BYTES)),
        )
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            limited.service(v1alpha.max_decoding_message_size(MAX_OPEN_MESSAGE_BYTES)),
        );
    Ok((router.with_state(()), health))
}

/// Rejects a stream while [`MAX_OPEN_STREAMS`] are open.
async fn limit_streams(
    State(streams): State<Arc<Semaphore>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let Ok(slot) = streams.try_acquire_owned() else {
        let message = "too many streams of health and reflection are open";
        let problem = Problem::new(Code::ResourceExhausted, ErrorReason::ResourceExhausted, message);
        return Status::from(problem.retry_after(RETRY_STREAM)).into_http();
    };
    // The body holds the slot, because the stream lasts as long as its body.
    next.run(request).await.map(|body| {
        Body::new(body.map_frame(move |mut frame| {
            let _ = &slot;
            if let Some(trailers) = frame.trailers_mut() {
                add_details(trailers);
            }
            frame
        }))
    })
}

/// What the middleware does for gRPC.
#[derive(Clone, Debug)]
pub(super) struct Grpc {
    pub(super) authorizer: Authorizer,
}

impl Protocol for Grpc {
    const NAME: &'static str = "grpc";

    fn time_allowed(&self, headers: &HeaderMap) -> Duration {
        grpc_timeout(headers).unwrap_or(MAX_CALL_TIME)
    }

    async fn admit(&self, request: &mut Request<Body>) -> Result<String, Response<Body>> {
        if let Some(rejection) = rejection(request) {
            return Err(rejection);
        }
        let (path, headers) = (request.uri().path(), request.headers());
        let connection = request.extensions().get::<ConnectionCaller>();
        let principal = self.authorizer.authorize(path, headers, connection).await;
        let principal = principal.map_err(Status::into_http)?;
        let id = principal.id().to_owned();
        request.extensions_mut().insert(principal);
        Ok(id)
    }

    fn outlives_caller(&self, request: &Request<Body>) -> bool {
        self.authorizer
            .permissions()
            .outlives_caller(request.uri().path())
    }

    fn finish_response(&self, mut response: Response<Body>) -> Response<Body> {
        add_details(response.headers_mut());
        response
    }

    fn route(&self, request: &mut Request<Body>) -> Route {
        Route::Known(self.authorizer.permissions().method(request.uri().path()))
    }

    fn error(&self, status: Status) -> Response<Body> {
        status.into_http()
    }

    fn method(&self, _: &Method, route: &str) -> String {
        route.to_owned()
    }

    /// What was noted counts first: introspection answers that a stolen token is not active, so the status does not tell.
    fn rejection(&self, response: &Response<Body>) -> Option<ErrorReason> {
        if let Some(noted) = context::noted_rejection() {
            return Some(noted);
        }
        let code = response.headers().get("grpc-status")?;
        if !is_rejection(Code::from_bytes(code.as_bytes())) {
            return None;
        }
        let status = Status::from_header_map(response.headers())?;
        Some(reason_of(&status).unwrap_or(ErrorReason::Unspecified))
    }

    fn failure(&self, response: &Response<Body>) -> Option<String> {
        let code = response.headers().get("grpc-status");
        let code = code.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
        (code != Code::Ok).then(|| format!("{code:?}"))
    }
}

/// Returns the response to what is no call of gRPC. Its HTTP status tells of the failure too: a client that knows no gRPC
/// takes a 200 for a success.
fn rejection(request: &Request<Body>) -> Option<Response<Body>> {
    let (status, rule) = if request.method() != Method::POST {
        (StatusCode::METHOD_NOT_ALLOWED, "the method must be POST")
    } else if !has_grpc_content_type(request.headers()) {
        let rule = "the content type must be application/grpc";
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, rule)
    } else {
        return None;
    };
    let problem = Problem::new(Code::InvalidArgument, ErrorReason::InvalidFields, rule);
    let mut response = Status::from(problem).into_http();
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("POST"));
    Some(response)
}

/// Returns whether there is one content type, that of gRPC with Protocol Buffers.
fn has_grpc_content_type(headers: &HeaderMap) -> bool {
    let mut content_types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (content_types.next(), content_types.next()) else {
        return false;
    };
    let mut parts = content_type.as_bytes().split(|byte| *byte == b';');
    let media_type = parts.next().unwrap_or_default().trim_ascii();
    let is_media_type = |known: &[u8]| media_type.eq_ignore_ascii_case(known);
    is_media_type(b"application/grpc") || is_media_type(b"application/grpc+proto")
}

/// Adds details to a status that tonic created, which has none. tonic blames the server for a message that can't be
/// read (without a body, cut off, with an unknown flag, or too large). Such a status becomes INVALID_ARGUMENT.
fn add_details(headers: &mut HeaderMap) {
    let Some(status) = Status::from_header_map(headers).filter(|status| status.details().is_empty()) else {
        return;
    };
    // The texts are ours: a caller does not see those of a library.
    let problem = match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Problem::unreadable(&format!(
            "the message is too large: the limit is {MAX_MESSAGE_BYTES} bytes"
        )),
        Code::Internal | Code::Unknown | Code::InvalidArgument => {
            Problem::unreadable("the message is missing, is cut off, or can't be decoded")
        }
        Code::NotFound => Problem::new(Code::NotFound, ErrorReason::NotFound, status.message()),
        Code::Unimplemented => Problem::new(Code::Unimplemented, ErrorReason::NotAvailable, status.message()),
        _ => return,
    };
    let status = Status::from(problem);
    // Only invalid metadata makes this fail, and the status has none.
    let _ = status.add_header(headers);
}

/// Parses `grpc-timeout` (gRPC over HTTP/2): up to 8 digits and a unit.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tonic_types::StatusExt;

    use super::*;
    use crate::{
        rpc::auth::{Access, Permissions},
        testing::{NoCallers, test_clock},
    };

    #[tokio::test]
    async fn what_is_no_grpc_call_is_rejected_by_its_http_status() {
        let permissions = Permissions::new(&[("/a.A/Open", Access::Anyone)]);
        let grpc = Grpc {
            authorizer: Authorizer::new(permissions, Arc::new(NoCallers), test_clock()),
        };
        let admit = async |method: &str, content_types: &[&str]| {
            let mut request = Request::builder().method(method).uri("/a.A/Open");
            for content_type in content_types {
                request = request.header(CONTENT_TYPE, *content_type);
            }
            let admitted = grpc.admit(&mut request.body(Body::empty()).unwrap()).await;
            admitted.map_or_else(
                |response| {
                    let status = Status::from_header_map(response.headers()).unwrap();
                    assert_eq!(reason_of(&status), Some(ErrorReason::InvalidFields));
                    response.status().as_u16()
                },
                |_| 200,
            )
        };
        for good in [
            "application/grpc",
            "application/grpc+proto",
            "Application/gRPC",
            "application/grpc; charset=utf-8",
        ] {
            assert_eq!(admit("POST", &[good]).await, 200, "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/json",
            "application/grpcx",
            "application/grpc+json",
            "application/grpc-web",
            "application/grpc-web-text",
        ] {
            assert_eq!(admit("POST", &[bad]).await, 415, "{bad}");
        }
        assert_eq!(admit("POST", &[]).await, 415);
        assert_eq!(
            admit("POST", &["application/grpc", "application/grpc"]).await,
            415
        );
        for method in ["GET", "HEAD", "PUT", "OPTIONS", "post"] {
            assert_eq!(admit(method, &["application/grpc"]).await, 405, "{method}");
        }
    }

    #[test]
    fn a_message_that_can_not_be_read_is_a_violation_without_a_librarys_words() {
        for library in [
            Status::out_of_range("Error, decoded message length too large: found 9 bytes"),
            Status::internal("Unexpected EOF decoding stream."),
            Status::internal("Missing request message."),
        ] {
            let mut headers = library.clone().into_http::<()>().into_parts().0.headers;
            add_details(&mut headers);
            let status = Status::from_header_map(&headers).unwrap();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(reason_of(&status), Some(ErrorReason::InvalidFields));
            let violations = status.get_details_bad_request().unwrap().field_violations;
            assert_eq!((violations.len(), violations[0].field.as_str()), (1, ""));
            assert!(violations[0].description.starts_with("the message is"));
            assert!(!status.message().contains(library.message()), "{status:?}");
        }
    }

    #[test]
    fn a_timeout_has_digits_and_a_unit() {
        let parse = |value: &[u8]| {
            let value = http::HeaderValue::from_bytes(value).unwrap();
            grpc_timeout(&HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                value,
            )]))
        };
        assert_eq!(parse(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse(b"99999999H"), Some(Duration::from_secs(359_999_996_400)));
        for bad in ["", "m", "123456789m", "-1m", "1x", "é"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
