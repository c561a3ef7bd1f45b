//! Facts served from memory for as long as they are known to hold.
//!
//! Two change feeds are followed: the registry's, and that of this service's own database, to which other replicas
//! write too. While a follower has a lease, facts of its source are read from memory. Without one, each is read from
//! the source, and a source that does not answer stops what depends on it.

use std::{fmt, hash::Hash, sync::Arc, time::Duration};

use accord::{
    clock::SharedClock,
    random::Random,
    text::id::{ClientId, SecretId, TenantId},
};
use aws_lc_rs::hmac;
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

mod cached;
mod facts;
#[cfg(test)]
pub(crate) mod fixture;
mod follower;
mod grants;
mod lock;
mod registry;
mod revocation_index;
mod single_flight;
#[cfg(test)]
mod tests;
mod verified_secrets;

pub use cached::Cached;
use cached::{FactCache, OVERHEAD};
pub use facts::Entry;
use facts::Facts;
use follower::{ChangeFollower, ChangeSource};
use lock::Lock;
#[cfg(test)]
pub(crate) use lock::taken as locks_taken;
pub use registry::Authenticated;
use single_flight::SingleFlight;
pub use verified_secrets::KnownClient;
use verified_secrets::SecretUses;

use crate::{
    model::{
        grant::{Grant, StoredState},
        signing_key::Signer,
        tenant::Tenant,
        user::User,
        watermark::{AsOf, LEASE},
    },
    registry::Registry,
    store::Store,
};

/// Memory over the registry and this service's database.
pub struct Cache {
    registry: Registry,
    store: Store,
    clock: SharedClock,
    registry_changes: ChangeFollower<Registry>,
    own_changes: ChangeFollower<Store>,
    facts: Facts,
    /// The key of the MACs of verified secrets.
    mac_key: hmac::Key,
    checks: SingleFlight<(ClientId, SecretId)>,
    uses: SecretUses,
    /// When the keys of tags were read without a lease.
    tag_keys_read_at: Mutex<Option<Instant>>,
    /// The signing key that was unsealed last.
    signer: Lock<Option<Arc<Signer>>>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty memory. It answers only if the feeds are followed, which `enabled` says. `registry_stale_max` is how
    /// much longer than a lease the registry's facts may count while it does not answer.
    pub fn new(
        registry: Registry,
        store: Store,
        random: &dyn Random,
        enabled: bool,
        registry_stale_max: Duration,
    ) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        random.fill(&mut *key);
        Self {
            registry_changes: ChangeFollower::new(registry.clone(), LEASE + registry_stale_max),
            own_changes: ChangeFollower::new(store.clone(), LEASE),
            clock: store.clock.clone(),
            registry,
            store,
            facts: Facts::new(enabled),
            mac_key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            checks: SingleFlight::new(),
            uses: SecretUses::default(),
            tag_keys_read_at: Mutex::default(),
            signer: Lock::default(),
        }
    }

    /// Follows both feeds until `stop`, and reports when secrets were used.
    pub async fn follow(&self, every: Duration, stop: &CancellationToken) {
        tokio::join!(
            self.registry_changes.follow(&self.facts, every, stop),
            self.own_changes.follow(&self.facts, every, stop),
            self.report_secret_uses(stop),
        );
    }

    /// How long the registry's answers count.
    pub fn registry_lease(&self) -> Duration {
        self.registry_changes.lease_duration()
    }

    /// The entry of a client at a tenant, as of both positions, while both leases last. One lock.
    pub fn entry(&self, client_id: &ClientId, tenant_id: &TenantId) -> Option<EntryAsOf> {
        let (registry, own) = (
            self.facts.lease_of(&self.registry_changes)?,
            self.facts.lease_of(&self.own_changes)?,
        );
        let entry = self.facts.entries.get(&(client_id.clone(), tenant_id.clone()))?;
        entry
            .facts_are_current()
            .then_some(EntryAsOf { entry, registry, own })
    }

    /// Joins facts of one grant into an entry.
    pub fn keep_entry(
        &self,
        client: &Arc<Cached<KnownClient>>,
        tenant: &Arc<Cached<Tenant>>,
        user: &Arc<Cached<User>>,
        grant: &Arc<Cached<Grant>>,
    ) {
        let entry = Entry {
            client: client.clone(),
            tenant: tenant.clone(),
            user: user.clone(),
            grant: grant.clone(),
        };
        let belong_together = grant.client_id == client.client_id
            && grant.tenant_id == tenant.tenant_id
            && grant.designated_user_id == user.user_id;
        if belong_together && grant.state == StoredState::Active && entry.facts_are_current() {
            let key = (client.client_id.clone(), tenant.tenant_id.clone());
            self.facts.entries.insert(key, entry, 2 * OVERHEAD);
        }
    }
}

impl Facts {
    /// The lease under which memory answers for a source.
    fn lease_of<S: ChangeSource>(&self, changes: &ChangeFollower<S>) -> Option<AsOf<()>> {
        changes.lease().filter(|_| self.enabled)
    }

    /// A fact from memory. The lease is read before the fact.
    fn find<K, T, S>(
        &self,
        changes: &ChangeFollower<S>,
        facts: &FactCache<K, T>,
        key: &K,
    ) -> Option<AsOf<Arc<Cached<T>>>>
    where
        K: Eq + Hash + Clone,
        S: ChangeSource,
    {
        let lease = self.lease_of(changes)?;
        let fact = facts.get(key).filter(|fact| fact.is_current())?;
        Some(lease.map(|()| fact))
    }

    /// Keeps a fact that was read, unless a change that it does not reflect has been applied. `weigh` gives the value
    /// to keep and its size in bytes.
    fn keep<K, R, T, S>(
        &self,
        changes: &ChangeFollower<S>,
        facts: &FactCache<K, T>,
        key: K,
        read: AsOf<R>,
        weigh: impl FnOnce(R) -> (T, usize),
    ) -> AsOf<Arc<Cached<T>>>
    where
        K: Eq + Hash + Clone,
        S: ChangeSource,
    {
        let _applying = self.applying.lock();
        let covers = self.enabled && changes.covers(&read.position);
        read.map(|value| {
            let (value, bytes) = weigh(value);
            if covers {
                facts.insert(key, value, bytes)
            } else {
                Cached::detached(value)
            }
        })
    }
}

/// An entry, and how current its facts are.
#[derive(Debug)]
pub struct EntryAsOf {
    /// The entry.
    pub entry: Arc<Cached<Entry>>,
    /// How current the registry's facts are.
    pub registry: AsOf<()>,
    /// How current the grant is.
    pub own: AsOf<()>,
}
