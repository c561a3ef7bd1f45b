//! Everything that can go wrong in registry-service. `grpc/status.rs` says what a caller sees of it.

use accord::{clock::UnixMillis, keys::KeyError, store::StoreError, text::validation::Violations};

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
    Store(StoreError),
    /// The keyring.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A password hash could not be computed or read.
    #[error("password hashing failed")]
    Hashing,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::RequestIdReused => Self::RequestIdReused,
            error => Self::Store(error),
        }
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}
