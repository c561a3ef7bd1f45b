//! Reads the registry's facts that are not in memory, in groups: while two calls are under way, further facts wait and
//! share the next call. If each caller read its own fact, a replica that starts under load would flood the registry,
//! which would then answer neither reads nor the change feed.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use accord::{
    store::{StoreError, batch::group_commit::Work},
    text::id::{ClientId, TenantId, UserId},
};
use tokio::time::timeout;

use super::{
    FactAsOf, cached::FactCache, facts::Facts, follower::ChangeFollower, verified_secrets::KnownClient,
};
use crate::{
    error::{Error, Result},
    model::{tenant::Tenant, user::User},
    registry::{ProfileKeys, Registry},
};

/// How long a call waits for a fact, or for another call that checks the same secret. Longer than
/// [`LEASE`](crate::model::watermark::LEASE), so that the change feed has shown by then whether the registry answers.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(1);

/// Names a fact.
pub(super) enum FactKey {
    Client(ClientId),
    Tenant(TenantId),
    User((TenantId, UserId)),
}

/// The facts that a group found. A fact that does not exist is absent.
#[derive(Default)]
pub(super) struct ReadFacts {
    pub(super) clients: HashMap<ClientId, FactAsOf<KnownClient>>,
    pub(super) tenants: HashMap<TenantId, FactAsOf<Tenant>>,
    pub(super) users: HashMap<(TenantId, UserId), FactAsOf<User>>,
}

/// Reads groups of facts from the registry, and keeps the facts in memory.
pub(super) struct GroupRead {
    pub(super) registry: Registry,
    pub(super) changes: Arc<ChangeFollower<Registry>>,
    pub(super) facts: Arc<Facts>,
}

impl Work for GroupRead {
    type Item = FactKey;
    type Outcome = Result<Arc<ReadFacts>>;

    const NAME: &'static str = "registry_reads";
    // A late answer must not delay every other group.
    const AT_ONCE: usize = 2;

    async fn run(&self, keys: &[FactKey]) -> Result<Vec<Result<Arc<ReadFacts>>>, StoreError> {
        match self.read(keys).await.map(Arc::new) {
            Ok(found) => Ok(keys.iter().map(|_| Ok(found.clone())).collect()),
            Err(Error::RegistryUnavailable | Error::RegistryRejectsCredential | Error::Busy) => {
                Ok(keys.iter().map(|_| Err(Error::RegistryUnavailable)).collect())
            }
            Err(error) if keys.len() == 1 => Ok(vec![Err(error)]),
            Err(error) => {
                // One fact may have caused it. A group that fails is read again, each fact alone.
                tracing::warn!(%error, "the registry's answer is unusable");
                Err(StoreError::Corrupt("the registry's answer"))
            }
        }
    }
}

impl GroupRead {
    /// Returns the facts that an earlier group has read while this one waited, and reads the others.
    async fn read(&self, keys: &[FactKey]) -> Result<ReadFacts> {
        let facts = &*self.facts;
        let (mut found, mut missing) = (ReadFacts::default(), ProfileKeys::default());
        for key in keys {
            match key {
                FactKey::Client(key) => {
                    self.look_up(&facts.clients, key, &mut found.clients, &mut missing.clients);
                }
                FactKey::Tenant(key) => {
                    self.look_up(&facts.tenants, key, &mut found.tenants, &mut missing.tenants);
                }
                FactKey::User(key) => {
                    self.look_up(&facts.users, key, &mut found.users, &mut missing.users);
                }
            }
        }
        if !missing.is_empty() {
            self.read_missing(&missing, &mut found).await?;
        }
        Ok(found)
    }

    /// Finds a fact in memory, or adds its key to `missing`.
    fn look_up<K: Eq + Hash + Clone, T>(
        &self,
        facts: &FactCache<K, T>,
        key: &K,
        found: &mut HashMap<K, FactAsOf<T>>,
        missing: &mut HashSet<K>,
    ) {
        match self.facts.find(&self.changes, facts, key) {
            Some(fact) => drop(found.insert(key.clone(), fact)),
            None => drop(missing.insert(key.clone())),
        }
    }

    async fn read_missing(&self, missing: &ProfileKeys, found: &mut ReadFacts) -> Result<()> {
        let (facts, changes) = (&*self.facts, &*self.changes);
        let answer = timeout(WAIT_LIMIT, self.registry.profiles(missing)).await;
        let (read, as_of) = answer.unwrap_or(Err(Error::RegistryUnavailable))?.split();
        for client in read.clients {
            let (id, client) = (client.client_id.clone(), facts.with_secrets(client));
            let fact = as_of.clone().map(|()| client);
            let kept = facts.insert_if_current(changes, &facts.clients, id.clone(), fact);
            found.clients.insert(id, kept);
        }
        for tenant in read.tenants {
            let (id, fact) = (tenant.tenant_id.clone(), as_of.clone().map(|()| tenant));
            let kept = facts.insert_if_current(changes, &facts.tenants, id.clone(), fact);
            found.tenants.insert(id, kept);
        }
        for (tenant_id, user) in read.users {
            let key = (tenant_id, user.user_id.clone());
            let kept =
                facts.insert_if_current(changes, &facts.users, key.clone(), as_of.clone().map(|()| user));
            found.users.insert(key, kept);
        }
        Ok(())
    }
}
