//! Counts issued tokens and rejected requests.

use std::sync::LazyLock;

use accord::{
    error::v1::ErrorReason,
    metrics::{TOKENS_ISSUED, TOKENS_REJECTED},
    rpc::status::reason_name,
};
use metrics::{Counter, counter};

/// The grant types of RFC 6749 that are supported. All others count as [`UNKNOWN`].
const GRANT_TYPES: [&str; 3] = ["authorization_code", "refresh_token", "client_credentials"];
const UNKNOWN: &str = "unknown";

static ISSUED: LazyLock<[Counter; 3]> =
    LazyLock::new(|| GRANT_TYPES.map(|grant_type| counter!(TOKENS_ISSUED, "grant_type" => grant_type)));

/// Counts a token request: an issued token without a reason, else a rejection.
pub(super) fn count(grant_type: &str, rejected: Option<ErrorReason>) {
    let known = GRANT_TYPES.iter().position(|known| *known == grant_type);
    match (rejected, known) {
        (None, Some(known)) => ISSUED[known].increment(1),
        (None, None) => {}
        (Some(reason), _) => count_rejected(grant_type, reason),
    }
}

/// Counts a request that was rejected before it was a [`Request`](super::Request).
pub fn count_rejected(grant_type: &str, reason: ErrorReason) {
    let known = GRANT_TYPES.into_iter().find(|known| *known == grant_type);
    let grant_type = known.unwrap_or(UNKNOWN);
    counter!(TOKENS_REJECTED, "grant_type" => grant_type, "reason" => reason_name(reason)).increment(1);
}
