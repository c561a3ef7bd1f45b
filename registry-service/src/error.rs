//! Everything that can go wrong in registry-service, and the one table from it to what a caller sees.

use std::time::Duration;

use accord::{
    clock::UnixMillis,
    keys::KeyError,
    rpc::status::{ErrorReason, Problem},
    store::{StoreError, idempotency::IdempotencyError},
    text::validation::Violations,
};
use tonic::{Code, Status};

/// When to try again what found no place in a line.
const RETRY_BUSY: Duration = Duration::from_secs(1);

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields that break their rules, all of them.
    #[error("invalid fields")]
    Invalid(Violations),
    /// There is no such resource; the kind of resource is named.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The natural key is taken; the kind of resource is named.
    #[error("the {0} exists")]
    AlreadyExists(&'static str),
    /// The request id was used before, with other content or too long ago.
    #[error("the request id was used before")]
    RequestIdReused,
    /// The resource's state does not allow this.
    #[error("the {resource} is {state}")]
    WrongState {
        /// The kind of resource.
        resource: &'static str,
        /// Its state, by the name of the contract's enum value.
        state: &'static str,
    },
    /// The resource changed since its etag was read; the kind of resource is named.
    #[error("the {0} changed since the etag was read")]
    EtagMismatch(&'static str),
    /// The secret was used within the last day.
    #[error("the secret is in use")]
    SecretInUse {
        /// When it was last used.
        last_used_at: UnixMillis,
    },
    /// A limit on how many there may be is reached.
    #[error("there are {limit} {what} already")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// Client authentication failed, for whatever reason.
    #[error("client authentication failed")]
    InvalidClient,
    /// A Tenant Admin's sign-in failed, for whatever reason.
    #[error("sign-in failed")]
    SignInFailed,
    /// A bearer token is unknown or revoked.
    #[error("unknown caller")]
    UnknownCaller,
    /// A claim or enrolment token was used, has expired, or never was.
    #[error("the link is not valid")]
    LinkInvalid,
    /// A claim token was used before: whoever holds it may know when.
    #[error("the link is not valid")]
    LinkOpened {
        /// When it was used.
        claimed_at: UnixMillis,
    },
    /// Too many wait for a hash already.
    #[error("too many attempts are under way; try again later")]
    Busy,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A password hash could not be computed or read.
    #[error("password hashing failed")]
    Hashing,
}

impl From<IdempotencyError> for Error {
    fn from(error: IdempotencyError) -> Self {
        match error {
            IdempotencyError::Reused => Self::RequestIdReused,
            IdempotencyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        problem(error).into()
    }
}

fn problem(error: Error) -> Problem {
    let message = error.to_string();
    match error {
        Error::Invalid(violations) => Problem::invalid_fields(violations),
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
                .retry_after(std::time::Duration::from_secs(3600))
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
