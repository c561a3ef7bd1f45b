//! What every operation of token-service works with. The nouns take it; gRPC services and HTTP routes
//! are implemented on it.

use crate::{
    cache::{grants::Ledger, registry::Directory},
    consent::sign_in_delay::SignInDelays,
    registry::Registry,
    store::Store,
};

/// The store and the registry, each also through a memory.
#[derive(Clone, Debug)]
pub struct Service {
    /// token-service's own store.
    pub store: Store,
    /// The registry.
    pub registry: Registry,
    /// The registry through a memory, for issuing and introspection.
    pub directory: Directory,
    /// What the store says of grants, revocations and signing keys through a memory, for the same.
    pub ledger: Ledger,
    /// Failed sign-ins, which make later ones wait.
    pub sign_in_delays: SignInDelays,
    /// How access tokens and families end; see [`Lifetimes`].
    pub lifetimes: Lifetimes,
}

/// How long tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// An access token's life; 15 minutes at most.
    pub access_token: std::time::Duration,
    /// A refresh family's absolute life.
    pub family: std::time::Duration,
}

impl Lifetimes {
    /// The longest life of an access token.
    pub const MAX_ACCESS_TOKEN: std::time::Duration = std::time::Duration::from_secs(15 * 60);
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access_token: std::time::Duration::from_secs(5 * 60),
            family: std::time::Duration::from_secs(90 * 24 * 3600),
        }
    }
}
