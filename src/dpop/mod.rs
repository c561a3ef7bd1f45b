//! Proofs that a client holds a private key (DPoP, RFC 9449): what they are, and how they are checked. token-service checks
//! them where tokens are issued, [`crate::verify`] where tokens are used.
//!
//! Everything here is a plain function of a text and a time, but for [`ReplayCache`], which remembers the proofs of the last
//! minute. Nothing here knows clients, nonces or databases.

mod error;
mod header;
pub(crate) mod jwk;
mod proof;
mod replay;
mod url;

pub use error::ProofError;
pub use header::{DPOP, DPOP_NONCE, from_headers};
pub use jwk::has_small_order;
pub use proof::{Expected, VerifiedProof, access_token_hash, verify};
pub use replay::{FULL_FOR, ReplayCache, ReplayError};

/// The `typ` header of proofs (RFC 9449 §4.2).
pub const PROOF_TYPE: &str = "dpop+jwt";

/// The names of the algorithms that may sign a proof. EdDSA has two (RFC 9864 §2.2).
pub const ALGORITHMS: [&str; 4] = ["ES256", "EdDSA", "Ed25519", "PS256"];

/// The longest proof, in bytes.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;

/// The longest `jti`, in characters.
pub const MAX_JTI_CHARS: usize = 256;

/// How old a proof may be, in seconds (RFC 9449 §11.1).
pub const MAX_AGE_SECS: i64 = 60;

/// How far a client's clock may be ahead, in seconds (RFC 9449 §11.1).
pub const MAX_AHEAD_SECS: i64 = 10;
