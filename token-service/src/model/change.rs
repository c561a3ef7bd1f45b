//! Changes of a feed.

use accord::{
    position::Position,
    text::id::{ClientId, TenantId, UserId},
};

use super::revocation::RevocationKind;

/// A change of the registry: what to read anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A client, or one of its secrets.
    Client(ClientId),
    /// A tenant.
    Tenant(TenantId),
    /// A tenant's user.
    User(TenantId, UserId),
    /// A scope of the catalogue, and with it the profiles of clients.
    Scope,
    /// An operator or workload, by its id.
    Caller(String),
    /// Something that this version does not know: all that is remembered may be concerned.
    Unknown,
}

/// What changed after a position.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The changes, in commit order.
    pub changes: Vec<Change>,
    /// What ended with them: what it is, which one, and at which position.
    pub ended: Vec<(RevocationKind, String, i64)>,
    /// The position up to which this is complete.
    pub position: Position,
    /// Where the changes of the last hour begin, in an answer that tells of none.
    pub recent_seq: i64,
    /// Everything known is to be forgotten.
    pub reset: bool,
    /// More changes wait behind the position.
    pub more: bool,
}
