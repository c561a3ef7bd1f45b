//! Changes of a feed: the registry's, or that of this service's own database.

use accord::{
    position::Position,
    text::id::{ClientId, GrantId, TenantId, UserId},
};

use super::revocation::Revocation;

/// A change: what has to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A client, or one of its secrets.
    Client(ClientId),
    /// A tenant.
    Tenant(TenantId),
    /// A tenant's user.
    User(TenantId, UserId),
    /// A scope of the catalogue, and with it the clients that have it.
    Scope,
    /// An operator or workload, by its id.
    Caller(String),
    /// A grant.
    Grant(GrantId),
    /// The signing keys.
    SigningKeys,
    /// Tokens that have ended.
    Revocation(Revocation),
    /// Tokens that have ended, of a kind that this version does not know.
    UnknownRevocation,
    /// A kind of change that this version does not know. It may affect anything.
    Unknown,
}

/// What changed after a position.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The changes, in commit order.
    pub changes: Vec<Change>,
    /// The position up to which this is complete.
    pub position: Position,
    /// The position before the first revocation that may still matter, in an answer without changes.
    pub recent_seq: i64,
    /// Whether the reader has to forget everything.
    pub reset: bool,
    /// Whether more changes wait after the position.
    pub more: bool,
}
