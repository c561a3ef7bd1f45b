//! The kinds of changes in the feed, as they are stored: the names of the contract's `ChangeKind` in lower case, without
//! the prefix of the type.

/// The end of a kind if the change also raised the resource's `tokens_ended_seq`. A repeated suspension or deactivation raises nothing,
/// and publishes its kind again: of what it ended no token is valid.
pub const TOKENS_ENDED: &str = ".tokens_ended";

/// A tenant.
pub const TENANT: &str = "tenant";
/// A tenant whose access tokens ended.
pub const TENANT_TOKENS_ENDED: &str = "tenant.tokens_ended";
/// A user.
pub const USER: &str = "user";
/// A user whose access tokens ended.
pub const USER_TOKENS_ENDED: &str = "user.tokens_ended";
/// A client or one of its secrets.
pub const CLIENT: &str = "client";
/// A client whose access tokens ended.
pub const CLIENT_TOKENS_ENDED: &str = "client.tokens_ended";
/// A scope.
pub const SCOPE: &str = "scope";
/// An operator or workload.
pub const CALLER: &str = "caller";
