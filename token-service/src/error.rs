//! The errors of token-service.

use std::{net::IpAddr, time::Duration};

use accord::{error::v1::ErrorReason, text::validation::Violations};
use tokio::task::JoinError;

/// The result of a fallible operation of token-service.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The field of a message that names scopes.
pub const SCOPES: &str = "scopes";
/// The rule of a parameter that comes beside a pushed request, which holds it.
pub const COMES_ALONE: &str = "must be empty with request_uri";

/// An error of token-service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields break their rules; all of them are named.
    #[error("invalid fields")]
    Invalid(Violations),
    /// There is no such resource, or none that this caller may know of; its kind is named.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request id was used before, with other content or too long ago.
    #[error("the request id was used before with other content, or more than ten minutes ago: use a new one")]
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
    /// Too many sign-ins of one account or address are under way; how long to wait before the next try.
    #[error("too many attempts to sign in; try again later")]
    TooManySignIns(Duration),
    /// A one-time link is unknown, used or expired; when it was opened (RFC 3339), if that is known.
    #[error("the link is unknown, used or expired")]
    LinkInvalid(Option<String>),
    /// A password breaks rules, which these texts name.
    #[error("the password can't be used")]
    PasswordRejected(Vec<String>),
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
    /// A client certificate has names of more than one caller.
    #[error("the client certificate has names of more than one workload or operator")]
    AmbiguousCertificate,
    /// The call needs a credential and has none.
    #[error("a credential is needed")]
    Unauthenticated,
    /// Client authentication failed. The reason is for the log alone.
    #[error("client authentication failed")]
    InvalidClient(&'static str),
    /// The request has no credential of a client that can be read. The reason is the request's alone.
    #[error("no client authentication came: {0}")]
    NoClientAuthentication(&'static str),
    /// A client signed an assertion whose claims are wrong. Only that client can learn what is wrong.
    #[error("client authentication failed: {claim} of the assertion {rule}")]
    InvalidAssertion {
        /// The claim.
        claim: &'static str,
        /// What the claim must be, or why it is rejected.
        rule: String,
    },
    /// The proof is right, but the client is registered for another method; the name of that.
    #[error("client authentication failed: this client must authenticate by {0}")]
    WrongAuthMethod(String),
    /// The active signing key is for RS256, which the client's profile forbids.
    #[error(
        "the active signing key is for RS256, which the FAPI 2.0 Security Profile forbids: ask the operator for another one"
    )]
    UnsuitableSigningKey,
    /// A client follows the profile that forbids RS256, or will, so that no key is made for it.
    #[error(
        "client {0} follows the FAPI 2.0 Security Profile, or will, which forbids RS256 (§5.4.1): use PS256, ES256 or EdDSA"
    )]
    ProfileForbidsRs256(String),
    /// The DPoP proof of an authenticated client is missing or rejected; what it must be.
    #[error("the DPoP proof is rejected: {0}")]
    InvalidDpopProof(String),
    /// The DPoP proof has no nonce of this server, or an old one; the nonce for the next proof.
    #[error("the DPoP proof must have the nonce of this answer in its claim nonce")]
    UseDpopNonce(String),
    /// The call of an authenticated client comes from outside of the networks that it, or the grant, is limited to.
    #[error("this client may not call from {}", .0.map_or_else(|| "an unknown address".to_owned(), |address| address.to_string()))]
    NetworkNotAllowed(Option<IpAddr>),
    /// The code or refresh token is not valid for this client, for whatever reason.
    #[error("the code or refresh token is not valid for this client")]
    InvalidGrant,
    /// A scope is unknown or was not granted.
    #[error("a scope is unknown or was not granted")]
    InvalidScope,
    /// A scope is not one of the client's registration.
    #[error("a scope is not registered for this client")]
    ScopeNotRegistered,
    /// A list of scopes is not of the form that RFC 6749 §3.3 demands.
    #[error(
        "scope must be names separated by single spaces, not by commas, without other white space, quotes or backslashes"
    )]
    MalformedScope,
    /// The scope `openid` is requested.
    #[error("openid is not a scope here: this is OAuth 2.0 authorization, not OpenID Connect sign-in")]
    OpenIdScope,
    /// `resource` is not the tenant's Cloud API URL.
    #[error("resource must be the tenant's Cloud API URL, or empty")]
    InvalidTarget,
    /// There is no active grant; the state of one that is not active is named.
    #[error("the tenant has not consented, or its consent is not active")]
    ConsentRequired(Option<&'static str>),
    /// The message names no grant, or an unknown one.
    #[error("the grant type is not supported; use authorization_code, refresh_token or client_credentials")]
    UnsupportedGrantType,
    /// The registry does not answer, or not in time.
    #[error("the registry does not answer")]
    RegistryUnavailable,
    /// The registry does not accept the credential of this service.
    #[error("the registry rejects this service's own credential")]
    RegistryRejectsCredential,
    /// The client calls too often; how long to wait before the next call.
    #[error("this client calls too often; try again later")]
    TooManyCalls(Duration),
    /// No further DPoP proof can be remembered now.
    #[error("too many proofs came within the last minute; try again later")]
    TooManyProofs,
    /// Too many attempts to authenticate are under way.
    #[error("too many attempts are under way; try again later")]
    Busy,
    /// More was revoked lately than memory holds.
    #[error("more was revoked lately than memory holds")]
    TooManyRevocations,
    /// The registry answered with something that the contract does not allow.
    #[error("unexpected answer of the registry: {0}")]
    RegistryAnswer(String),
    /// The event is recorded, and not sealed in the log yet.
    #[error("the event is not sealed yet; try again in a minute")]
    NotYetSealed,
    /// The database does not answer, or what a decision rests on keeps changing: trying again may help.
    #[error("unavailable; try again later")]
    Unavailable,
    /// A row with this key exists.
    #[error("a row with this key exists")]
    Conflict,
    /// A fault of this program, its data or its keys. Only the log may hold its text.
    #[error(transparent)]
    Internal(Box<dyn std::error::Error + Send + Sync>),
    /// The next signing key was not published long enough; how long it must still be.
    #[error("the next key must be published for {} s more before it signs; `force` rotates all the same", .0.as_secs_f64().ceil())]
    KeyNotYetPublished(Duration),
    /// A signing key can't be used.
    #[error("a signing key can't be used")]
    Signing,
}

impl Error {
    /// Returns the reason that callers see and that metrics count.
    pub fn reason(&self) -> ErrorReason {
        match self {
            Self::Invalid(violations) if are_of_scopes(violations) => ErrorReason::InvalidScope,
            Self::Invalid(_) | Self::PasswordRejected(_) => ErrorReason::InvalidFields,
            Self::NotFound(_) => ErrorReason::NotFound,
            Self::RequestIdReused => ErrorReason::RequestIdReused,
            Self::WrongState { .. } => ErrorReason::WrongState,
            Self::ClientChanged => ErrorReason::ClientChanged,
            Self::SignInFailed => ErrorReason::SignInFailed,
            Self::TooManySignIns(_) | Self::TooManyCalls(_) | Self::TooManyProofs | Self::Busy => {
                ErrorReason::ResourceExhausted
            }
            Self::AmbiguousCertificate => ErrorReason::AmbiguousCertificate,
            Self::LinkInvalid(_) => ErrorReason::LinkInvalid,
            Self::AdminSessionInvalid => ErrorReason::AdminSessionInvalid,
            Self::AdminSessionMismatch => ErrorReason::AdminSessionMismatch,
            Self::SignInTooOld => ErrorReason::SignInTooOld,
            Self::PermissionDenied => ErrorReason::PermissionDenied,
            Self::Unauthenticated => ErrorReason::Unauthenticated,
            Self::InvalidClient(_)
            | Self::NoClientAuthentication(_)
            | Self::InvalidAssertion { .. }
            | Self::WrongAuthMethod(_) => ErrorReason::InvalidClient,
            Self::UnsuitableSigningKey | Self::ProfileForbidsRs256(_) => ErrorReason::WrongState,
            Self::InvalidDpopProof(_) => ErrorReason::InvalidDpopProof,
            Self::UseDpopNonce(_) => ErrorReason::UseDpopNonce,
            Self::NetworkNotAllowed(_) => ErrorReason::NetworkNotAllowed,
            Self::InvalidGrant => ErrorReason::InvalidGrant,
            Self::InvalidScope | Self::ScopeNotRegistered | Self::MalformedScope | Self::OpenIdScope => {
                ErrorReason::InvalidScope
            }
            Self::InvalidTarget => ErrorReason::InvalidTarget,
            Self::ConsentRequired(_) => ErrorReason::ConsentRequired,
            Self::UnsupportedGrantType => ErrorReason::UnsupportedGrantType,
            Self::KeyNotYetPublished(_) => ErrorReason::KeyNotYetPublished,
            Self::Unavailable
            | Self::RegistryUnavailable
            | Self::RegistryRejectsCredential
            | Self::TooManyRevocations
            | Self::NotYetSealed => ErrorReason::Unavailable,
            Self::Internal(_) | Self::RegistryAnswer(_) | Self::Conflict | Self::Signing => {
                ErrorReason::Internal
            }
        }
    }
}

/// Returns whether nothing is wrong but the scopes of a request, for which RFC 6749 §5.2 has an error of its own.
fn are_of_scopes(violations: &Violations) -> bool {
    let is_of_scopes = |field: &str| field.split('[').next() == Some(SCOPES);
    let all = violations
        .iter()
        .all(|v| is_of_scopes(&v.field) && v.description != COMES_ALONE);
    all && !violations.is_empty()
}

impl From<JoinError> for Error {
    fn from(error: JoinError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<Violations> for Error {
    fn from(violations: Violations) -> Self {
        Self::Invalid(violations)
    }
}
