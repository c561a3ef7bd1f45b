//! The errors that tests expect, at once or within the bound of the caches.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use accord::testing::calls::assert_rejected;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The code and the reason of a rejected call.
pub type Refusal = (Code, &'static str);

pub const INVALID_GRANT: Refusal = (Code::FailedPrecondition, "INVALID_GRANT");
pub const INVALID_CLIENT: Refusal = (Code::Unauthenticated, "INVALID_CLIENT");
pub const CONSENT_REQUIRED: Refusal = (Code::PermissionDenied, "CONSENT_REQUIRED");
pub const NOT_FOUND: Refusal = (Code::NotFound, "NOT_FOUND");
pub const WRONG_STATE: Refusal = (Code::FailedPrecondition, "WRONG_STATE");
pub const SESSION_INVALID: Refusal = (Code::Unauthenticated, "ADMIN_SESSION_INVALID");

/// Asserts code and reason of a rejected call. Returns the metadata.
#[track_caller]
pub fn refused<T>(result: Result<T, Status>, (code, reason): Refusal) -> HashMap<String, String> {
    assert_rejected(result, code, reason)
}

/// Returns whether a call is rejected with this code and reason.
pub fn is_refused<T>(result: &Result<T, Status>, (code, reason): Refusal) -> bool {
    result.as_ref().is_err_and(|status| {
        let info = status.get_details_error_info();
        status.code() == code && info.is_some_and(|info| info.reason == reason)
    })
}

/// How long caches and other replicas may lag behind a change.
pub const BOUND: Duration = Duration::from_secs(1);

/// How long a resource server that checks tokens offline may lag behind a revocation.
pub const OFFLINE_BOUND: Duration = Duration::from_secs(2);

/// Repeats an attempt until it succeeds. The first attempt that begins after [`BOUND`] must succeed.
pub async fn soon(what: &str, attempt: impl AsyncFnMut() -> bool) {
    within(BOUND, what, attempt).await;
}

/// Does the same with another bound.
pub async fn within(bound: Duration, what: &str, mut attempt: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    loop {
        let late = started.elapsed() > bound;
        if attempt().await {
            return;
        }
        assert!(!late, "{what}: not after {bound:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
