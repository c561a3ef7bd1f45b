//! The one table from errors to statuses.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    rpc::status::{ErrorReason, Problem},
};
use tonic::{Code, Status};

use crate::error::Error;

/// When to try again after a full queue.
const RETRY_BUSY: Duration = Duration::from_secs(1);
/// When to try again after a limit.
const RETRY_TOO_MANY: Duration = Duration::from_secs(3600);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        problem(error).into()
    }
}

fn problem(error: Error) -> Problem {
    let message = error.to_string();
    match error {
        Error::Invalid(violations) => violations.into(),
        Error::NotFound(resource) => Problem::not_found(resource),
        Error::AlreadyExists(resource) => {
            Problem::new(Code::AlreadyExists, ErrorReason::AlreadyExists, message)
                .metadata("resource", resource)
        }
        Error::RequestIdReused => Problem::new(Code::AlreadyExists, ErrorReason::RequestIdReused, message),
        Error::WrongState { resource, state } => {
            Problem::new(Code::FailedPrecondition, ErrorReason::WrongState, message)
                .metadata("resource", resource)
                .metadata("state", state)
        }
        Error::EtagMismatch(resource) => {
            Problem::new(Code::Aborted, ErrorReason::EtagMismatch, message).metadata("resource", resource)
        }
        Error::SecretInUse { last_used_at } => Problem::new(
            Code::FailedPrecondition,
            ErrorReason::SecretInUse,
            "the secret was used within the last day; set force to revoke it all the same",
        )
        .metadata("last_use_time", last_used_at.to_timestamp().to_string()),
        Error::TooMany { .. } => {
            Problem::new(Code::ResourceExhausted, ErrorReason::ResourceExhausted, message)
                .retry_after(RETRY_TOO_MANY)
        }
        Error::InvalidClient => Problem::new(Code::Unauthenticated, ErrorReason::InvalidClient, message),
        Error::SignInFailed => Problem::new(Code::Unauthenticated, ErrorReason::SignInFailed, message),
        Error::UnknownCaller => Problem::new(Code::Unauthenticated, ErrorReason::Unauthenticated, message),
        Error::LinkInvalid => Problem::new(Code::FailedPrecondition, ErrorReason::LinkInvalid, message),
        Error::LinkOpened { claimed_at } => {
            Problem::new(Code::FailedPrecondition, ErrorReason::LinkInvalid, message)
                .metadata("claim_time", seconds(claimed_at))
        }
        Error::Busy => Problem::new(Code::ResourceExhausted, ErrorReason::ResourceExhausted, message)
            .retry_after(RETRY_BUSY),
        Error::Store(error) => error.into(),
        Error::Key(error) => Problem::internal(&error),
        Error::Hashing => Problem::internal(&Error::Hashing),
    }
}

/// RFC 3339, in UTC, to the second.
fn seconds(at: UnixMillis) -> String {
    let whole = prost_types::Timestamp {
        seconds: at.as_secs(),
        nanos: 0,
    };
    whole.to_string()
}
