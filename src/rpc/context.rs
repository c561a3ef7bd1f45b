//! What a call carries along with it inside the process: its request id and its deadline.
//!
//! [`crate::rpc::middleware`] opens the scope for every call; [`crate::rpc::channel`] reads it at the next hop. It
//! must not carry authority: who calls is in the request's extensions (see [`crate::rpc::auth`]).

use std::future::Future;

use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: CallContext;
}

/// The request id and deadline of the call that is being served.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The `x-request-id` of the call: 8 to 64 characters of `[A-Za-z0-9_-]`.
    pub request_id: String,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// Runs `work` with `context` as the current one.
pub async fn scope<F: Future>(context: CallContext, work: F) -> F::Output {
    CURRENT.scope(context, work).await
}

/// The context of the call being served; `None` outside of a call.
pub fn current() -> Option<CallContext> {
    CURRENT.try_with(Clone::clone).ok()
}

/// The request id of the call being served; empty outside of a call.
pub fn request_id() -> String {
    CURRENT
        .try_with(|context| context.request_id.clone())
        .unwrap_or_default()
}
