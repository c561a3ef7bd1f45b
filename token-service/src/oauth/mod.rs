//! The OAuth 2.0 operations: issuance, introspection, revocation, and the public documents.

use crate::{
    cache::{grants::Ledger, registry::Directory},
    model::lifetimes::Lifetimes,
    store::Store,
};

pub mod client_authentication;
pub mod introspection;
pub mod issuance;
pub mod metadata;
pub mod revocation;
pub mod revocation_feed;
pub mod signed_introspection;

/// What the OAuth 2.0 operations work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// token-service's own store.
    pub store: Store,
    /// The registry through a memory.
    pub directory: Directory,
    /// What the store says of grants, revocations and signing keys through a memory.
    pub ledger: Ledger,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
}
