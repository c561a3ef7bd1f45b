//! Why a proof is rejected.

use super::{ALGORITHMS, MAX_PROOF_BYTES, PROOF_TYPE};

/// The rule that a proof breaks. The text says what would be right, and repeats nothing of the proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Several `DPoP` headers, or one with several values (RFC 9449 §4.3 number 1).
    #[error("the request must have one DPoP header, with one JWT in it")]
    Repeated,
    /// Longer than [`MAX_PROOF_BYTES`].
    #[error("the proof must have at most {MAX_PROOF_BYTES} bytes")]
    TooLong,
    /// Not a JWS in compact form whose header and claims are JSON objects (RFC 9449 §4.3 number 2).
    #[error("the proof must be a signed JWT in compact form, with no member twice")]
    Malformed,
    /// Another `typ` (RFC 9449 §4.3 number 4), or none.
    #[error("typ must be {PROOF_TYPE}")]
    Type,
    /// Another `alg` (RFC 9449 §4.3 number 5), or none.
    #[error("alg must be one of {}", ALGORITHMS.join(", "))]
    Algorithm,
    /// Extensions that must be understood (RFC 7515 §4.1.11). None are.
    #[error("crit must be absent")]
    Critical,
    /// The key breaks this rule (RFC 9449 §4.3 numbers 5 and 7).
    #[error("jwk must {0}")]
    Key(&'static str),
    /// The key in the proof does not verify the signature (RFC 9449 §4.3 number 6).
    #[error("the signature must be that of the key in jwk")]
    Signature,
    /// A claim is missing or wrong (RFC 9449 §4.3 numbers 3 and 8 to 12).
    #[error("{claim} must be {rule}")]
    Claim {
        /// The claim.
        claim: &'static str,
        /// What it must be.
        rule: String,
    },
}

impl ProofError {
    /// Returns a short name of the rule, or of the claim, for metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Repeated => "repeated",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Type => "typ",
            Self::Algorithm => "alg",
            Self::Critical => "crit",
            Self::Key(_) => "jwk",
            Self::Signature => "signature",
            Self::Claim { claim, .. } => claim,
        }
    }
}
