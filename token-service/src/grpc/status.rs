//! Maps errors to gRPC statuses, in one table.

use std::time::Duration;

use accord::{
    dpop::FULL_FOR,
    rpc::{auth::ambiguous_certificate, status::Problem},
};
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
    let (message, reason) = (error.to_string(), error.reason());
    let plain = |code| Problem::new(code, reason, message.clone());
    match error {
        Error::Invalid(violations) => Problem::from(violations).with_reason(reason),
        Error::NotFound(resource) => Problem::not_found(resource),
        Error::RequestIdReused => plain(Code::AlreadyExists),
        Error::WrongState { resource, state } => plain(Code::FailedPrecondition)
            .metadata("resource", resource)
            .metadata("state", state),
        Error::ClientChanged => plain(Code::FailedPrecondition),
        Error::SignInFailed => plain(Code::Unauthenticated),
        Error::TooManySignIns(retry_after) | Error::TooManyCalls(retry_after) => {
            plain(Code::ResourceExhausted).retry_after(retry_after)
        }
        Error::LinkInvalid(_) => plain(Code::FailedPrecondition),
        Error::PasswordRejected(_) => plain(Code::InvalidArgument),
        Error::AdminSessionInvalid => plain(Code::Unauthenticated),
        Error::AdminSessionMismatch => plain(Code::PermissionDenied),
        Error::SignInTooOld => plain(Code::PermissionDenied),
        Error::PermissionDenied => plain(Code::PermissionDenied),
        Error::AmbiguousCertificate => ambiguous_certificate(),
        Error::Unauthenticated => plain(Code::Unauthenticated),
        Error::InvalidClient(_) | Error::NoClientAuthentication(_) => plain(Code::Unauthenticated),
        Error::InvalidAssertion { claim, .. } => plain(Code::Unauthenticated).metadata("claim", claim),
        Error::WrongAuthMethod(_) => plain(Code::Unauthenticated),
        Error::UnsuitableSigningKey => plain(Code::FailedPrecondition)
            .metadata("resource", "signing_key")
            .metadata("state", "RS256"),
        Error::ProfileForbidsRs256(client_id) => plain(Code::FailedPrecondition)
            .metadata("resource", "client")
            .metadata("state", "FAPI_2_0")
            .metadata("client_id", client_id),
        Error::InvalidDpopProof(_) => plain(Code::InvalidArgument),
        Error::UseDpopNonce(nonce) => plain(Code::InvalidArgument).metadata("dpop_nonce", nonce),
        Error::NetworkNotAllowed(address) => {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            plain(Code::PermissionDenied).metadata("client_address", address)
        }
        Error::InvalidGrant => plain(Code::FailedPrecondition),
        Error::InvalidScope | Error::ScopeNotRegistered | Error::MalformedScope | Error::OpenIdScope => {
            plain(Code::InvalidArgument)
        }
        Error::InvalidTarget => plain(Code::InvalidArgument),
        Error::ConsentRequired(None) => plain(Code::PermissionDenied),
        Error::ConsentRequired(Some(state)) => plain(Code::PermissionDenied).metadata("state", state),
        Error::UnsupportedGrantType => plain(Code::InvalidArgument),
        Error::KeyNotYetPublished(wait) => plain(Code::FailedPrecondition).retry_after(wait),
        Error::TooManyProofs => plain(Code::ResourceExhausted).retry_after(FULL_FOR),
        Error::Busy => plain(Code::ResourceExhausted).retry_after(RETRY_BUSY),
        // The store, or the client of the registry, has logged why.
        Error::Unavailable
        | Error::RegistryUnavailable
        | Error::RegistryRejectsCredential
        | Error::TooManyRevocations => Problem::unavailable(),
        Error::NotYetSealed => Problem::not_sealed(),
        Error::Internal(error) => Problem::internal(&*error),
        Error::RegistryAnswer(_) | Error::Conflict | Error::Signing => Problem::internal(&error),
    }
}
