//! Facts of the registry: clients and their secrets, tenants, users, callers.

use std::{collections::HashMap, hash::Hash, time::Duration};

use accord::{
    position::Position,
    rpc::auth::{Caller, Credential},
    store::StoreError,
    text::{
        id::{ClientId, SecretId, TenantId, UserId},
        opaque::ClientSecret,
    },
};
use aws_lc_rs::hmac;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Cache, EntryAsOf, FactAsOf, Revocations,
    cached::FactCache,
    follower::ChangeSource,
    group_read::{FactKey, ReadFacts, WAIT_LIMIT},
    verified_secrets::KnownClient,
};
use crate::{
    error::{Error, Result},
    model::{change::Changes, tenant::Tenant, user::User},
    registry::Registry,
    store::Assertion,
};

/// How often uses of secrets are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// How long the work that is under way at the stop, and the last report, may take.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// The most uses in one report.
const MAX_USES: usize = 1_000;
/// How often the tag keys are read while there is no lease.
const READ_TAG_KEYS_EVERY: Duration = Duration::from_secs(1);

impl ChangeSource for Registry {
    const NAME: &'static str = "registry";

    fn unavailable() -> Error {
        Error::RegistryUnavailable
    }

    async fn changes_after(&self, after: Option<&Position>) -> Result<Changes> {
        self.changes_after(after).await
    }
}

/// An authenticated client.
#[derive(Debug)]
pub struct Authenticated {
    /// The client, which is active.
    pub client: FactAsOf<KnownClient>,
    /// The cache entry of the client at the tenant; `None` if memory was not enough to authenticate the client.
    pub entry: Option<EntryAsOf>,
    /// The assertion that authenticated the client, not spent yet; `None` for a secret.
    pub assertion: Option<Assertion>,
}

impl Cache {
    /// Verifies a Client Secret. Checks its tag first, so that rejecting a guess needs no query, and takes the same
    /// time for every client. Then looks into memory, then into this service's database, and calls the registry last.
    /// So the registry runs argon2 once for each secret: for all replicas together, however often the client changes.
    pub async fn authenticate_client(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        tenant_id: &TenantId,
    ) -> Result<Authenticated> {
        if !secret.is_tagged_for(client_id, &**self.registry.tag_keys())
            && !Box::pin(self.is_tagged_now(client_id, secret)).await?
        {
            return Err(Error::InvalidClient("the secret is not one of this client"));
        }
        let mac = self.mac(client_id, secret);
        if let Some(found) = self.entry(client_id, tenant_id)
            && self.record_verified_use(&found.entry.client, &mac)
        {
            let client = found.registry.clone().map(|()| found.entry.client.clone());
            return Ok(Authenticated {
                client: require_active(client)?,
                entry: Some(found),
                assertion: None,
            });
        }
        // On the heap: otherwise this future enlarges every call, including those served from memory.
        let client = Box::pin(self.verify_client(client_id, secret, &mac)).await?;
        Ok(Authenticated {
            client,
            entry: None,
            assertion: None,
        })
    }

    /// Checks a tag again with the registry's newest keys. During a lease those in memory count as the newest, so
    /// the tag stays wrong. Without a lease, reads the keys, at most once a second.
    async fn is_tagged_now(&self, client_id: &ClientId, secret: &ClientSecret) -> Result<bool> {
        if self.registry_changes.lease().is_some() {
            return Ok(false);
        }
        let read = async {
            let mut last_read = self.tag_keys_read.lock().await;
            if last_read.is_none_or(|(at, _)| at.elapsed() >= READ_TAG_KEYS_EVERY) {
                // Counts as read although the caller may stop waiting, which ends the read.
                *last_read = Some((Instant::now(), false));
                let succeeded = self.registry.changes_after(None).await.is_ok();
                *last_read = Some((Instant::now(), succeeded));
            }
            last_read.is_some_and(|(_, succeeded)| succeeded)
        };
        let are_newest = wait_for_others(read).await?;
        let is_tagged = secret.is_tagged_for(client_id, &**self.registry.tag_keys());
        if !is_tagged && !are_newest {
            return Err(Error::RegistryUnavailable);
        }
        Ok(is_tagged)
    }

    /// Verifies a Client Secret whose tag is right. Concurrent calls for the same secret wait for the first one.
    async fn verify_client(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        mac: &[u8; 32],
    ) -> Result<FactAsOf<KnownClient>> {
        let secret_id = secret.secret_id();
        let client = self.active_client(client_id).await?;
        if self.is_known(&client.value, secret_id, mac)? {
            return Ok(client);
        }
        let check = self.checks.enter((client_id.clone(), secret_id.clone()));
        let _check = wait_for_others(check).await?;
        // The call that this one waited for may have verified the same secret.
        let client = self.active_client(client_id).await?;
        if self.is_known(&client.value, secret_id, mac)? {
            return Ok(client);
        }
        let is_listed = client.value.lists_secret(secret_id, self.clock.now());
        if is_listed && self.store.is_verified_secret(client_id, secret).await? {
            client.value.verify(mac, secret_id);
            self.record_verified_use(&client.value, mac);
            return Ok(client);
        }
        let answer = self.registry.authenticate_client(client_id, secret.expose());
        let answer = answer.await;
        if matches!(answer, Err(Error::InvalidClient(_))) && !is_listed {
            client.value.reject(secret_id);
        }
        let client = answer?.map(|client| self.facts.with_secrets(client));
        let (changes, clients) = (&self.registry_changes, &self.facts.clients);
        let client = self
            .facts
            .insert_if_current(changes, clients, client_id.clone(), client);
        client.value.verify(mac, secret_id);
        let listed = client.value.listed_secret(secret_id);
        let expires_at = listed.and_then(|live| live.expires_at);
        let inserted = self.store.insert_verified_secret(client_id, secret, expires_at);
        if let Err(error) = inserted.await {
            tracing::warn!(%error, %client_id, "a verified secret was not stored");
        }
        Ok(client)
    }

    /// Returns the client, if it is active.
    async fn active_client(&self, client_id: &ClientId) -> Result<FactAsOf<KnownClient>> {
        let client = self.find_client(client_id).await?;
        require_active(client.ok_or(Error::InvalidClient("there is no such client"))?)
    }

    /// Removes stored secrets that have expired or were revoked, of each client that has changed.
    pub(super) async fn retain_verified_secrets(&self) {
        let mut changed = self.facts.take_changed_clients().into_iter();
        while let Some(client_id) = changed.next() {
            let retained = match self.find_client(&client_id).await {
                Ok(client) => {
                    let live = client
                        .as_ref()
                        .map_or(&[][..], |client| &client.value.live_secrets);
                    self.store.retain_verified_secrets(&client_id, live).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = retained {
                tracing::warn!(%error, %client_id, "expired or revoked secrets were not removed");
                // The next run tries these clients again.
                for client_id in std::iter::once(client_id).chain(changed) {
                    self.facts.note_changed_client(&client_id);
                }
                return;
            }
        }
    }

    /// Returns whether this secret was verified before, and records its use. Fails if the registry has rejected it
    /// before. A secret that the cached client does not list may still be valid: the partner may have claimed it a
    /// moment ago.
    fn is_known(&self, client: &KnownClient, secret_id: &SecretId, mac: &[u8; 32]) -> Result<bool> {
        if self.record_verified_use(client, mac) {
            return Ok(true);
        }
        if client.is_rejected(secret_id) && !client.lists_secret(secret_id, self.clock.now()) {
            return Err(Error::InvalidClient("the secret has expired or was revoked"));
        }
        Ok(false)
    }

    /// Records a use, if the secret with this MAC was verified before and is live. Returns whether it is.
    fn record_verified_use(&self, client: &KnownClient, mac: &[u8; 32]) -> bool {
        let now = self.clock.now();
        let Some(secret) = client.verified(mac, now) else {
            return false;
        };
        self.uses.record(&client.client_id, secret, now);
        true
    }

    fn mac(&self, client_id: &ClientId, client_secret: &ClientSecret) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.mac_key);
        // All Client IDs have the same length, so no two pairs give the same bytes.
        context.update(client_id.as_str().as_bytes());
        context.update(client_secret.expose().as_bytes());
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Returns a fact from memory, or reads it in a group with those that other callers wait for. `to_key` makes its
    /// key in the group, `select` selects the facts of its kind.
    async fn fact<K: Eq + Hash + Clone, T>(
        &self,
        facts: &FactCache<K, T>,
        key: &K,
        to_key: fn(K) -> FactKey,
        select: fn(&ReadFacts) -> &HashMap<K, FactAsOf<T>>,
    ) -> Result<Option<FactAsOf<T>>> {
        if let Some(fact) = self.facts.look_up(&self.registry_changes, facts, key) {
            return Ok(Some(fact));
        }
        // On the heap: otherwise this future enlarges every call, including those served from memory.
        Box::pin(async {
            let read = wait_for_others(self.reads.submit(to_key(key.clone()))).await?;
            let found = read.map_err(|error| match error {
                StoreError::Unavailable(_) => Error::RegistryUnavailable,
                error => Error::Internal(error.into()),
            })??;
            Ok(select(&found).get(key).cloned())
        })
        .await
    }

    /// Returns a client.
    pub async fn find_client(&self, client_id: &ClientId) -> Result<Option<FactAsOf<KnownClient>>> {
        let clients = &self.facts.clients;
        self.fact(clients, client_id, FactKey::Client, |found| &found.clients)
            .await
    }

    /// Returns a tenant.
    pub async fn find_tenant(&self, tenant_id: &TenantId) -> Result<Option<FactAsOf<Tenant>>> {
        let tenants = &self.facts.tenants;
        self.fact(tenants, tenant_id, FactKey::Tenant, |found| &found.tenants)
            .await
    }

    /// Returns a tenant that must exist.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tenant(&self, tenant_id: &TenantId) -> Result<FactAsOf<Tenant>> {
        let tenant = self.find_tenant(tenant_id).await?;
        tenant.ok_or(Error::NotFound("tenant"))
    }

    /// Returns a tenant's user.
    pub async fn find_user(&self, tenant_id: &TenantId, user_id: &UserId) -> Result<Option<FactAsOf<User>>> {
        let (users, key) = (&self.facts.users, (tenant_id.clone(), user_id.clone()));
        self.fact(users, &key, FactKey::User, |found| &found.users).await
    }

    /// Returns the caller with this credential; `None` if it is unknown, or its caller is revoked.
    ///
    /// Also caches certificates that name no caller, until a method rejects them: a partner sends one with every call. Their number is bounded by what the
    /// authorities of `--client-ca` have signed. Tokens can be made up, so unknown tokens are not cached.
    pub async fn caller(&self, credential: Credential<'_>) -> Result<Option<Caller>> {
        let (changes, callers) = (&self.registry_changes, &self.facts.callers);
        let digest = credential.digest();
        let known = || self.facts.find(changes, callers, &digest);
        let mut caller = known();
        callers.count(caller.is_some());
        if caller.is_none() {
            let _permit = wait_for_others(self.caller_reads.acquire()).await?;
            caller = known();
            if caller.is_none() {
                // An answer reflects what was committed before it was asked for, and so all that has been applied by now.
                let applied = changes.lease();
                // On the heap: otherwise this future enlarges every call, including those served from memory.
                let read = match (Box::pin(self.registry.caller(credential)).await?, credential) {
                    (None, Credential::Certificate(_)) => applied.map(|applied| applied.map(|()| None)),
                    (read, _) => read.map(|read| read.map(Some)),
                };
                caller = read.map(|read| self.facts.insert_if_current(changes, callers, digest, read));
            }
        }
        Ok(caller.and_then(|caller| Option::clone(&caller.value)))
    }

    /// Forgets a certificate that was rejected, so that the registry is asked about the next call too: it records calls with a
    /// revoked certificate.
    pub fn forget_caller(&self, credential: Credential<'_>) {
        self.facts.callers.remove(&credential.digest());
    }

    /// Returns at most `limit` revocations of clients, tenants and users after a position of the registry's feed.
    pub async fn registry_revocations_after(&self, seq: i64, limit: usize) -> Result<Revocations> {
        let changes = &self.registry_changes;
        changes.revocations_after(&self.facts, seq, limit).await
    }

    /// Reports uses of secrets and removes stored secrets that expired or were revoked, every [`REPORT_EVERY`] until
    /// `stop`. Then reports once more. Ends at most [`FINISH_TIMEOUT`] after `stop`.
    pub(super) async fn report_secret_uses(&self, stop: &CancellationToken) {
        let reports = async {
            let mut ticks = interval(REPORT_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                // Finishes a report that has begun: its uses are no longer in memory.
                self.report().await;
                stop.run_until_cancelled(self.retain_verified_secrets()).await;
            }
            self.report().await;
        };
        let time_is_up = async {
            stop.cancelled().await;
            sleep(FINISH_TIMEOUT).await;
        };
        tokio::select! {
            () = reports => {}
            () = time_is_up => tracing::warn!("the last uses of secrets were not reported in time"),
        }
    }

    async fn report(&self) {
        loop {
            let taken = self.uses.take(MAX_USES);
            if taken.is_empty() {
                return;
            }
            let count = taken.len();
            let uses: Vec<_> = taken.iter().map(|(_, used)| used.clone()).collect();
            if let Err(error) = self.registry.report_secret_use(&uses).await {
                tracing::warn!(%error, count, "uses of secrets were not reported");
                for (secret, used) in taken {
                    self.uses.record(&used.client_id, secret, used.used_at);
                }
                return;
            }
            // Uses from now on wait for the next report. Otherwise a busy client would keep this loop running.
            if count < MAX_USES {
                return;
            }
        }
    }
}

fn require_active(client: FactAsOf<KnownClient>) -> Result<FactAsOf<KnownClient>> {
    let is_active = client.value.active;
    is_active
        .then_some(client)
        .ok_or(Error::InvalidClient("the client is suspended"))
}

/// Waits for other calls, at most [`WAIT_LIMIT`]. Calls that take longer than that hang at the registry or at a database,
/// and this one would hang there, too.
async fn wait_for_others<T>(wait: impl Future<Output = T>) -> Result<T> {
    let entered = timeout(WAIT_LIMIT, wait).await;
    entered.map_err(|_elapsed| Error::RegistryUnavailable)
}
