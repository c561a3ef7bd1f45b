//! Calls that go on although their caller disconnects, or stops waiting.
//!
//! Whatever costs or decides something is counted, recorded and completed. Otherwise a caller could ask for a change, hang up
//! before its commit, and nobody would learn what was tried. Each of these calls runs in a task of its own, with the context of
//! the call. A call that only reads ends with its caller.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{body::Body, http::Request};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tokio::{
    sync::oneshot,
    time::{error::Elapsed, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Answer, Call, Cutoff, MAX_CALL_TIME, Panicked, Protocol, Routes};
use crate::{
    rpc::{
        context::{self, CallContext},
        status::Problem,
    },
    text::validation,
};

/// The most calls of a service whose callers have gone. A caller that resets its calls does not wait for their end, so the limits
/// of its connection do not bound them.
const MAX_ABANDONED: usize = 4_096;

/// The calls that run in tasks of their own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(in crate::rpc) struct DetachedCalls {
    tasks: TaskTracker,
    /// How many of them have lost their caller.
    abandoned: Arc<AtomicUsize>,
}

impl DetachedCalls {
    /// Calls the routes in a task of its own. The call takes [`MAX_CALL_TIME`] at most, however long its caller waits. A call
    /// whose caller goes before its message was read ends: nothing was decided.
    pub(super) async fn call<P: Protocol>(
        &self,
        call: Call<P>,
        cutoff: Cutoff,
        context: CallContext,
        routes: impl Routes,
        request: Request<Body>,
    ) -> Answer {
        let protocol = call.protocol.clone();
        if self.abandoned.load(Ordering::Relaxed) >= MAX_ABANDONED {
            return protocol.error(Problem::unavailable().into()).into();
        }
        let (unread, request) = watched(request);
        let work = async move { call.answer(routes, request).await };
        let work = AssertUnwindSafe(context::scope(context, validation::scope(work))).catch_unwind();
        let work = timeout(MAX_CALL_TIME, work);
        let (mut caller, answer) = oneshot::channel();
        let abandoned = self.abandoned.clone();
        self.tasks.spawn(async move {
            let mut work = pin!(work);
            let done = tokio::select! {
                biased;
                done = &mut work => done,
                // The caller answers, and counts the call.
                () = cutoff.reached.cancelled() => return caller.closed().await,
                () = caller.closed() => {
                    if Arc::strong_count(&unread) > 1 {
                        return;
                    }
                    abandoned.fetch_add(1, Ordering::Relaxed);
                    tokio::select! {
                        () = async { recorded(work.await).await } => {}
                        () = cutoff.reached.cancelled() => cutoff.count(),
                    }
                    abandoned.fetch_sub(1, Ordering::Relaxed);
                    return;
                }
            };
            if let Err(done) = caller.send(done) {
                recorded(done).await;
            }
        });
        let problem = match answer.await {
            Ok(Ok(Ok(answer))) => return answer,
            Ok(Err(_elapsed)) => Problem::deadline_exceeded(),
            // The panic hook has already logged the panic and its place.
            Ok(Ok(Err(_panic))) => Problem::internal(&Panicked),
            Err(_stopping) => Problem::stopping(),
        };
        protocol.error(problem.into()).into()
    }

    /// Waits until no call runs.
    pub(in crate::rpc) async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Waits for the record of a call that has no caller any more, so that the database is not closed before.
async fn recorded<P>(done: Result<Result<Answer, P>, Elapsed>) {
    if let Ok(Ok(answer)) = done {
        answer.finish().await;
    }
}

/// Returns the request with a mark that is shared until its message was read, or is not needed.
fn watched(request: Request<Body>) -> (Arc<()>, Request<Body>) {
    let unread = Arc::new(());
    let mark = unread.clone();
    let request = request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _unread = &mark;
            frame
        }))
    });
    (unread, request)
}
