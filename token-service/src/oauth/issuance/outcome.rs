//! Counts issued tokens and rejected requests, and notes those that a thief could have sent.

use std::{sync::LazyLock, time::Duration};

use accord::{
    error::v1::ErrorReason,
    log_limit::LogLimit,
    metrics::{CREDENTIALS_REUSED, TOKENS_ISSUED, TOKENS_REJECTED},
    rpc::status::reason_name,
    store::audit::{Event, action},
};
use metrics::{Counter, counter};

use super::Issuance;
use crate::{
    error::Error,
    model::{family::Family, grant::usage::Reuse},
    oauth::note_rejected_client,
};

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

impl Issuance<'_> {
    /// Notes a call from outside of the networks, and one without a right proof, for the audit record: an authenticated client
    /// that calls so may have lost its credential. Other rejections are counted only.
    pub(super) fn note_rejection_event(&self, error: &Error) {
        if !matches!(error, Error::NetworkNotAllowed(_) | Error::InvalidDpopProof(_)) {
            return;
        }
        let event = Event::new(action::TOKEN_REFUSE)
            .tenant(&self.tenant.tenant_id)
            .detail("grant_type", self.request.grant.kind().as_ref());
        let event = match &self.grant_id {
            Some(grant_id) => event.subject(grant_id.as_str()),
            None => event,
        };
        note_rejected_client(&self.client.client_id, error.reason(), event);
    }

    /// Counts a rejection for the usage of the grant, unless it says nothing about the client.
    pub(super) fn count_rejection(&self, error: &Error) {
        let reason = error.reason();
        if matches!(reason, ErrorReason::Unavailable | ErrorReason::Internal) {
            return;
        }
        if let Some(grant_id) = &self.grant_id {
            let store = &self.oauth.store;
            store.count_rejection(&self.tenant.tenant_id, grant_id, reason);
        }
    }
}

/// How often the log has a line for reuse of the same grant.
const REUSE_LOG_PERIOD: Duration = Duration::from_secs(60);

/// Begins the counts of issued tokens and of reuse at zero: an alert compares failures with the former, and sees the first one of
/// the latter.
pub fn begin_counts() {
    for issued in ISSUED.iter() {
        issued.increment(0);
    }
    for reuse in [Reuse::RefreshToken, Reuse::AuthorizationCode] {
        counter!(CREDENTIALS_REUSED, "credential" => credential(reuse)).increment(0);
    }
}

/// Counts a code or refresh token that came a second time, and logs whose it is.
pub(super) fn count_reuse(reuse: Reuse, family: &Family) {
    static LIMIT: LogLimit = LogLimit::new(REUSE_LOG_PERIOD);
    let credential = credential(reuse);
    counter!(CREDENTIALS_REUSED, "credential" => credential).increment(1);
    let (tenant_id, client_id, grant_id) = (&family.tenant_id, &family.client_id, &family.grant_id);
    if let Some(unlogged) = LIMIT.check(grant_id.as_str()) {
        tracing::warn!(
            credential, %tenant_id, %client_id, %grant_id, unlogged,
            "a credential was used a second time, so that its refresh tokens ended"
        );
    }
}

fn credential(reuse: Reuse) -> &'static str {
    match reuse {
        Reuse::RefreshToken => "refresh_token",
        Reuse::AuthorizationCode => "authorization_code",
    }
}
