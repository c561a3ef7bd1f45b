//! The table that maps errors to statuses.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    rpc::{
        auth::ambiguous_certificate,
        context,
        status::{ErrorReason, Problem},
    },
    store::StoreError,
};
use tonic::{Code, Status};

use crate::error::Error;

/// When to try again if a queue is full.
const RETRY_BUSY: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::SecondOperatorRequired { event, .. } = &error {
            context::note_event((**event).clone());
        }
        problem(error).into()
    }
}

fn problem(error: Error) -> Problem {
    let message = error.to_string();
    let problem = |code, reason| Problem::new(code, reason, message);
    match error {
        Error::Invalid(violations) => violations.into(),
        Error::NotFound(resource) => Problem::not_found(resource),
        Error::AlreadyExists(resource) => {
            problem(Code::AlreadyExists, ErrorReason::AlreadyExists).metadata("resource", resource)
        }
        Error::RequestIdReused => problem(Code::AlreadyExists, ErrorReason::RequestIdReused),
        Error::WrongState { resource, state } => problem(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", resource)
            .metadata("state", state),
        Error::NameTaken { resource, .. } => {
            problem(Code::AlreadyExists, ErrorReason::AlreadyExists).metadata("resource", resource)
        }
        Error::ClientCaMissing => problem(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", "registry")
            .metadata("state", "NO_CLIENT_CA"),
        Error::NoOpenEnrolment { state } => problem(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", "enrolment")
            .metadata("state", state),
        Error::UnsuitableSigningKey => problem(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", "signing_key")
            .metadata("state", "RS256"),
        Error::ProfileForbidsRs256(client_id) => problem(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", "client")
            .metadata("state", "FAPI_2_0")
            .metadata("client_id", client_id),
        Error::EtagMismatch(resource) => {
            problem(Code::Aborted, ErrorReason::EtagMismatch).metadata("resource", resource)
        }
        Error::AmendmentOutdated => {
            problem(Code::Aborted, ErrorReason::EtagMismatch).metadata("resource", "client")
        }
        Error::SecondOperatorRequired { .. } => {
            problem(Code::PermissionDenied, ErrorReason::SecondOperatorRequired)
        }
        Error::SecretInUse { last_used_at } => problem(Code::FailedPrecondition, ErrorReason::SecretInUse)
            .metadata("last_use_time", last_used_at.to_timestamp().to_string()),
        // Waiting does not help.
        Error::TooMany { .. } => problem(Code::ResourceExhausted, ErrorReason::ResourceExhausted),
        Error::InvalidClient => problem(Code::Unauthenticated, ErrorReason::InvalidClient),
        Error::SignInFailed => problem(Code::Unauthenticated, ErrorReason::SignInFailed),
        Error::UnknownCaller => problem(Code::Unauthenticated, ErrorReason::InvalidCaller),
        Error::AmbiguousCertificate => ambiguous_certificate(),
        Error::LinkInvalid => problem(Code::FailedPrecondition, ErrorReason::LinkInvalid),
        Error::LinkOpened { claimed_at } => problem(Code::FailedPrecondition, ErrorReason::LinkInvalid)
            .metadata("claim_time", seconds(claimed_at)),
        Error::EnrolmentUsed { used_at } => {
            problem(Code::FailedPrecondition, ErrorReason::LinkInvalid).metadata("use_time", seconds(used_at))
        }
        Error::Busy => {
            problem(Code::ResourceExhausted, ErrorReason::ResourceExhausted).retry_after(RETRY_BUSY)
        }
        Error::Store(error) => error.into(),
        Error::Key(error) => StoreError::from(error).into(),
        Error::Hashing => Problem::internal(&Error::Hashing),
    }
}

/// Writes a time as RFC 3339, in UTC, to the second.
fn seconds(at: UnixMillis) -> String {
    let whole = prost_types::Timestamp {
        seconds: at.as_secs(),
        nanos: 0,
    };
    whole.to_string()
}
