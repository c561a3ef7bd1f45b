//! The middleware of gRPC and HTTP: request id, deadline, admission, panics, one log line.
//!
//! It must not read messages. Log lines get the request id from [`crate::rpc::context`], not from a span: a span would
//! cost more than some calls.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response,
        header::{AUTHORIZATION, COOKIE, SET_COOKIE},
    },
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer};

use crate::{
    log_limit::LogLimit,
    rpc::{
        context::{self, CallContext},
        status::Problem,
    },
};

/// The header of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest time of a call, whatever deadline its caller sets.
pub const MAX_CALL_TIME: Duration = Duration::from_secs(30);

/// A successful call that takes at least this long is logged at level INFO, like a failed one; a faster one at DEBUG.
const SLOW: Duration = Duration::from_secs(1);

/// The route of a call, for the log. What matches no route has none.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Known before the call, as the method of gRPC is.
    Known(Option<&'static str>),
    /// Noted once the router has matched it.
    Noted(Arc<OnceLock<String>>),
}

impl Route {
    pub(super) fn get(&self) -> &str {
        let route = match self {
            Self::Known(route) => *route,
            Self::Noted(route) => route.get().map(String::as_str),
        };
        route.unwrap_or("none")
    }
}

/// How often the log has a line for a call that is UNAVAILABLE.
const OUTAGE_LOG_PERIOD: Duration = Duration::from_secs(1);

/// The differences between gRPC and HTTP.
pub(super) trait Protocol: Clone + Send + Sync + 'static {
    /// Returns how long the caller waits.
    fn time_allowed(&self, _headers: &HeaderMap) -> Duration {
        MAX_CALL_TIME
    }

    /// Checks that the caller may make this call. Returns the caller's id for the log, or the response that rejects the
    /// call.
    fn admit(
        &self,
        _request: &mut Request<Body>,
    ) -> impl Future<Output = Result<String, Response<Body>>> + Send {
        async { Ok(String::new()) }
    }

    /// Completes the response of the routes.
    fn complete(&self, response: Response<Body>) -> Response<Body> {
        response
    }

    /// Converts a status to a response.
    fn error(&self, status: Status) -> Response<Body>;

    /// Returns the code of a failed call, for the log; `None` if it succeeded.
    fn failure(&self, response: &Response<Body>) -> Option<String>;

    /// Returns where the route of the request will be, for the log. The path itself may hold a secret.
    fn route(&self, request: &mut Request<Body>) -> Route;
}

/// A service that responds to every request.
pub(crate) trait Routes: Clone + Send + 'static
where
    Self: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>,
{
}

impl<S: Clone + Send + 'static> Routes for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
{
}

/// Wraps the routes of a protocol in the middleware.
pub(super) fn stack(protocol: impl Protocol, routes: impl Routes) -> impl Routes {
    // `Debug` hides the values of sensitive headers, and HPACK does not index them (RFC 7541 §6.2.3). Request ids are
    // among them because they never repeat: indexed, they would evict headers that do.
    let request_id = HeaderName::from_static(REQUEST_ID);
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, COOKIE]))
        .layer(SetSensitiveResponseHeadersLayer::new([request_id, SET_COOKIE]))
        .service(service_fn(move |request| {
            // Boxed, because each layer around it would otherwise move all of its state.
            let call = Box::pin(serve(protocol.clone(), routes.clone(), request));
            call.map(Ok::<_, Infallible>)
        }))
}

async fn serve(protocol: impl Protocol, routes: impl Routes, mut request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let deadline = started + protocol.time_allowed(request.headers()).min(MAX_CALL_TIME);
    let context = CallContext {
        request_id: request_id.clone(),
        deadline,
    };
    let mut line = LogLine {
        method: request.method().clone(),
        route: protocol.route(&mut request),
        caller: String::new(),
        started,
        failure: Some("the caller hung up".to_owned()),
    };

    let call = async move {
        let answer = async {
            line.caller = protocol.admit(&mut request).await?;
            let Ok(response) = routes.oneshot(request).await;
            Ok(response)
        };
        let answer = AssertUnwindSafe(timeout_at(deadline, answer)).catch_unwind();
        let mut response = match answer.await {
            Ok(Ok(Ok(response))) => protocol.complete(response),
            Ok(Ok(Err(rejection))) => rejection,
            Ok(Err(_elapsed)) => protocol.error(Problem::deadline_exceeded().into()),
            // The panic hook has already logged the panic and its place.
            Err(_panic) => protocol.error(Problem::internal(&Panicked).into()),
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        line.end(protocol.failure(&response));
        response
    };
    context::scope(context, call).await
}

/// The log line of a call. Dropping writes it, so that a call whose caller hangs up has one too.
struct LogLine {
    method: Method,
    route: Route,
    caller: String,
    started: Instant,
    failure: Option<String>,
}

impl LogLine {
    /// Writes the line of a call that got its response.
    fn end(mut self, failure: Option<String>) {
        self.failure = failure;
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let (method, path) = (&self.method, self.route.get());
        let (caller, failure) = (&self.caller, &self.failure);
        let elapsed = self.started.elapsed();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if failure.is_none() && elapsed < SLOW || is_one_of_many(failure.as_deref()) {
            tracing::debug!(%method, path, caller, failure, elapsed_ms, "served");
        } else {
            tracing::info!(%method, path, caller, failure, elapsed_ms, "served");
        }
    }
}

/// Whether the log has told of such a failure a moment ago. During an outage every call fails, and none of their lines
/// says why.
fn is_one_of_many(failure: Option<&str>) -> bool {
    static LIMIT: LogLimit = LogLimit::new(OUTAGE_LOG_PERIOD);
    failure.is_some_and(|failure| ["Unavailable", "503"].contains(&failure) && LIMIT.check(failure).is_none())
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

/// Returns the caller's request id if it is well-formed, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let well_formed = |id: &&str| {
        let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (8..=64).contains(&id.len()) && id.bytes().all(is_allowed)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    given
        .filter(well_formed)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

#[cfg(test)]
#[path = "tests/middleware.rs"]
mod tests;
