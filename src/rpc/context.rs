//! The context of a call inside the process: its request id, its deadline, its trace, and the address of its caller.
//!
//! [`crate::rpc::middleware`] sets it for every call, and [`crate::rpc::channel`] reads it for the next hop. It must not
//! hold authority: the principal is in the request's extensions (see [`crate::rpc::auth`]).

use std::{fmt, future::Future, sync::OnceLock};

use tokio::{task::JoinError, time::Instant};
use tracing::Instrument;

use crate::{
    error::v1::ErrorReason,
    store::audit::{Actor, CallerAddress, Event, Origin},
};

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The request id, the deadline and the trace of a call, and the address of its caller.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The address of the caller, for the record; `None` if the transport has none.
    pub address: Option<CallerAddress>,
    /// The `x-request-id` of the call: 8 to 64 characters of `[A-Za-z0-9_-]`.
    pub request_id: String,
    /// The time at which the caller stops waiting.
    pub deadline: Instant,
    /// The parent of the spans of further calls; `None` without a trace.
    pub trace: Option<TraceParent>,
    /// What the audit record says of the call if it is rejected.
    pub notes: Notes,
}

/// What the handling of a call notes for the audit record, in case that the call is rejected. Empty for most calls.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    caller: OnceLock<Box<Origin>>,
    reason: OnceLock<ErrorReason>,
    event: OnceLock<Box<Event>>,
}

/// Who made a call, and the event of its rejection, if that is another one than usual.
#[derive(Debug)]
pub(super) struct NotedCaller {
    pub(super) origin: Origin,
    pub(super) event: Option<Box<Event>>,
}

/// A span that is the parent of others, in this process or another (W3C Trace Context, version 00).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The id of the trace, not zero.
    pub trace_id: u128,
    /// The id of the span, not zero.
    pub span_id: u64,
    /// The flags. Bit 0 says that the trace is sampled.
    pub flags: u8,
}

impl TraceParent {
    /// The name of its header.
    pub const HEADER: &'static str = "traceparent";

    /// Parses the value of the header (§3.2.2). Ignores what a version above 00 adds at the end. Returns `None` for a
    /// malformed value.
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = value.splitn(5, '-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let is_lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            part.bytes().all(is_lower_hex).then_some(part)
        };
        let version = number(2)?;
        let trace_id = u128::from_str_radix(number(32)?, 16).ok()?;
        let span_id = u64::from_str_radix(number(16)?, 16).ok()?;
        let flags = u8::from_str_radix(number(2)?, 16).ok()?;
        let is_valid = version != "ff" && trace_id != 0 && span_id != 0;
        (is_valid && (version != "00" || parts.next().is_none())).then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            flags,
        } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// Runs `work` in a context.
pub fn scope<F: Future>(context: CallContext, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, work)
}

/// Runs `work` in its own task, so that it completes although the caller goes away.
pub async fn run_to_completion<T: Send + 'static, E: From<JoinError> + Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    tokio::spawn(work.in_current_span()).await?
}

/// Returns the context of the current call; `None` outside of a call.
pub fn current() -> Option<CallContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Returns the request id of the current call; empty outside of a call.
pub fn request_id() -> String {
    let request_id = CURRENT.try_with(|context| context.request_id.clone());
    request_id.unwrap_or_default()
}

/// Returns the address of the current call's caller; `None` outside of a call.
pub fn address() -> Option<CallerAddress> {
    CURRENT.try_with(|context| context.address).ok().flatten()
}

/// Notes who makes this call: an operator, a Tenant Admin, or an anonymous caller whose credential is not accepted. `certificate`
/// holds the names of the certificate that the caller showed. A rejection of the call is recorded as theirs. The first one
/// counts.
pub fn note_caller(actor: Actor, certificate: Option<String>) {
    note_origin(Origin {
        actor,
        certificate,
        session: None,
        address: address(),
        request_id: request_id(),
    });
}

/// Like [`note_caller`], with an origin that exists already.
pub fn note_origin(origin: Origin) {
    let _ = CURRENT.try_with(|context| context.notes.caller.set(Box::new(origin)));
}

/// Notes why this call is rejected, where its response does not say that. The first reason counts.
pub fn note_rejection(reason: ErrorReason) {
    let _ = CURRENT.try_with(|context| context.notes.reason.set(reason));
}

/// Notes the event of the rejection of this call, which tells more than the method and the reason.
pub fn note_event(event: Event) {
    let _ = CURRENT.try_with(|context| context.notes.event.set(Box::new(event)));
}

/// Returns the reason that was noted.
pub(super) fn noted_rejection() -> Option<ErrorReason> {
    let reason = CURRENT.try_with(|context| context.notes.reason.get().copied());
    reason.ok().flatten()
}

/// Returns the caller that was noted, with the event.
pub(super) fn noted_caller() -> Option<NotedCaller> {
    let noted = CURRENT.try_with(|context| {
        Some(NotedCaller {
            origin: (**context.notes.caller.get()?).clone(),
            event: context.notes.event.get().cloned(),
        })
    });
    noted.ok().flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_completes_although_its_caller_goes_away() {
        let ((resume, resumed), (finish, finished)) = (oneshot::channel(), oneshot::channel());
        let mut call = Box::pin(run_to_completion(async move {
            resumed.await.unwrap();
            finish.send(()).unwrap();
            Ok::<_, JoinError>(())
        }));
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        resume.send(()).unwrap();
        finished.await.unwrap();
    }

    #[test]
    fn a_trace_parent_is_parsed_as_the_w3c_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(good);
        assert_eq!(parsed.map(|parent| parent.to_string()), Some(good.to_owned()));
        let later = format!("01{}-more", &good[2..]);
        assert_eq!(TraceParent::parse(&later), parsed);
        for bad in [
            String::new(),
            good.to_uppercase(),
            format!("{good}-more"),
            format!("ff{}", &good[2..]),
            format!("0{good}"),
            good.replace('-', "_"),
            good[..good.len() - 1].to_owned(),
            good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            good.replace("00f0", "+0f0"),
            good.replace("00f0", "\u{e9}f0"),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }
}
