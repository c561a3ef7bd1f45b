//! The OAuth 2.0 operations: issuance, introspection, revocation, and the public documents.

use std::sync::Arc;

use crate::{cache::Cache, model::lifetimes::Lifetimes, store::Store};

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
    /// Memory over the registry and the store.
    pub cache: Arc<Cache>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
}
