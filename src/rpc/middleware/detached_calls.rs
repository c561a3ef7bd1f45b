//! Calls that go on although their caller disconnects, or stops waiting.
//!
//! Whatever costs or decides something is counted, recorded and completed. Otherwise a caller could ask for a change, hang up
//! before its commit, and nobody would learn what was tried. Each of these calls runs in a task of its own, with the context of
//! the call. A call that only reads ends with its caller.

use axum::{
    body::Body,
    http::{Method, Request, Response},
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::{MAX_CALL_TIME, Panicked, Protocol, RejectedCalls, Route, Routes, rejected_call};
use crate::{
    rpc::{
        context::{self, CallContext},
        status::Problem,
    },
    text::validation,
};

/// The most calls of a service that run in tasks of their own. A caller that resets its calls does not wait for their end, so the
/// limits of its connection do not bound them.
const MAX_CALLS: usize = 4_096;

/// The calls that run in tasks of their own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::rpc) struct DetachedCalls(TaskTracker);

/// What a call needs beside its request.
pub(super) struct Detached<P> {
    pub(super) protocol: P,
    pub(super) method: Method,
    pub(super) route: Route,
    /// `None` without a database.
    pub(super) rejected: Option<RejectedCalls>,
}

impl DetachedCalls {
    /// Calls the routes in a task of its own, and records the call if it is rejected. The call takes [`MAX_CALL_TIME`] at most,
    /// however long its caller waits.
    pub(super) async fn call<P: Protocol>(
        &self,
        call: Detached<P>,
        context: CallContext,
        routes: impl Routes,
        request: Request<Body>,
    ) -> Response<Body> {
        let protocol = call.protocol.clone();
        if self.0.len() >= MAX_CALLS {
            return protocol.error(Problem::unavailable().into());
        }
        let work = async move {
            let Ok(response) = routes.oneshot(request).await;
            let response = call.protocol.complete(response);
            if let Some(rejected) = &call.rejected
                && let Some(rejection) = rejected_call(&call.protocol, (&call.method, &call.route), &response)
            {
                rejected.record(rejection).await;
            }
            response
        };
        let work = timeout(MAX_CALL_TIME, context::scope(context, validation::scope(work)));
        match self.0.spawn(work).await {
            Ok(Ok(response)) => response,
            Ok(Err(_elapsed)) => protocol.error(Problem::deadline_exceeded().into()),
            // The panic hook has already logged the panic and its place.
            Err(_panic) => protocol.error(Problem::internal(&Panicked).into()),
        }
    }

    /// Waits until no call runs.
    pub(in crate::rpc) async fn finished(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
