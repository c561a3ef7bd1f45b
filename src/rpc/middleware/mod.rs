//! The middleware of gRPC and HTTP: request id, deadline, admission, panics, one log line.
//!
//! It must not read messages. Log lines get the request id from [`crate::rpc::context`], not from a span: a span would
//! cost more than some calls.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
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
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::sensitive_headers::{SetSensitiveRequestHeadersLayer, SetSensitiveResponseHeadersLayer};

use self::{
    address::{Gateways, PeerAddress, PeerKind, limited_address},
    call_record::{CallRecord, HUNG_UP},
    detached_calls::DetachedCalls,
    limits::AddressLimit,
    rejected_calls::{Recording, RejectedCall, RejectedCalls},
};
use crate::{
    rpc::{
        context::{self, CallContext},
        status::{ErrorReason, Problem, reason_name},
        telemetry::{metrics::Calls, traces::CallSpan},
        tls::peer::CallerCertificate,
    },
    text::validation,
};

pub mod address;
mod call_record;
pub mod client_certificate;
pub(in crate::rpc) mod detached_calls;
pub mod limits;
pub(in crate::rpc) mod rejected_calls;

/// The header of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest time of a call, whatever deadline its caller sets.
pub const MAX_CALL_TIME: Duration = Duration::from_secs(30);

/// The route of a call, for the log. What matches no route has none.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Known before the call, as the method of gRPC is.
    Known(Option<&'static str>),
    /// Noted once the router has matched it.
    Noted(Arc<OnceLock<Matched>>),
}

/// A route that the router matched.
#[derive(Debug)]
pub(super) struct Matched {
    /// The pattern of its path.
    pub(super) pattern: String,
    /// The same for the log, with the tenant's id in its place.
    pub(super) logged: String,
}

impl Route {
    /// Returns the route for the log.
    pub(super) fn logged(&self) -> &str {
        let route = match self {
            Self::Known(route) => *route,
            Self::Noted(route) => route.get().map(|matched| matched.logged.as_str()),
        };
        route.unwrap_or("none")
    }

    /// Returns the route as a label of metrics and spans: one of a fixed set, whatever callers send.
    pub(super) fn label(&self) -> &str {
        let route = match self {
            Self::Known(route) => route.map(|path| path.trim_start_matches('/')),
            Self::Noted(route) => route.get().map(|matched| matched.pattern.as_str()),
        };
        route.unwrap_or("unknown")
    }
}

/// The differences between gRPC and HTTP.
pub(super) trait Protocol: Clone + Send + Sync + 'static {
    /// The name of the protocol in metrics and spans.
    const NAME: &'static str;

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

    /// Returns whether the call continues after its caller disconnects or stops waiting: whether it writes.
    fn outlives_caller(&self, request: &Request<Body>) -> bool;

    /// Completes the response of the routes.
    fn finish_response(&self, response: Response<Body>) -> Response<Body> {
        response
    }

    /// Converts a status to a response.
    fn error(&self, status: Status) -> Response<Body>;

    /// Returns the code of a failed call, for the log; `None` if it succeeded.
    fn failure(&self, response: &Response<Body>) -> Option<String>;

    /// Returns the name of a method for the audit record: what callers call, and the label of its route.
    fn method(&self, method: &Method, route: &str) -> String {
        format!("{method} {route}")
    }

    /// Returns why the caller's call was rejected. Returns `None` for a call that succeeded or that the service failed, and
    /// for one whose rejection is no event.
    fn rejection(&self, response: &Response<Body>) -> Option<ErrorReason>;

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

/// Ends the calls that outlast the drain, with a status that clients repeat elsewhere. Counts them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Cutoff {
    reached: CancellationToken,
    calls: Arc<AtomicUsize>,
}

impl Cutoff {
    /// Ends all calls.
    pub(super) fn end_calls(&self) {
        self.reached.cancel();
    }

    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many calls were ended.
    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

/// What every call of a listener passes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) limit: Arc<AddressLimit>,
    pub(super) gateways: Gateways,
    pub(super) cutoff: Cutoff,
    pub(super) detached: DetachedCalls,
    /// `None` without a database.
    pub(super) rejected: Option<RejectedCalls>,
}

#[cfg(test)]
impl Shared {
    /// Limits nothing, knows no gateway, and records nothing.
    pub(super) fn for_test(cutoff: Cutoff) -> Self {
        use crate::{
            rpc::auth::{Authorizer, Permissions},
            testing::{NoCallers, test_clock},
        };

        let authorizer = Authorizer::new(Permissions::new(&[]), Arc::new(NoCallers), test_clock());
        Self {
            limit: Arc::new(AddressLimit::new(0)),
            gateways: Gateways {
                authorizer,
                has_tls: false,
                trusted_hops: 1,
            },
            cutoff,
            detached: DetachedCalls::default(),
            rejected: None,
        }
    }
}

/// Wraps the routes of a protocol in the middleware. The limit per address comes first, before anything is read.
pub(super) fn stack<P: Protocol>(protocol: P, shared: Shared, routes: impl Routes) -> impl Routes {
    // `Debug` hides the values of sensitive headers, and HPACK does not index them (RFC 7541 §6.2.3). Request ids are
    // among them because they never repeat: indexed, they would evict headers that do.
    let request_id = HeaderName::from_static(REQUEST_ID);
    let calls = Calls::new(P::NAME);
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, COOKIE]))
        .layer(SetSensitiveResponseHeadersLayer::new([request_id, SET_COOKIE]))
        .service(service_fn(move |request| {
            // Boxed, because each layer around it would otherwise move all of its state.
            let (shared, calls) = (shared.clone(), calls.clone());
            let call = Box::pin(serve(protocol.clone(), routes.clone(), shared, calls, request));
            call.map(Ok::<_, Infallible>)
        }))
}

async fn serve<P: Protocol>(
    protocol: P,
    routes: impl Routes,
    shared: Shared,
    calls: Calls,
    mut request: Request<Body>,
) -> Response<Body> {
    let Shared {
        limit,
        gateways,
        cutoff,
        detached,
        rejected,
    } = shared;
    let started = Instant::now();
    let request_id = request_id(request.headers());
    let deadline = started + protocol.time_allowed(request.headers()).min(MAX_CALL_TIME);
    let span = CallSpan::begin(request.headers());
    let mut context = CallContext {
        address: None,
        request_id: request_id.clone(),
        deadline,
        trace: span.parent_of_next(),
        notes: context::Notes::default(),
    };
    calls.begin();
    let call = Call {
        method: request.method().clone(),
        route: protocol.route(&mut request),
        protocol,
        rejected,
    };
    let mut record = CallRecord {
        protocol: P::NAME,
        request_id: request_id.clone(),
        method: call.method.clone(),
        route: call.route.clone(),
        caller: String::new(),
        started,
        failure: Some(HUNG_UP.to_owned()),
        calls,
        span,
    };

    let kind = identify_peer(&gateways, &context, &mut request).await;
    let peer = request.extensions().get().map(|PeerAddress(ip)| *ip);
    context.address = gateways.address(kind, peer, request.headers());
    let limited_by = limited_address(kind, context.address, request.headers(), gateways.trusted_hops);

    let work = async move {
        let protocol = call.protocol.clone();
        let answer = async {
            if let Err(problem) = limit.check(limited_by) {
                return protocol.error(problem.into()).into();
            }
            match protocol.admit(&mut request).await {
                Ok(caller) => record.caller = caller,
                Err(response) => return call.recorded(response),
            }
            if protocol.outlives_caller(&request)
                && let Some(context) = context::current()
            {
                return detached
                    .call(call, cutoff.clone(), context, routes, request)
                    .await;
            }
            call.answer(routes, request).await
        };
        let answer = complete(&protocol, answer, deadline, &cutoff).await;
        // Not within the deadline: a slow database would turn a rejection into DEADLINE_EXCEEDED.
        let mut response = answer.finish().await;
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        record.end(protocol.failure(&response));
        response
    };
    context::scope(context, validation::scope(work)).await
}

/// Returns what the other end of the connection is. Puts the caller that its certificate names into the request's extensions.
async fn identify_peer(gateways: &Gateways, context: &CallContext, request: &mut Request<Body>) -> PeerKind {
    let Some(certificate) = request.extensions().get::<CallerCertificate>() else {
        return gateways.without_certificate();
    };
    let identified = gateways.authorizer.identify(certificate, context.deadline);
    let caller = context::scope(context.clone(), identified).await;
    let kind = PeerKind::of(&caller);
    request.extensions_mut().insert(caller);
    kind
}

/// Returns the answer, or the error for one that panics, misses the deadline, or is not there when the drain ends all calls.
async fn complete<P: Protocol>(
    protocol: &P,
    answer: impl Future<Output = Answer>,
    deadline: Instant,
    cutoff: &Cutoff,
) -> Answer {
    let answer = AssertUnwindSafe(timeout_at(deadline, answer)).catch_unwind();
    let answer = tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = cutoff.reached.cancelled() => None,
    };
    let problem = match answer {
        Some(Ok(Ok(answer))) => return answer,
        Some(Ok(Err(_elapsed))) => Problem::deadline_exceeded(),
        // The panic hook has already logged the panic and its place.
        Some(Err(_panic)) => Problem::internal(&Panicked),
        None => {
            cutoff.count();
            Problem::stopping()
        }
    };
    protocol.error(problem.into()).into()
}

/// A response, and the record of the rejection if it is one.
struct Answer {
    response: Response<Body>,
    recording: Recording,
}

impl Answer {
    /// Returns the response once the rejection is recorded, and after half a second in any case.
    async fn finish(self) -> Response<Body> {
        self.recording.finish().await;
        self.response
    }
}

impl From<Response<Body>> for Answer {
    fn from(response: Response<Body>) -> Self {
        Self {
            response,
            recording: Recording::default(),
        }
    }
}

/// A call of the routes.
struct Call<P> {
    protocol: P,
    method: Method,
    route: Route,
    /// Where its rejection is recorded; `None` without a database.
    rejected: Option<RejectedCalls>,
}

impl<P: Protocol> Call<P> {
    /// Calls the routes. Begins to record the call if they reject it.
    async fn answer(&self, routes: impl Routes, request: Request<Body>) -> Answer {
        let Ok(response) = routes.oneshot(request).await;
        self.recorded(self.protocol.finish_response(response))
    }

    /// Begins to record the call if this response rejects it, and [`context`] has noted who made it.
    fn recorded(&self, response: Response<Body>) -> Answer {
        let rejected = self.rejected.as_ref();
        let recording = rejected.and_then(|rejected| Some(rejected.record(self.rejection(&response)?)));
        Answer {
            response,
            recording: recording.unwrap_or_default(),
        }
    }

    fn rejection(&self, response: &Response<Body>) -> Option<RejectedCall> {
        let reason = self.protocol.rejection(response)?;
        Some(RejectedCall {
            caller: context::noted_caller()?,
            method: self.protocol.method(&self.method, self.route.label()),
            reason: reason_name(reason),
        })
    }
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
#[path = "../tests/middleware.rs"]
mod tests;
