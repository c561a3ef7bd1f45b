//! Maps errors to gRPC statuses, in one table.

use std::time::Duration;

use accord::rpc::status::{ErrorReason, Problem};
use tonic::{Code, Status};

use crate::error::Error;

/// When to repeat a call that a full queue rejected.
const RETRY_BUSY: Duration = Duration::from_secs(1);

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        problem(error).into()
    }
}

fn problem(error: Error) -> Problem {
    let message = error.to_string();
    let plain = |code, reason| Problem::new(code, reason, message.clone());
    match error {
        Error::Invalid(violations) => violations.into(),
        Error::NotFound(resource) => Problem::not_found(resource),
        Error::RequestIdReused => plain(Code::AlreadyExists, ErrorReason::RequestIdReused),
        Error::WrongState { resource, state } => plain(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", resource)
            .metadata("state", state),
        Error::ClientChanged => plain(Code::FailedPrecondition, ErrorReason::ClientChanged),
        Error::SignInFailed => plain(Code::Unauthenticated, ErrorReason::SignInFailed),
        Error::TooManySignIns(retry_after) => {
            plain(Code::ResourceExhausted, ErrorReason::ResourceExhausted).retry_after(retry_after)
        }
        Error::LinkInvalid(_) => plain(Code::FailedPrecondition, ErrorReason::LinkInvalid),
        Error::PasswordRefused(_) => plain(Code::InvalidArgument, ErrorReason::InvalidFields),
        Error::AdminSessionInvalid => plain(Code::Unauthenticated, ErrorReason::AdminSessionInvalid),
        Error::AdminSessionMismatch => plain(Code::PermissionDenied, ErrorReason::AdminSessionMismatch),
        Error::SignInTooOld => plain(Code::PermissionDenied, ErrorReason::SignInTooOld),
        Error::PermissionDenied => plain(Code::PermissionDenied, ErrorReason::PermissionDenied),
        Error::Unauthenticated => plain(Code::Unauthenticated, ErrorReason::Unauthenticated),
        Error::InvalidClient(_) => plain(Code::Unauthenticated, ErrorReason::InvalidClient),
        Error::InvalidAssertion { claim, .. } => {
            plain(Code::Unauthenticated, ErrorReason::InvalidClient).metadata("claim", claim)
        }
        Error::InvalidGrant => plain(Code::FailedPrecondition, ErrorReason::InvalidGrant),
        Error::InvalidScope | Error::MalformedScope | Error::OpenIdScope => {
            plain(Code::InvalidArgument, ErrorReason::InvalidScope)
        }
        Error::InvalidTarget => plain(Code::InvalidArgument, ErrorReason::InvalidTarget),
        Error::ConsentRequired(None) => plain(Code::PermissionDenied, ErrorReason::ConsentRequired),
        Error::ConsentRequired(Some(state)) => {
            plain(Code::PermissionDenied, ErrorReason::ConsentRequired).metadata("state", state)
        }
        Error::UnsupportedGrantType => plain(Code::InvalidArgument, ErrorReason::UnsupportedGrantType),
        Error::KeyNotYetPublished(wait) => {
            plain(Code::FailedPrecondition, ErrorReason::KeyNotYetPublished).retry_after(wait)
        }
        Error::Busy => plain(Code::ResourceExhausted, ErrorReason::ResourceExhausted).retry_after(RETRY_BUSY),
        // The store has logged why.
        Error::Unavailable | Error::RegistryUnavailable | Error::TooManyRevocations => Problem::unavailable(),
        Error::Key(error) => Problem::internal(&error),
        Error::Internal(error) => Problem::internal(&*error),
        Error::RegistryAnswer(_) | Error::Conflict | Error::Signing => Problem::internal(&error),
    }
}
