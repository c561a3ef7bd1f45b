//! Verification of access tokens where they are used: in resource servers, without a question to
//! token-service for each call.
//!
//! [`Checker`] knows the authority's keys and, never more than two seconds late, what was revoked. The parts
//! are of use on their own: [`KeySet`] decides whether a token is genuine, [`Revocations`] whether it was
//! ended before its time.

mod checker;
mod claims;
mod key_set;
mod poll;
mod revocations;
#[cfg(test)]
mod testing;

pub use checker::{Checker, CheckerBuilder, ConnectError};
pub use claims::{AccessTokenClaims, Expected, Tenant};
pub use key_set::{KeySet, key_id};
pub use revocations::{Applied, LEASE, Revocations};

/// The `typ` header of access tokens (RFC 9068 §2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// The longest access token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a JWT of this profile: wrong type, algorithm, or missing claims.
    #[error("not an access token")]
    Malformed,
    /// No key of the set has the token's `kid`; a newer set may.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("wrong signature")]
    Signature,
    /// Issuer, audience or tenant are not the ones expected.
    #[error("for another tenant or audience")]
    WrongTarget,
    /// The token has ended.
    #[error("expired")]
    Expired,
    /// The token was ended before its time.
    #[error("revoked")]
    Revoked,
    /// What was revoked lately is not known, so nothing counts.
    #[error("what was revoked lately is not known")]
    Stale,
    /// The authority's keys could not be had.
    #[error("no keys to verify with")]
    NoKeys,
}

impl VerifyError {
    /// Whether nothing is known against the token: it can't be decided now, and may be a little later.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Stale | Self::NoKeys)
    }
}
