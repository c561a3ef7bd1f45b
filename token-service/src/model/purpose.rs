//! Purposes of token-service's data keys.

/// MACs of authorization requests that nobody has signed in for.
pub const AUTHORIZATION_REQUEST: &str = "authorization-request";
/// MACs of nonces for DPoP proofs.
pub const DPOP_NONCE: &str = "dpop-nonce";
/// MACs of refresh tokens.
pub const REFRESH: &str = "refresh";
/// MACs of verified Client Secrets.
pub const VERIFIED_SECRET: &str = "verified-secret";
/// Sealing of signing keys.
pub const SIGNING_KEY: &str = "signing-key";
