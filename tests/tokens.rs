//! Issuance, renewal, introspection and revocation, rule by rule, through both services.

mod documents;
mod endings;
mod issuance;
mod renewal;

use accord::rpc::status::ErrorReason;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::Code;

use crate::harness::partner::assert_refused;

fn claims(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn header(token: &str) -> serde_json::Value {
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

const INVALID_GRANT: (Code, ErrorReason) = (Code::FailedPrecondition, ErrorReason::InvalidGrant);
const INVALID_CLIENT: (Code, ErrorReason) = (Code::Unauthenticated, ErrorReason::InvalidClient);
const CONSENT_REQUIRED: (Code, ErrorReason) = (Code::PermissionDenied, ErrorReason::ConsentRequired);

#[track_caller]
fn refused<T>(result: Result<T, tonic::Status>, (code, reason): (Code, ErrorReason)) {
    assert_refused(result, code, reason);
}
