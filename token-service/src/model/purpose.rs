//! Purposes of token-service's data keys.

/// MACs of refresh tokens.
pub const REFRESH: &str = "refresh";
/// Sealing of signing keys.
pub const SIGNING_KEY: &str = "signing-key";
