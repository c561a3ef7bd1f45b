//! The context of a call inside the process: its request id and its deadline.
//!
//! [`crate::rpc::middleware`] sets it for every call, and [`crate::rpc::channel`] reads it for the next hop. It must not
//! hold authority: the principal is in the request's extensions (see [`crate::rpc::auth`]).

use std::future::Future;

use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The request id and deadline of a call.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The `x-request-id` of the call: 8 to 64 characters of `[A-Za-z0-9_-]`.
    pub request_id: String,
    /// The time at which the caller stops waiting.
    pub deadline: Instant,
}

/// Runs `work` in a context.
pub async fn scope<F: Future>(context: CallContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
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
