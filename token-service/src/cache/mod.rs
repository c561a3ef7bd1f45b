//! Facts served from memory while they are known to be current.
//!
//! The cache follows two change feeds: the registry's, and that of this service's own database, to which other replicas
//! write too. While a follower has a lease, facts of its source come from memory. Without one, each is read from the
//! source, and calls fail while the source does not answer.

use std::{hash::Hash, sync::Arc, time::Duration};

use accord::{
    clock::SharedClock,
    random::Random,
    store::batch::group_commit::GroupCommit,
    text::id::{ClientId, SecretId, TenantId},
};
use aws_lc_rs::hmac;
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

mod cached;
mod facts;
#[cfg(test)]
pub(crate) mod fixture;
mod follower;
mod grants;
mod group_read;
mod lock;
mod registry;
mod revocation_index;
mod single_flight;
#[cfg(test)]
mod tests;
mod verified_secrets;

pub use cached::Cached;
use cached::FactCache;
pub use facts::Entry;
use facts::Facts;
use follower::ChangeFollower;
pub use follower::Revocations;
use group_read::GroupRead;
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

/// How often memory is searched for facts that are too old.
const EXPIRY_PERIOD: Duration = Duration::from_secs(60);
/// The most callers that are read from the registry at a time.
const MAX_CALLER_READS: usize = 16;

/// A fact from memory or from its source, and how current it is.
pub type FactAsOf<T> = AsOf<Arc<Cached<T>>>;

/// The facts of the registry and of this service's database.
#[derive(derive_more::Debug)]
#[debug("Cache {{ .. }}")]
pub struct Cache {
    registry: Registry,
    store: Store,
    clock: SharedClock,
    registry_changes: Arc<ChangeFollower<Registry>>,
    own_changes: ChangeFollower<Store>,
    facts: Arc<Facts>,
    /// Reads clients, tenants and users from the registry.
    reads: GroupCommit<GroupRead>,
    /// The key of the MACs of verified secrets.
    mac_key: hmac::Key,
    checks: SingleFlight<(ClientId, SecretId)>,
    /// Bounds how many callers are read from the registry at a time, so that the change feed does not wait behind them.
    caller_reads: Semaphore,
    uses: SecretUses,
    /// When the tag keys were last read without a lease, and whether that succeeded.
    tag_keys_read: Mutex<Option<(Instant, bool)>>,
    /// The signing key that was unsealed last.
    signer: Lock<Option<Arc<Signer>>>,
}

impl Cache {
    /// Creates an empty cache; needs a tokio runtime. It serves facts from memory while [`Self::follow`] runs. The
    /// registry's facts count `registry_stale_max` longer than a lease while it does not answer.
    pub fn new(registry: Registry, store: Store, random: &dyn Random, registry_stale_max: Duration) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        random.fill(&mut *key);
        let registry_changes = ChangeFollower::new(registry.clone(), LEASE + registry_stale_max);
        let (registry_changes, facts) = (Arc::new(registry_changes), Arc::new(Facts::new()));
        Self {
            reads: GroupCommit::start(GroupRead {
                registry: registry.clone(),
                changes: registry_changes.clone(),
                facts: facts.clone(),
            }),
            registry_changes,
            own_changes: ChangeFollower::new(store.clone(), LEASE),
            clock: store.clock.clone(),
            registry,
            store,
            facts,
            mac_key: hmac::Key::new(hmac::HMAC_SHA256, &*key),
            checks: SingleFlight::new(),
            caller_reads: Semaphore::new(MAX_CALLER_READS),
            uses: SecretUses::default(),
            tag_keys_read: Mutex::default(),
            signer: Lock::default(),
        }
    }

    /// Follows both feeds until `stop`, and reports when secrets were used.
    pub async fn follow(&self, stop: &CancellationToken) {
        let expiry = async {
            loop {
                sleep(EXPIRY_PERIOD).await;
                self.expire_old_facts().await;
            }
        };
        tokio::join!(
            self.registry_changes.follow(&self.facts, stop),
            self.own_changes.follow(&self.facts, stop),
            stop.run_until_cancelled(expiry),
            self.report_secret_uses(stop),
        );
    }

    /// Has old facts read again. The registry's not while it is silent: then they count as long as `registry_stale_max` says.
    async fn expire_old_facts(&self) {
        self.facts.grants.expire_old();
        if self.registry_changes.is_complete_since(Instant::now() - LEASE) {
            self.facts.expire_old_of_registry();
        }
        // Every call needs them. They are replaced, so that none waits.
        if let Err(error) = self.read_keys_again().await {
            tracing::debug!(%error, "signing keys were not read again");
        }
    }

    /// Returns how long the registry's answers count.
    pub fn registry_lease(&self) -> Duration {
        self.registry_changes.lease_duration
    }

    /// Returns the entry of a client at a tenant, while both leases last. Takes one lock.
    pub fn entry(&self, client_id: &ClientId, tenant_id: &TenantId) -> Option<EntryAsOf> {
        let find = || {
            let registry = self.registry_changes.lease()?;
            let own = self.own_changes.lease()?;
            let entry = self.facts.entries.get(&(client_id.clone(), tenant_id.clone()))?;
            let is_current = entry.facts_are_current();
            is_current.then_some(EntryAsOf { entry, registry, own })
        };
        let found = find();
        self.facts.entries.count(found.is_some());
        found
    }

    /// Records how old and how far the facts are, and how many callers wait for facts.
    pub fn record_gauges(&self) {
        self.registry_changes.record_gauges("registry");
        self.own_changes.record_gauges("own");
        self.reads.record_gauges();
    }

    /// Joins the facts about an active grant into an entry, if they belong together and are current.
    pub fn cache_entry(
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
            self.facts.entries.insert(key, entry);
        }
    }
}

impl Facts {
    /// Returns a fact from memory, and counts whether it is there.
    fn look_up<K: Eq + Hash + Clone, T, S>(
        &self,
        changes: &ChangeFollower<S>,
        facts: &FactCache<K, T>,
        key: &K,
    ) -> Option<FactAsOf<T>> {
        let found = self.find(changes, facts, key);
        facts.count(found.is_some());
        found
    }

    /// Returns a fact from memory. Reads the lease before the fact.
    fn find<K: Eq + Hash + Clone, T, S>(
        &self,
        changes: &ChangeFollower<S>,
        facts: &FactCache<K, T>,
        key: &K,
    ) -> Option<FactAsOf<T>> {
        let lease = changes.lease()?;
        let fact = facts.get(key).filter(|fact| fact.is_current())?;
        Some(lease.map(|()| fact))
    }

    /// Inserts a fact that was read, unless a change that it does not reflect has been applied. Returns it in any case.
    fn insert_if_current<K: Eq + Hash + Clone, T, S>(
        &self,
        changes: &ChangeFollower<S>,
        facts: &FactCache<K, T>,
        key: K,
        read: AsOf<T>,
    ) -> FactAsOf<T> {
        let _applying = self.applying.lock();
        let is_covered = changes.is_covered_by(&read.position);
        read.map(|value| match is_covered {
            true => facts.insert(key, value),
            false => Cached::uncached(value),
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
