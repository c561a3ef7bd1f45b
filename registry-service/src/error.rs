//! The errors of registry-service. `grpc/status.rs` maps them to statuses.

use accord::{
    clock::UnixMillis,
    keys::KeyError,
    store::{StoreError, audit::Event},
    text::validation::Violations,
};

/// The result of a fallible operation of registry-service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of registry-service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields that break their rules, all of them.
    #[error("invalid fields")]
    Invalid(Violations),
    /// There is no such resource. Holds the kind of resource.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The natural key is taken. Holds the kind of resource.
    #[error("the {0} exists already")]
    AlreadyExists(&'static str),
    /// A live caller has the name.
    #[error("the {resource} {id} has this name already")]
    NameTaken {
        /// The kind of caller.
        resource: &'static str,
        /// Its id.
        id: String,
    },
    /// A certificate name would identify nobody, and stop the next start.
    #[error(
        "--client-ca is not set at registry-service, so that no certificate identifies a caller: set it first"
    )]
    ClientCaMissing,
    /// The request id was used before, with other content or too long ago.
    #[error("the request id was used before with other content, or more than ten minutes ago: use a new one")]
    RequestIdReused,
    /// The resource's state does not allow this.
    #[error("the {resource} is {state}")]
    WrongState {
        /// The kind of resource.
        resource: &'static str,
        /// The state, as the contract's enum names it without its prefix.
        state: String,
    },
    /// The user has no enrolment link that can be released.
    #[error("the user has no open enrolment link")]
    NoOpenEnrolment {
        /// What became of the last one: `USED` or `ENDED`.
        state: &'static str,
    },
    /// A signing key is for RS256, which the profile of a request forbids.
    #[error(
        "a signing key is for RS256, which the FAPI 2.0 Security Profile forbids (§5.4.1): rotate to PS256, ES256 or EdDSA first"
    )]
    UnsuitableSigningKey,
    /// A client follows the profile that forbids RS256, or will. Holds the Client ID.
    #[error(
        "a client follows the FAPI 2.0 Security Profile, or will, which forbids RS256 (§5.4.1): use PS256, ES256 or EdDSA"
    )]
    ProfileForbidsRs256(String),
    /// The resource changed after its etag was read. Holds the kind of resource.
    #[error("the {0} changed since the etag was read")]
    EtagMismatch(&'static str),
    /// The client changed after the request for its amendment was submitted.
    #[error("the client changed since the request was submitted: submit another one")]
    AmendmentOutdated,
    /// The rule of two people requires another person.
    #[error("{what} a second person")]
    SecondOperatorRequired {
        /// What needs or lacks one, with this verb.
        what: &'static str,
        /// The event of the rejection, which the transaction that found it could not commit.
        event: Box<Event>,
    },
    /// The secret was used within the last day.
    #[error("the secret was used within the last day; set force to revoke it anyway")]
    SecretInUse {
        /// When it was last used.
        last_used_at: UnixMillis,
    },
    /// A limit on the number of something is reached.
    #[error("there are {limit} {what} already: revoke one first")]
    TooMany {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Client authentication failed, for whatever reason.
    #[error("client authentication failed")]
    InvalidClient,
    /// A Tenant Admin's sign-in failed, for whatever reason.
    #[error("sign-in failed")]
    SignInFailed,
    /// The credential of a caller is unknown or revoked.
    #[error("unknown caller")]
    UnknownCaller,
    /// A certificate has names of more than one caller.
    #[error("the client certificate has names of more than one workload or operator")]
    AmbiguousCertificate,
    /// A claim or enrolment token is used, expired or unknown, or its release code is missing or wrong.
    #[error("the link was used, has ended or is unknown, or it needs a release code and this is not it")]
    LinkInvalid,
    /// A claim token was used before. Its holder may know when.
    #[error("the link is not valid")]
    LinkOpened {
        /// When it was used.
        claimed_at: UnixMillis,
    },
    /// An enrolment token was used before. Its holder may know when.
    #[error("the link is not valid")]
    EnrolmentUsed {
        /// When it was used.
        used_at: UnixMillis,
    },
    /// The queue for argon2 runs is full.
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
