//! Verification of access tokens in resource servers, without a request to token-service for each call.
//!
//! [`Checker`] holds the authority's keys and revocations, which are at most two seconds old. [`Protect`] puts it in
//! front of an HTTP service. This protects an internal service:
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
//! It accepts bound tokens, too. It compares `htu` of a proof with the origin of the tenant's Cloud API, or with
//! [`Protect::base_url`].
//!
//! `docs/RESOURCE_SERVERS.md` explains each rejection. [`KeySet`] and [`Revocations`] can be
//! used without a checker.

pub(crate) mod bearer;
mod checker;
mod claims;
mod connection;
mod key_set;
mod layer;
mod metadata;
mod poll;
mod possession;
mod revocations;
mod shared;
#[cfg(test)]
mod testing;

pub use checker::{Checker, CheckerBuilder, ConnectError};
pub use claims::{AccessTokenClaims, Confirmation, Tenant};
pub use key_set::{KeySet, key_id};
pub use layer::{ClientCertificate, Protect, Protected, TenantOf};
pub use possession::{Presented, Scheme, verify_possession};
pub use revocations::{Applied, LEASE, Revocations};

pub use crate::tls::TlsFiles;

/// The `typ` header of access tokens (RFC 9068 §2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// The `typ` header of receipts of consents.
pub const CONSENT_RECEIPT_TYPE: &str = "consent-receipt+jwt";

/// The longest receipt of a consent that is accepted, in bytes.
pub const MAX_RECEIPT_BYTES: usize = 256 * 1024;

/// The longest access token that is accepted, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The reason for which a token is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a JWT of this profile: wrong type, algorithm, or missing claims.
    #[error("not an access token")]
    Malformed,
    /// No key of the set has the token's `kid`. A newer set may have it.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("wrong signature")]
    Signature,
    /// Issuer, audience or tenant differ from the expected ones.
    #[error("for another tenant or audience")]
    WrongTarget,
    /// The token has expired.
    #[error("expired")]
    Expired,
    /// The token was revoked.
    #[error("revoked")]
    Revoked,
    /// The latest revocations are not known, so every token is rejected.
    #[error("the latest revocations are not known")]
    Stale,
    /// The authority's keys could not be read.
    #[error("no keys to verify with")]
    NoKeys,
    /// A DPoP-bound token came as `Bearer`, or another token as `DPoP` (RFC 9449 §7.1).
    #[error("sent under the scheme of another kind of token")]
    Scheme,
    /// The DPoP proof is missing or wrong (RFC 9449 §4.3). Names the claim, or what else is wrong.
    #[error("sent with a wrong DPoP proof: {0}")]
    Proof(&'static str),
    /// The connection did not present the certificate that the token is bound to (RFC 8705 §3).
    #[error("bound to another certificate")]
    Certificate,
    /// So many proofs came within the last minute that no further one can be remembered.
    #[error("too many DPoP proofs")]
    TooManyProofs,
}

impl VerifyError {
    /// Returns whether the token can't be checked now, but may be a little later.
    pub fn is_temporary(self) -> bool {
        matches!(self, Self::Stale | Self::NoKeys | Self::TooManyProofs)
    }
}
