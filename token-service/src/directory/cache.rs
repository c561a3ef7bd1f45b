//! What is remembered of the registry, and up to which of its changes. Asks nobody.
//!
//! An answer is kept only if it was read at the position that the feed has told of, or later: otherwise a
//! change that it does not know may have gone by already. From then on the feed takes it away when it
//! changes. So whatever is here reflects all changes up to the feed's position.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use accord::{
    clock::UnixMillis,
    id::{ClientId, SecretId, TenantId, UserId},
    store::change::Position,
};
use lru::LruCache;
use tokio::time::Instant;

use super::SecretUse;
use crate::{
    lease,
    registry::{At, Change, Client, Tenant, User},
};

/// The most tenants and the most users that are remembered, each; a few hundred bytes apiece.
const MOST: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// The most that remembered clients may take, in bytes.
const MOST_CLIENT_BYTES: usize = 64 * 1024 * 1024;
/// The most secrets of a client that are remembered as verified.
const MOST_SECRETS: usize = 16;
/// Besides texts, what a remembered client takes, roughly.
const CLIENT_OVERHEAD: usize = 1024;

/// A secret that the registry found to be right.
pub(super) struct Verified {
    /// Of client and secret, under this process's key.
    pub(super) mac: [u8; 32],
    /// Which secret it is.
    pub(super) secret_id: SecretId,
    /// When it ends by itself.
    pub(super) expires_at: Option<UnixMillis>,
}

struct KnownClient {
    /// Goes when a scope of the catalogue changes; the secrets stay.
    client: Option<Client>,
    bytes: usize,
    verified: Vec<Verified>,
}

/// The memory.
pub(super) struct Cache(Mutex<State>);

struct State {
    /// The feed's position and when the question that told of it was sent; `None` before the first.
    told: Option<(Position, Instant)>,
    clients: LruCache<ClientId, KnownClient>,
    client_bytes: usize,
    tenants: LruCache<TenantId, Tenant>,
    users: LruCache<(TenantId, UserId), User>,
    /// Uses of secrets that the registry does not know of yet.
    uses: HashMap<SecretId, SecretUse>,
}

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(State {
            told: None,
            clients: LruCache::unbounded(),
            client_bytes: 0,
            tenants: LruCache::new(MOST),
            users: LruCache::new(MOST),
            uses: HashMap::new(),
        }))
    }
}

impl Cache {
    /// Up to where, and since when, a client's secret is known to be right. Counts as a use of it.
    pub(super) fn verified(
        &self,
        client_id: &ClientId,
        mac: &[u8; 32],
        now: UnixMillis,
        at: Instant,
    ) -> Option<(Position, Instant)> {
        let mut state = self.state();
        let lease = state.lease(at)?;
        let known = state.clients.get(client_id)?;
        // Both are MACs under a key that nobody has: comparing them tells nothing.
        let verified = known.verified.iter().find(|verified| verified.mac == *mac)?;
        if verified.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        let used = SecretUse {
            client_id: client_id.clone(),
            secret_id: verified.secret_id.clone(),
            used_at: now,
        };
        state.uses.insert(used.secret_id.clone(), used);
        Some(lease)
    }

    pub(super) fn client(&self, client_id: &ClientId, at: Instant) -> Option<At<Client>> {
        self.known(at, |state| state.clients.get(client_id)?.client.clone())
    }

    pub(super) fn tenant(&self, tenant_id: &TenantId, at: Instant) -> Option<At<Tenant>> {
        self.known(at, |state| state.tenants.get(tenant_id).cloned())
    }

    pub(super) fn user(&self, tenant_id: &TenantId, user_id: &UserId, at: Instant) -> Option<At<User>> {
        let key = (tenant_id.clone(), user_id.clone());
        self.known(at, |state| state.users.get(&key).cloned())
    }

    fn known<T>(&self, at: Instant, find: impl FnOnce(&mut State) -> Option<T>) -> Option<At<T>> {
        let mut state = self.state();
        let (position, asked_at) = state.lease(at)?;
        Some(At {
            value: find(&mut state)?,
            position,
            asked_at,
        })
    }

    /// Remembers a client; with the secret that it was proven by, if it was.
    pub(super) fn keep_client(&self, client: &At<Client>, verified: Option<Verified>) {
        let mut state = self.state();
        if !state.is_current(&client.position) {
            return;
        }
        let client_id = client.value.client_id.clone();
        let mut secrets = state.remove_client(&client_id).unwrap_or_default();
        if let Some(verified) = verified {
            secrets.retain(|known| known.secret_id != verified.secret_id);
            secrets.truncate(MOST_SECRETS - 1);
            secrets.insert(0, verified);
        }
        let known = KnownClient {
            bytes: weight(&client.value),
            client: Some(client.value.clone()),
            verified: secrets,
        };
        state.client_bytes += known.bytes;
        state.clients.put(client_id, known);
        while state.client_bytes > MOST_CLIENT_BYTES {
            let Some((_, gone)) = state.clients.pop_lru() else {
                break;
            };
            state.client_bytes -= gone.bytes;
        }
    }

    pub(super) fn keep_tenant(&self, tenant: &At<Tenant>) {
        let mut state = self.state();
        if state.is_current(&tenant.position) {
            state
                .tenants
                .put(tenant.value.tenant_id.clone(), tenant.value.clone());
        }
    }

    pub(super) fn keep_user(&self, tenant_id: &TenantId, user: &At<User>) {
        let mut state = self.state();
        if state.is_current(&user.position) {
            let key = (tenant_id.clone(), user.value.user_id.clone());
            state.users.put(key, user.value.clone());
        }
    }

    /// The position after which changes are wanted; `None` before the first.
    pub(super) fn position(&self) -> Option<Position> {
        self.state().told.as_ref().map(|(position, _)| position.clone())
    }

    /// Takes away what changed, in an answer that is complete up to `position`. `asked_at` is when the
    /// question was sent; `None` for an answer behind which more changes wait, which renews no lease.
    pub(super) fn apply(&self, changes: &[Change], position: Position, asked_at: Option<Instant>) {
        let mut state = self.state();
        for change in changes {
            state.forget(change);
        }
        let since = asked_at.or(state.told.as_ref().map(|(_, since)| *since));
        if let Some(since) = since {
            state.told = Some((position, since));
        }
    }

    /// Forgets everything: the feed is another one, or went back. What is known next begins at
    /// `position`.
    pub(super) fn reset(&self, position: Position, asked_at: Instant) {
        let mut state = self.state();
        state.forget_everything();
        state.told = Some((position, asked_at));
    }

    /// Takes the uses that the registry does not know of yet, at most so many.
    pub(super) fn take_uses(&self, most: usize) -> Vec<SecretUse> {
        let mut state = self.state();
        let ids: Vec<_> = state.uses.keys().take(most).cloned().collect();
        ids.iter().filter_map(|id| state.uses.remove(id)).collect()
    }

    /// Puts uses back that could not be reported, unless there was a later one.
    pub(super) fn give_back(&self, uses: Vec<SecretUse>) {
        let mut state = self.state();
        for used in uses {
            state.uses.entry(used.secret_id.clone()).or_insert(used);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The feed's position, while the lease on it holds.
    fn lease(&self, at: Instant) -> Option<(Position, Instant)> {
        let (position, asked_at) = self.told.as_ref()?;
        let age = at.checked_duration_since(*asked_at).unwrap_or(Duration::ZERO);
        (age <= lease::LIFE).then(|| (position.clone(), *asked_at))
    }

    /// Whether no change that an answer of this position does not know has gone by.
    fn is_current(&self, position: &Position) -> bool {
        let told = self.told.as_ref();
        told.is_some_and(|(told, _)| told.epoch == position.epoch && told.seq <= position.seq)
    }

    fn forget(&mut self, change: &Change) {
        match change {
            Change::Client(id) => {
                self.remove_client(id);
            }
            Change::Tenant(id) => {
                self.tenants.pop(id);
            }
            Change::User(tenant_id, user_id) => {
                self.users.pop(&(tenant_id.clone(), user_id.clone()));
            }
            // Which clients have the scope is not known here. Their secrets are as good as before: else one
            // new scope would send every client to the slow hash at once.
            Change::Scope => {
                for (_, known) in &mut self.clients {
                    known.client = None;
                }
            }
            Change::Other => {}
            Change::Unknown => self.forget_everything(),
        }
    }

    fn forget_everything(&mut self) {
        self.clients.clear();
        self.client_bytes = 0;
        self.tenants.clear();
        self.users.clear();
    }

    /// Takes a client away; what was known of its secrets.
    fn remove_client(&mut self, client_id: &ClientId) -> Option<Vec<Verified>> {
        let gone = self.clients.pop(client_id)?;
        self.client_bytes -= gone.bytes;
        Some(gone.verified)
    }
}

/// What a client takes in memory, roughly.
fn weight(client: &Client) -> usize {
    let scopes = client.scopes.iter();
    let scopes: usize = scopes
        .map(|scope| scope.description.len() + scope.reason.len() + 128)
        .sum();
    let uris: usize = client.redirect_uris.iter().map(|uri| uri.len() + 32).sum();
    CLIENT_OVERHEAD
        + scopes
        + uris
        + client.tenant_ids.len() * 64
        + client.display_name.len()
        + client.partner_name.len()
        + client.purpose.len()
        + client.json_web_key_set.len()
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
