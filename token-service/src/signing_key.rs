//! Not yet written.

/// Signing keys in use.
#[derive(Debug, Default)]
pub struct Signers;
