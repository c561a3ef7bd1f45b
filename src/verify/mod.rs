//! Verification of access tokens where they are used: in resource servers, without a question to
//! token-service for each call.
//!
//! [`Checker`] knows the authority's keys and, never more than two seconds late, what was revoked;
//! [`Protect`] puts it in front of an HTTP service. An internal service is protected by this:
//!
//! ```no_run
//! # use accord::verify::{AccessTokenClaims, Checker, Protect, Tenant};
//! # use axum::{Extension, Router, routing::get};
//! # async fn contacts(Extension(_caller): Extension<AccessTokenClaims>) {}
//! # async fn example(workload_token: &str, acme: Tenant) -> Result<Router, Box<dyn std::error::Error>> {
//! let checker = Checker::connect("http://127.0.0.1:50052", workload_token)?;
//! checker.ready().await;
//! let app = Router::new()
//!     .route("/contacts", get(contacts))
//!     .layer(Protect::tenant(checker, acme).require_scope("contacts.read"));
//! # Ok(app)
//! # }
//! ```
//!
//! `docs/RESOURCE_SERVERS.md` says what each refusal means. The parts are of use on their own:
//! [`KeySet`] decides whether a token is genuine, [`Revocations`] whether it was ended before its time.

mod bearer;
mod checker;
mod claims;
mod key_set;
mod layer;
mod poll;
mod revocations;
mod shared;
#[cfg(test)]
mod testing;

pub use checker::{Checker, CheckerBuilder, ConnectError};
pub use claims::{AccessTokenClaims, Expected, Tenant};
pub use key_set::{KeySet, key_id};
pub use layer::{Protect, Protected, TenantOf};
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
