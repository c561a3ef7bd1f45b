//! The client side of a hop between Accord's services. Its calls carry this service's credential, the request id and the
//! rest of the deadline, and are balanced over the replicas of the other service.
//!
//! All calls are unary: a request and its response are held in memory, so that a call can be sent again.

use std::{
    convert::Infallible,
    error::Error,
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use h2::Reason;
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION, request};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use prost::bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, ConnectError, Status, TimeoutExpired, body::Body};
use tower::{Service, ServiceExt};

use self::peers::{PeerCall, Peers};
pub use self::{
    target::{Addresses, Target},
    token::HopToken,
};
use crate::{
    log_limit::LogLimit,
    rpc::{
        context::{self, TraceParent},
        middleware::{MAX_CALL_TIME, REQUEST_ID},
        status::{ErrorReason, Problem, reason_of},
    },
    text::opaque::OpaqueToken,
    tls,
};

mod peers;
mod shared_task;
mod target;
mod token;

/// How long a read waits for one replica while another one serves. Less than a lease of the change feed, so that a
/// replica that hangs ends no lease.
const REPLICA_TIMEOUT: Duration = Duration::from_millis(400);
/// The largest response, in bytes.
const MAX_RESPONSE_BYTES: usize = 5 * 1024 * 1024;
/// How often the log repeats why an address does not answer.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// A channel to another service of Accord. Clones share its connections.
#[derive(Clone, derive_more::Debug)]
#[debug("HopChannel {{ .. }}")]
pub struct HopChannel {
    peers: Arc<Peers>,
    token: Option<HopToken>,
}

/// Opens a channel to one address (`http://host:port`, a loopback host), with a token that stays the same.
///
/// # Errors
/// The rule that the address breaks.
pub fn connect(address: &str, token: &OpaqueToken) -> Result<HopChannel, &'static str> {
    let target = Target::new(Addresses::parse(address)?, None)?;
    Ok(HopChannel::new(target, Some(HopToken::fixed(token))))
}

/// How far an attempt came that got no response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// There was no connection.
    Nothing,
    /// The connection was closing, as in a drain, before it accepted the call (RFC 9113 section 6.8).
    ClosingConnection,
    /// The service may have answered.
    Service,
}

/// Why an attempt got no response.
struct Failure {
    cause: String,
    reached: Reached,
    /// Whether the deadline of the call has passed.
    is_late: bool,
}

/// What the attempts of a call send.
struct Call {
    parts: request::Parts,
    body: Bytes,
    deadline: Instant,
    is_quick: bool,
    may_repeat: bool,
}

impl HopChannel {
    /// Opens a channel. It connects on first use, and again whenever a connection is lost. Without a token, the client
    /// certificate of the target identifies this service.
    pub fn new(target: Target, token: Option<HopToken>) -> Self {
        let peers = Arc::new(Peers::new(target));
        Self { peers, token }
    }

    async fn send(self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let deadline = prepare(request.headers_mut())?;
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let method = parts.uri.path().trim_start_matches('/').to_owned();
        let call = Call {
            parts,
            body,
            deadline,
            is_quick: is_quick(&method),
            may_repeat: may_repeat(&method),
        };
        let answered = timeout_at(deadline, self.attempts(&call)).await;
        answered.unwrap_or_else(|_elapsed| Err(Problem::deadline_exceeded().into()))
    }

    /// Sends a call, and once more if another replica may answer better: after no answer, after UNAVAILABLE, and with the token
    /// read again after UNAUTHENTICATED.
    async fn attempts(&self, call: &Call) -> Result<Response<Body>, Status> {
        let mut failed: Option<PeerCall> = None;
        let mut has_reread = false;
        loop {
            let chosen = self.peers.choose(failed.as_ref().map(|failed| &*failed.0)).await;
            let chosen = chosen.map_err(|cause| {
                log(&cause, "");
                Status::from(Problem::unavailable())
            })?;
            let peer = &chosen.0;
            let authorization = self.token.as_ref().map(HopToken::header);
            let replica_timeout =
                (failed.is_none() && call.is_quick && self.peers.has_other(peer)).then_some(REPLICA_TIMEOUT);
            let is_last = failed.is_some();
            match attempt(&chosen, call, authorization.clone(), replica_timeout).await {
                Ok(response) => {
                    let status = Status::from_header_map(response.headers());
                    let code = status.as_ref().map(Status::code);
                    if let (Some(Code::Unauthenticated), Some(token), Some(rejected)) =
                        (code, &self.token, &authorization)
                        && !has_reread
                        && status.as_ref().and_then(reason_of) == Some(ErrorReason::Unauthenticated)
                        && token.reread(rejected)
                    {
                        has_reread = true;
                        continue;
                    }
                    let is_down = code == Some(Code::Unavailable);
                    if !is_down || is_last || !call.may_repeat || !self.peers.has_other(peer) {
                        return Ok(response);
                    }
                    // The replica may have lost its database.
                    let address = peer.resolved.address.to_string();
                    log("it answered UNAVAILABLE", &address);
                    self.peers.eject(peer);
                }
                // The caller's own timer ends in the same moment, and knows the right answer.
                Err(failure) if failure.is_late => std::future::pending().await,
                Err(failure) => {
                    log(&failure.cause, &peer.resolved.address.to_string());
                    let is_useful = match failure.reached {
                        // An address that refuses connections will do so again.
                        Reached::Nothing => self.peers.has_other(peer),
                        Reached::ClosingConnection => true,
                        Reached::Service => call.may_repeat,
                    };
                    self.peers.eject(peer);
                    if is_last || !is_useful {
                        return Err(Problem::unavailable().into());
                    }
                }
            }
            failed = Some(chosen);
        }
    }
}

async fn attempt(
    chosen: &PeerCall,
    call: &Call,
    authorization: Option<HeaderValue>,
    replica_timeout: Option<Duration>,
) -> Result<Response<Body>, Failure> {
    let mut parts = call.parts.clone();
    if let Some(authorization) = authorization {
        parts.headers.insert(AUTHORIZATION, authorization);
    }
    let left = call.deadline.saturating_duration_since(Instant::now());
    if let Ok(left) = HeaderValue::from_str(&format!("{}u", left.as_micros().min(99_999_999))) {
        parts.headers.insert("grpc-timeout", left);
    }
    let body = Body::new(Full::new(call.body.clone()));
    let channel = chosen.0.channel.clone();
    let answer = async {
        let response = channel.oneshot(Request::from_parts(parts, body)).await;
        let response = response.map_err(|error| Failure {
            reached: reached(&error),
            is_late: source::<TimeoutExpired>(&error).is_some(),
            cause: tls::cause(&error),
        })?;
        let (parts, body) = response.into_parts();
        match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
            Ok(body) => Ok(Response::from_parts(parts, Body::new(body))),
            // It is no fault of the replica: the others would answer the same.
            Err(error) if error.is::<LengthLimitError>() => {
                Ok(Status::out_of_range("the answer is too large").into_http())
            }
            Err(error) => Err(Failure {
                cause: format!("the answer broke off: {}", tls::cause(&*error)),
                reached: Reached::Service,
                is_late: false,
            }),
        }
    };
    match replica_timeout {
        None => answer.await,
        Some(replica_timeout) => timeout(replica_timeout, answer).await.unwrap_or_else(|_elapsed| {
            Err(Failure {
                cause: "it did not answer in time".to_owned(),
                reached: Reached::Service,
                is_late: false,
            })
        }),
    }
}

impl Service<Request<Body>> for HopChannel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sending = self.clone().send(request);
        Box::pin(async { Ok(sending.await.unwrap_or_else(Status::into_http)) })
    }
}

/// Adds the request id and the trace of the current call. Returns the deadline of the next one.
fn prepare(headers: &mut HeaderMap) -> Result<Instant, Status> {
    let Some(current) = context::current() else {
        return Ok(Instant::now() + time_for_next_hop(MAX_CALL_TIME));
    };
    if let Ok(id) = current.request_id.parse() {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(parent) = current.trace.and_then(|parent| parent.to_string().parse().ok()) {
        headers.insert(TraceParent::HEADER, parent);
    }
    let left = current.deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(Problem::deadline_exceeded().into()),
        false => Ok(Instant::now() + time_for_next_hop(left)),
    }
}

/// Returns nine tenths of the remaining time for the next hop, so that its response, or its deadline error, arrives
/// while this caller still waits.
fn time_for_next_hop(left: Duration) -> Duration {
    left.mul_f64(0.9)
}

/// Returns whether a method, as `package.Service/Method`, takes little time and may be called twice.
fn is_quick(method: &str) -> bool {
    let Some(method) = method.strip_prefix("accord.registry.v1.DirectoryService/") else {
        return false;
    };
    matches!(
        method,
        "AuthenticateCaller"
            | "GetClientProfile"
            | "GetProfiles"
            | "GetTenantProfile"
            | "ListChanges"
            | "ReportSigningAlgorithms"
            | "ResolveUser"
    )
}

/// Returns whether a call of a method may be sent again after it may have taken effect. A method that is not named here is
/// sent once; `AuthenticateTenantAdmin` is not, because a sign-in would count twice. The two methods for one-time links are
/// called with a request id.
fn may_repeat(method: &str) -> bool {
    is_quick(method)
        || matches!(
            method,
            "accord.registry.v1.DirectoryService/AuthenticateClient"
                | "accord.registry.v1.DirectoryService/ListOperatorActions"
                | "accord.registry.v1.DirectoryService/ReportSecretUse"
                | "accord.registry.v1.ProvisioningService/ClaimDelivery"
                | "accord.registry.v1.UserService/CompleteEnrolment"
        )
}

/// Returns how far a call came that ended with this error.
fn reached(error: &(dyn Error + 'static)) -> Reached {
    let is_refused = |error: &h2::Error| {
        let is_closing = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        is_closing || error.reason() == Some(Reason::REFUSED_STREAM)
    };
    if source::<ConnectError>(error).is_some() {
        Reached::Nothing
    } else if source(error).is_some_and(hyper::Error::is_canceled) || source(error).is_some_and(is_refused) {
        Reached::ClosingConnection
    } else {
        Reached::Service
    }
}

/// Returns the error of this type that caused another one.
fn source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    iter::successors(Some(error), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

/// Logs why an address does not answer, now and then.
fn log(cause: &str, address: &str) {
    static LIMIT: LogLimit = LogLimit::new(LOG_PERIOD);
    if let Some(unlogged) = LIMIT.check(&format!("{address} {cause}")) {
        tracing::warn!(address, cause, unlogged, "no answer from the registry");
    }
}

#[cfg(test)]
#[path = "../tests/channel.rs"]
mod tests;
