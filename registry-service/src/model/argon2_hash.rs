//! The stored hash of a Client Secret or a password.

use std::fmt;

/// An argon2id hash. `Debug` leaves the PHC string out.
#[derive(Clone, PartialEq, Eq)]
pub struct Argon2Hash {
    /// The PHC string: algorithm, cost, salt and hash.
    pub phc: String,
    /// The version of the pepper.
    pub pepper_version: i32,
}

impl fmt::Debug for Argon2Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argon2Hash")
            .field("pepper_version", &self.pepper_version)
            .finish_non_exhaustive()
    }
}
