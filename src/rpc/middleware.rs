//! The middleware of both faces: request id, deadline, admission, panics, one log line.
//!
//! It must not look into messages. Log lines get the call's id from [`crate::rpc::context`] and not from a span:
//! a span for each call costs more than some calls do.

use std::{convert::Infallible, future::Future, panic::AssertUnwindSafe, time::Duration};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    http::{
        HeaderMap, HeaderName, HeaderValue, Request, Response,
        header::{AUTHORIZATION, COOKIE, SET_COOKIE},
    },
};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer};

use crate::rpc::{
    context::{self, CallContext},
    status::Problem,
};

/// The header of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest that any call may take, whatever deadline its caller sets.
pub const MAX_CALL_TIME: Duration = Duration::from_secs(30);

/// A call that takes longer is logged although it succeeds.
const SLOW: Duration = Duration::from_secs(1);

/// What differs between gRPC and HTTP.
pub(super) trait Face: Clone + Send + Sync + 'static {
    /// Returns how long the caller waits.
    fn time_allowed(&self, _headers: &HeaderMap) -> Duration {
        MAX_CALL_TIME
    }

    /// Checks that the caller may make this call. Returns the caller's id for the log.
    fn admit(&self, _request: &mut Request<Body>) -> impl Future<Output = Result<String, Status>> + Send {
        async { Ok(String::new()) }
    }

    /// Returns the answer for a status.
    fn error(&self, status: Status) -> Response<Body>;

    /// Returns the code of a failed call, for the log.
    fn failure(&self, response: &Response<Body>) -> Option<String>;

    /// Returns the part of a path that the log may hold.
    fn loggable<'a>(&self, path: &'a str) -> &'a str {
        path
    }
}

/// Wraps the routes of a face.
pub(super) fn stack<F, S, B>(
    face: F,
    routes: S,
) -> impl Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static
where
    F: Face,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    // `Debug` hides sensitive headers, and HPACK does not index them (RFC 7541 §6.2.3): each request id is
    // different, and would evict from the table what comes again.
    let request_id = HeaderName::from_static(REQUEST_ID);
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, COOKIE]))
        .layer(SetSensitiveResponseHeadersLayer::new([request_id, SET_COOKIE]))
        .service(service_fn(move |request: Request<B>| {
            // On the heap: the layers around it would each move all of its state.
            let call = Box::pin(serve(face.clone(), routes.clone(), request.map(Body::new)));
            call.map(Ok)
        }))
}

async fn serve<F, S>(face: F, routes: S, mut request: Request<Body>) -> Response<Body>
where
    F: Face,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Send,
{
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let context = CallContext {
        request_id: request_id.clone(),
        deadline: started + face.time_allowed(request.headers()).min(MAX_CALL_TIME),
    };
    let deadline = context.deadline;
    let (method, uri) = (request.method().clone(), request.uri().clone());

    let call = async {
        let mut caller = String::new();
        let answer = async {
            caller = face.admit(&mut request).await?;
            match routes.oneshot(request).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            }
        };
        let mut response = match AssertUnwindSafe(timeout_at(deadline, answer))
            .catch_unwind()
            .await
        {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(status))) => face.error(status),
            Ok(Err(_elapsed)) => face.error(Problem::deadline_exceeded().into()),
            // The panic hook has logged where it happened.
            Err(_panic) => face.error(Problem::internal(&Panicked).into()),
        };
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let (path, failure) = (face.loggable(uri.path()), face.failure(&response));
        let elapsed = started.elapsed();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if failure.is_none() && elapsed < SLOW {
            tracing::debug!(%method, path, caller, elapsed_ms, "served");
        } else {
            tracing::info!(%method, path, caller, failure, elapsed_ms, "served");
        }
        response
    };
    context::scope(context, call).await
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

/// Returns the caller's request id if it is well-formed, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let well_formed = |id: &&str| {
        (8..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(well_formed)
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

#[cfg(test)]
#[path = "tests/middleware.rs"]
mod tests;
