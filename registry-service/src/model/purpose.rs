//! Purposes of the registry's data keys.

/// Keyed hashes of account names.
pub const ACCOUNT_NAME: &str = "account-name";
/// The pepper of argon2id.
pub const PEPPER: &str = "pepper";
/// Client Secrets that derive from the claim token of a one-time link.
pub const DELIVERY: &str = "delivery";
/// Tags of Client Secrets.
pub const SECRET_TAG: &str = "secret-tag";
