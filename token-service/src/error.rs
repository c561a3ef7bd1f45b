//! Everything that can go wrong in token-service, and the one table from it to what a caller sees.

use std::time::Duration;

use accord::{
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
    /// There is no such resource, or none that this caller may know of; its kind is named.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request id was used before, with other content or too long ago.
    #[error("the request id was used before")]
    RequestIdReused,
    /// The resource's state does not allow this.
    #[error("the {resource} is {state}")]
    WrongState {
        /// The kind of resource.
        resource: &'static str,
        /// Its state, by the short name of the contract's enum value.
        state: &'static str,
    },
    /// The client changed after the setup was started.
    #[error("the client changed since this setup was started; start a new one")]
    ClientChanged,
    /// Account name and password do not belong to an active Tenant Admin.
    #[error("sign-in failed")]
    SignInFailed,
    /// Too many sign-ins of one account or address are waiting already.
    #[error("too many attempts to sign in; try again later")]
    TooManySignIns {
        /// When the next try may be taken.
        retry_after: Duration,
    },
    /// A one-time link was used, has expired, or never was.
    #[error("the link was used, has expired, or never was")]
    LinkInvalid {
        /// When it was opened, if that is known (RFC 3339).
        opened_time: Option<String>,
    },
    /// A password can't be one, for these reasons.
    #[error("the password can't be used")]
    PasswordRefused(Vec<String>),
    /// The admin session is unknown, ended, idle too long, or another workload's.
    #[error("the admin session is not valid")]
    AdminSessionInvalid,
    /// The admin session was opened for another setup or for none.
    #[error("the admin session was not opened for this setup")]
    AdminSessionMismatch,
    /// The step needs a sign-in within the last five minutes.
    #[error("this needs a sign-in within the last five minutes")]
    SignInTooOld,
    /// The caller is known and may not do this.
    #[error("this caller may not do this")]
    PermissionDenied,
    /// The call needs a credential and brings none.
    #[error("a credential is needed")]
    Unauthenticated,
    /// Client authentication failed, for whatever reason.
    #[error("client authentication failed")]
    InvalidClient,
    /// The code or refresh token is not valid for this client, for whatever reason.
    #[error("the code or refresh token is not valid for this client")]
    InvalidGrant,
    /// A scope is unknown or was not granted.
    #[error("a scope is unknown or was not granted")]
    InvalidScope,
    /// `resource` is not the tenant's Cloud API URL.
    #[error("resource must be the tenant's Cloud API URL, or empty")]
    InvalidTarget,
    /// There is no active grant; the state of one that is not active is named.
    #[error("the tenant has not consented, or its consent is not active")]
    ConsentRequired(Option<&'static str>),
    /// The message names no grant.
    #[error("exactly one grant must be named")]
    UnsupportedGrantType,
    /// A part of the contract that is still to come.
    #[error("{0} is not available yet")]
    NotAvailable(&'static str),
    /// The registry does not answer, or not in time.
    #[error("the registry does not answer")]
    RegistryUnavailable,
    /// Too many attempts to authenticate wait already.
    #[error("too many attempts are under way; try again later")]
    Busy,
    /// More was revoked lately than is kept in memory.
    #[error("more was revoked lately than can be told")]
    TooManyRevocations,
    /// The registry answered with something that the contract does not allow.
    #[error("unexpected answer of the registry: {0}")]
    RegistryAnswer(String),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keyring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A signing key can't be used.
    #[error("a signing key can't be used")]
    Signing,
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
    let plain = |code, reason| Problem::new(code, reason, message.clone());
    match error {
        Error::Invalid(violations) => Problem::invalid_fields(violations),
        Error::NotFound(resource) => Problem::not_found(resource),
        Error::RequestIdReused => plain(Code::AlreadyExists, ErrorReason::RequestIdReused),
        Error::WrongState { resource, state } => plain(Code::FailedPrecondition, ErrorReason::WrongState)
            .metadata("resource", resource)
            .metadata("state", state),
        Error::ClientChanged => plain(Code::FailedPrecondition, ErrorReason::ClientChanged),
        Error::SignInFailed => plain(Code::Unauthenticated, ErrorReason::SignInFailed),
        Error::TooManySignIns { retry_after } => {
            plain(Code::ResourceExhausted, ErrorReason::ResourceExhausted).retry_after(retry_after)
        }
        Error::LinkInvalid { .. } => plain(Code::FailedPrecondition, ErrorReason::LinkInvalid),
        Error::PasswordRefused(_) => plain(Code::InvalidArgument, ErrorReason::InvalidFields),
        Error::AdminSessionInvalid => plain(Code::Unauthenticated, ErrorReason::AdminSessionInvalid),
        Error::AdminSessionMismatch => plain(Code::PermissionDenied, ErrorReason::AdminSessionMismatch),
        Error::SignInTooOld => plain(Code::PermissionDenied, ErrorReason::SignInTooOld),
        Error::PermissionDenied => plain(Code::PermissionDenied, ErrorReason::PermissionDenied),
        Error::Unauthenticated => plain(Code::Unauthenticated, ErrorReason::Unauthenticated),
        Error::InvalidClient => plain(Code::Unauthenticated, ErrorReason::InvalidClient),
        Error::InvalidGrant => plain(Code::FailedPrecondition, ErrorReason::InvalidGrant),
        Error::InvalidScope => plain(Code::InvalidArgument, ErrorReason::InvalidScope),
        Error::InvalidTarget => plain(Code::InvalidArgument, ErrorReason::InvalidTarget),
        Error::ConsentRequired(None) => plain(Code::PermissionDenied, ErrorReason::ConsentRequired),
        Error::ConsentRequired(Some(state)) => {
            plain(Code::PermissionDenied, ErrorReason::ConsentRequired).metadata("state", state)
        }
        Error::UnsupportedGrantType => plain(Code::InvalidArgument, ErrorReason::UnsupportedGrantType),
        Error::NotAvailable(what) => Problem::not_available(what),
        Error::Busy => plain(Code::ResourceExhausted, ErrorReason::ResourceExhausted).retry_after(RETRY_BUSY),
        Error::RegistryUnavailable | Error::TooManyRevocations => Problem::unavailable(),
        Error::RegistryAnswer(_) => Problem::internal(&error),
        Error::Store(error) => error.into(),
        Error::Key(error) => Problem::internal(&error),
        Error::Signing => Problem::internal(&Error::Signing),
    }
}
