//! The OAuth 2.0 operations: issuance, introspection, revocation, and the public documents.

use std::sync::Arc;

use accord::{
    error::v1::ErrorReason,
    rpc::{context, middleware::limits::RateLimit, status::reason_name},
    store::audit::{Actor, ActorKind, Event},
    text::id::ClientId,
    verify::AccessTokenClaims,
};
use tokio::sync::Mutex;

use self::{client_keys::ClientKeySets, mutual_tls::MutualTls};
use crate::{
    cache::Cache,
    model::{lifetimes::Lifetimes, revocation::RevocationKind},
    registry::Registry,
    store::Store,
};

pub mod binding;
pub mod client_authentication;
pub mod client_keys;
pub mod dpop;
pub mod introspection;
pub mod issuance;
pub mod metadata;
pub mod mutual_tls;
pub mod pushed_request;
pub mod revocation;
pub mod revocation_feed;
pub mod signing_keys;

use dpop::Dpop;

/// The parts of token-service that handle tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// token-service's own store.
    pub store: Store,
    /// The registry.
    pub registry: Registry,
    /// The cache of facts from the registry and the store.
    pub cache: Arc<Cache>,
    /// How long tokens live.
    pub lifetimes: Lifetimes,
    /// The limit on calls of one client, if there is one. It counts authenticated calls alone, because Client IDs are
    /// public: nobody can use up the calls of another client.
    pub client_limit: Option<Arc<RateLimit<ClientId>>>,
    /// Keys of clients.
    pub client_keys: ClientKeySets,
    /// Certificates of clients.
    pub mutual_tls: MutualTls,
    /// What DPoP proofs are checked against, those that internal services bring included.
    pub dpop: Arc<Dpop>,
    /// Held by whoever reads the algorithms of the signing keys, tells the registry, and acts upon its answer.
    pub algorithm_report: Arc<Mutex<()>>,
}

#[cfg(test)]
impl OAuth {
    /// Limits nothing, and trusts no certificate.
    fn for_test(cache: Arc<Cache>) -> Self {
        let store = cache.store().clone();
        let fetcher = client_keys::fetch::KeySetFetcher::new(Default::default());
        Self {
            client_keys: ClientKeySets::new(fetcher, store.clock.clone()),
            store,
            registry: cache.registry().clone(),
            cache,
            lifetimes: Lifetimes::default(),
            client_limit: None,
            mutual_tls: MutualTls::default(),
            dpop: Arc::default(),
            algorithm_report: Arc::default(),
        }
    }
}

/// Notes the event of a call that is rejected although its client is authenticated, because somebody may have copied what the
/// client holds. The record lists some of them, and counts the rest of a flood.
fn note_rejected_client(client_id: &ClientId, reason: ErrorReason, event: Event) {
    let actor = Actor {
        kind: ActorKind::Client,
        id: client_id.to_string(),
    };
    context::note_caller(actor, None);
    context::note_event(
        event
            .client(client_id)
            .detail("error_reason", reason_name(reason)),
    );
    context::note_rejection(reason);
}

/// Returns what token-service's own revocations may name of an access token.
fn revocation_names<'a>(claims: &'a AccessTokenClaims, kid: &'a str) -> [(RevocationKind, &'a str); 4] {
    // Tokens without a family have an empty id, which no family has.
    let family_id = claims.family_id.as_deref().unwrap_or_default();
    [
        (RevocationKind::Jti, &claims.jti),
        (RevocationKind::Grant, &claims.grant_id),
        (RevocationKind::Kid, kid),
        (RevocationKind::Family, family_id),
    ]
}
