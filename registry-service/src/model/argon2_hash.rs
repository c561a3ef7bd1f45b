//! The stored hash of a Client Secret or a password.

/// An argon2id hash. `Debug` leaves the PHC string out.
#[derive(Clone, derive_more::Debug, Eq, PartialEq)]
#[debug("Argon2Hash {{ pepper_version: {pepper_version}, .. }}")]
pub struct Argon2Hash {
    /// The PHC string: algorithm, cost, salt and hash.
    pub phc: String,
    /// The version of the pepper.
    pub pepper_version: i32,
}
