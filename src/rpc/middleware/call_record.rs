//! The log line, the metrics and the span of a call.

use std::time::Duration;

use axum::http::Method;
use tokio::time::Instant;

use super::Route;
use crate::{
    log_limit::LogLimit,
    rpc::telemetry::{
        metrics::Calls,
        traces::{CallSpan, Ended},
    },
};

/// The failure of a call whose caller did not wait for the response.
pub(super) const HUNG_UP: &str = "the caller hung up";
/// How often the log has a line for a call that is UNAVAILABLE.
const OUTAGE_LOG_PERIOD: Duration = Duration::from_secs(1);
/// A successful call that takes at least this long is logged at level INFO, like a failed one; a faster one at DEBUG.
const SLOW: Duration = Duration::from_secs(1);

/// What is logged and measured of a call. Dropping writes it, so that a call whose caller hangs up is recorded too.
pub(super) struct CallRecord {
    pub(super) protocol: &'static str,
    pub(super) request_id: String,
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) caller: String,
    pub(super) started: Instant,
    pub(super) failure: Option<String>,
    pub(super) calls: Calls,
    pub(super) span: CallSpan,
}

impl CallRecord {
    /// Records a call that got its response.
    pub(super) fn end(mut self, failure: Option<String>) {
        self.failure = failure;
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        let (method, path) = (&self.method, self.route.logged());
        let (caller, failure) = (&self.caller, &self.failure);
        let elapsed = self.started.elapsed();
        let code = failure.as_deref().map(|failure| match failure {
            HUNG_UP => "Cancelled",
            code => code,
        });
        self.calls.end(self.route.label(), elapsed, code);
        self.span.end(&Ended {
            protocol: self.protocol,
            method,
            route: self.route.label(),
            request_id: &self.request_id,
            code,
        });
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if failure.is_none() && elapsed < SLOW || is_repeated(failure.as_deref()) {
            tracing::debug!(%method, path, caller, failure, elapsed_ms, "served");
        } else {
            tracing::info!(%method, path, caller, failure, elapsed_ms, "served");
        }
    }
}

/// Returns whether the log has a line about such a failure of a moment ago. During an outage every call fails, and one
/// line tells as much as thousands.
fn is_repeated(failure: Option<&str>) -> bool {
    static LIMIT: LogLimit = LogLimit::new(OUTAGE_LOG_PERIOD);
    failure.is_some_and(|failure| ["Unavailable", "503"].contains(&failure) && LIMIT.check(failure).is_none())
}
