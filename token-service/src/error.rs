//! Everything that can go wrong in token-service.

use std::time::Duration;

use accord::{keys::KeyError, text::validation::Violations};

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
    /// The database does not answer, or what a decision rests on keeps changing: trying again may help.
    #[error("unavailable; try again later")]
    Unavailable,
    /// A row with this key exists.
    #[error("a row with this key exists")]
    Conflict,
    /// The keyring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A fault of this program, of its data or of its keys. Its text is for the log alone.
    #[error(transparent)]
    Internal(Box<dyn std::error::Error + Send + Sync>),
    /// A signing key can't be used.
    #[error("a signing key can't be used")]
    Signing,
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}
