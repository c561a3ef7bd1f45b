//! What every gRPC call passes through: a request id, a deadline, the permission table, a log line.
//!
//! It must not look into messages. Lines of the log get the call's id from [`crate::rpc::context`], not from a
//! span: a span for each call would cost more than some calls do.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use crate::rpc::{
    auth::Authorizer,
    context::{self, CallContext},
    status::{ErrorReason, Problem},
};

/// The metadata key of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest that any call may take, whatever deadline the caller asks for.
pub const MAX_CALL_TIME: Duration = Duration::from_secs(30);

/// A call that took longer is logged although it succeeded.
pub const SLOW: Duration = Duration::from_secs(1);

/// Wraps a server's routes in a [`Gate`].
#[derive(Clone, Debug)]
pub struct GateLayer {
    authorizer: Authorizer,
}

impl GateLayer {
    /// A gate that decides by `authorizer`.
    pub fn new(authorizer: Authorizer) -> Self {
        Self { authorizer }
    }
}

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate {
            inner,
            authorizer: self.authorizer.clone(),
        }
    }
}

/// The middleware itself.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    inner: S,
    authorizer: Authorizer,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let authorizer = self.authorizer.clone();
        Box::pin(async move { Ok(serve(inner, authorizer, request).await) })
    }
}

async fn serve<S>(inner: S, authorizer: Authorizer, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let allowed = grpc_timeout(request.headers()).map_or(MAX_CALL_TIME, |asked| asked.min(MAX_CALL_TIME));
    let context = CallContext {
        request_id: request_id.clone(),
        deadline: started + allowed,
    };
    let deadline = context.deadline;
    let uri = request.uri().clone();

    let work = async {
        let mut caller = String::new();
        let work = admit(inner, authorizer, request, &mut caller);
        let work = tokio::time::timeout_at(deadline, work);
        let mut response = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(status))) => status.into_http(),
            Ok(Err(_elapsed)) => Status::from(Problem::new(
                Code::DeadlineExceeded,
                ErrorReason::DeadlineExceeded,
                "the call's deadline passed",
            ))
            .into_http(),
            // The panic hook has logged where and why.
            Err(_panic) => Status::from(Problem::internal(&Panicked)).into_http(),
        };
        if let Ok(mut value) = HeaderValue::from_str(&request_id) {
            // Each is another one: it must not take the place of what comes again from HPACK's table
            // (RFC 7541 §6.2.3).
            value.set_sensitive(true);
            response.headers_mut().insert(REQUEST_ID, value);
        }
        let code = response
            .headers()
            .get("grpc-status")
            .map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
        let (method, elapsed) = (uri.path(), started.elapsed());
        let elapsed_ms = elapsed.as_millis() as u64;
        if code == Code::Ok && elapsed < SLOW {
            tracing::debug!(method, caller, ?code, elapsed_ms, "served");
        } else {
            tracing::info!(method, caller, ?code, elapsed_ms, "served");
        }
        response
    };
    context::scope(context, work).await
}

/// Lets the call through if its caller may make it; says who that is.
async fn admit<S>(
    mut inner: S,
    authorizer: Authorizer,
    mut request: Request<Body>,
    caller: &mut String,
) -> Result<Response<Body>, Status>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let principal = authorizer
        .authorize(request.uri().path(), request.headers())
        .await?;
    caller.push_str(principal.id());
    request.extensions_mut().insert(principal);
    match inner.call(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

/// The caller's request id if it is well-formed, else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
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

/// The caller's deadline, in the form of the gRPC over HTTP/2 protocol: up to 8 digits and a unit.
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
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::testing::Nobody;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn timeouts_are_read_with_their_units() {
        assert_eq!(
            grpc_timeout(&with("grpc-timeout", "250m")),
            Some(Duration::from_millis(250))
        );
        assert_eq!(
            grpc_timeout(&with("grpc-timeout", "99999999H")),
            Some(Duration::from_secs(359_999_996_400))
        );
        for bad in ["", "m", "123456789m", "-1m", "1x", "é"] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(grpc_timeout(&headers), None, "{bad:?}");
        }
    }

    /// Calls `/a.A/Open` through a gate, with `work` as the method.
    async fn call<F>(headers: HeaderMap, work: impl Fn() -> F + Clone + Send + 'static) -> Response<Body>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let permissions =
            crate::rpc::auth::Permissions::new(&[("/a.A/Open", crate::rpc::auth::Access::Anyone)]);
        let authorizer = Authorizer::new(permissions, std::sync::Arc::new(Nobody));
        let method = tower::service_fn(move |_: Request<Body>| {
            let work = work();
            async move {
                work.await;
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = "/a.A/Open".parse().unwrap();
        *request.headers_mut() = headers;
        GateLayer::new(authorizer)
            .layer(method)
            .call(request)
            .await
            .unwrap()
    }

    fn code(response: &Response<Body>) -> Code {
        let value = response.headers().get("grpc-status");
        value.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_deadline_and_at_ours_without_one() {
        let started = Instant::now();
        let response = call(with("grpc-timeout", "250m"), std::future::pending::<()>).await;
        assert_eq!(code(&response), Code::DeadlineExceeded);
        assert_eq!(started.elapsed(), Duration::from_millis(250));

        let started = Instant::now();
        let response = call(with("grpc-timeout", "9H"), std::future::pending::<()>).await;
        assert_eq!(code(&response), Code::DeadlineExceeded);
        assert_eq!(started.elapsed(), MAX_CALL_TIME);
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_of_one_call() {
        let response = call(HeaderMap::new(), || async { panic!("boom") }).await;
        assert_eq!(code(&response), Code::Internal);
        let message = response.headers().get("grpc-message").unwrap().to_str().unwrap();
        assert!(!message.contains("boom"), "{message}");
    }

    #[tokio::test]
    async fn the_request_id_is_there_for_the_work_and_in_the_answer() {
        let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let inside = seen.clone();
        let response = call(with(REQUEST_ID, "from-outside-1"), move || {
            let inside = inside.clone();
            async move { *inside.lock().unwrap() = context::request_id() }
        })
        .await;
        let answered = response.headers().get(REQUEST_ID).unwrap();
        assert_eq!(answered, "from-outside-1");
        assert!(answered.is_sensitive(), "would fill HPACK's table");
        assert_eq!(*seen.lock().unwrap(), "from-outside-1");
    }

    #[test]
    fn only_a_well_formed_request_id_is_kept() {
        assert_eq!(request_id(&with(REQUEST_ID, "abc-DEF_123")), "abc-DEF_123");
        for bad in ["short", "has space in it", "x\"; drop", &"a".repeat(65)] {
            assert_ne!(request_id(&with(REQUEST_ID, bad)), bad);
        }
    }
}
