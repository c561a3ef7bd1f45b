//! What the registry says: clients and their secrets, tenants, users, callers.

use std::{sync::Arc, time::Duration};

use accord::{
    position::Position,
    rpc::auth::Caller,
    text::{
        id::{ClientId, SecretId, TenantId, UserId},
        opaque::{ClientSecret, OpaqueToken},
    },
};
use aws_lc_rs::hmac;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Cache, Cached, EntryAsOf,
    cached::OVERHEAD,
    facts::{client_bytes, tenant_bytes},
    follower::ChangeSource,
    verified_secrets::{KnownClient, VerifiedSecret},
};
use crate::{
    error::Error,
    model::{
        change::Changes,
        client::Client,
        revocation::Revocation,
        tenant::Tenant,
        user::User,
        watermark::{AsOf, LEASE},
    },
    registry::{Registry, UserRef},
};

/// How often uses of secrets are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The most uses in one report.
const MAX_USES: usize = 1_000;
/// How often the keys of tags are read without a lease.
const READ_TAG_KEYS_EVERY: Duration = Duration::from_secs(1);
/// How long a check of a secret waits for another one of the same secret: longer than a lease, so that a registry
/// that hangs has been noticed.
const CHECK_PATIENCE: Duration = Duration::from_secs(1);

impl ChangeSource for Registry {
    const NAME: &'static str = "registry";

    fn unavailable() -> Error {
        Error::RegistryUnavailable
    }

    async fn changes_after(&self, after: Option<&Position>) -> Result<Changes, Error> {
        self.changes_after(after).await
    }
}

/// A client that has proven itself.
#[derive(Debug)]
pub struct Authenticated {
    /// The client, which is active.
    pub client: AsOf<Arc<Cached<KnownClient>>>,
    /// Its entry at the tenant, if the proof came with it.
    pub entry: Option<EntryAsOf>,
}

impl Cache {
    /// Verifies a Client Secret. Its tag is checked first, so that a guess costs no query and no call, and takes the
    /// same time for every client. Then memory is asked, then this service's database, and the registry last: it
    /// runs argon2 once for each secret, whatever happens to the client and however many replicas there are.
    pub async fn authenticate_client(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        tenant_id: &TenantId,
    ) -> Result<Authenticated, Error> {
        if !secret.is_tagged_for(client_id, &**self.registry.tag_keys())
            && !Box::pin(self.is_tagged_now(client_id, secret)).await?
        {
            return Err(Error::InvalidClient);
        }
        let mac = self.mac(client_id, secret);
        if let Some(found) = self.entry(client_id, tenant_id)
            && self.is_verified(&found.entry.client, &mac)
        {
            let client = found.registry.clone().map(|()| found.entry.client.clone());
            return Ok(Authenticated {
                client: active(client)?,
                entry: Some(found),
            });
        }
        // On the heap: its size should not be part of every call that is answered from memory.
        let client = Box::pin(self.verify_client(client_id, secret, &mac)).await?;
        Ok(Authenticated { client, entry: None })
    }

    /// Checks a tag again if there may be keys that are not known here: with a lease there are none, and without one
    /// they are read once in a while.
    async fn is_tagged_now(&self, client_id: &ClientId, secret: &ClientSecret) -> Result<bool, Error> {
        if self.registry_changes.lease().is_some() {
            return Ok(false);
        }
        let mut read_at = self.tag_keys_read_at.lock().await;
        if read_at.is_none_or(|read_at| read_at.elapsed() >= READ_TAG_KEYS_EVERY) {
            *read_at = Some(Instant::now());
            let read = self.registry.changes_after(None).await;
            if self.registry.tag_keys().is_empty() {
                read?;
            }
        }
        let keys = self.registry.tag_keys();
        if keys.is_empty() {
            return Err(Error::RegistryUnavailable);
        }
        Ok(secret.is_tagged_for(client_id, &**keys))
    }

    async fn verify_client(
        &self,
        client_id: &ClientId,
        secret: &ClientSecret,
        mac: &[u8; 32],
    ) -> Result<AsOf<Arc<Cached<KnownClient>>>, Error> {
        let secret_id = secret.secret_id();
        let client = self.listed_client(client_id).await?;
        if self.is_known(&client.value, secret_id, mac)? {
            return Ok(client);
        }
        let check = self.checks.enter((client_id.clone(), secret_id.clone()));
        let Ok(_check) = timeout(CHECK_PATIENCE, check).await else {
            let since = Instant::now().checked_sub(LEASE);
            let answers = since.is_some_and(|since| self.registry_changes.is_complete_since(since));
            return Err(if answers {
                Error::Busy
            } else {
                Error::RegistryUnavailable
            });
        };
        // The call before may have verified the same secret.
        let client = self.listed_client(client_id).await?;
        if self.is_known(&client.value, secret_id, mac)? {
            return Ok(client);
        }
        let is_listed = client.value.lists_secret(secret_id, self.clock.now());
        if is_listed && self.store.is_verified_secret(client_id, secret).await? {
            client.value.verify(VerifiedSecret::new(*mac, secret_id.clone()));
            self.is_verified(&client.value, mac);
            return Ok(client);
        }
        let answer = self
            .registry
            .authenticate_client(client_id, secret.expose())
            .await;
        if let Err(Error::InvalidClient) = answer
            && !is_listed
        {
            client.value.reject(secret_id);
        }
        let client = self.keep_client(answer?);
        client.value.verify(VerifiedSecret::new(*mac, secret_id.clone()));
        let live = client.value.live_secrets.iter();
        let expires_at = live
            .filter(|live| live.secret_id == *secret_id)
            .find_map(|live| live.expires_at);
        let inserted = self
            .store
            .insert_verified_secret(client_id, secret, expires_at)
            .await;
        if let Err(error) = inserted {
            tracing::warn!(%error, %client_id, "a verified secret was not stored");
        }
        Ok(client)
    }

    /// The client, if it is active.
    async fn listed_client(&self, client_id: &ClientId) -> Result<AsOf<Arc<Cached<KnownClient>>>, Error> {
        match self.client(client_id).await {
            Err(Error::NotFound(_)) => Err(Error::InvalidClient),
            client => active(client?),
        }
    }

    /// Removes stored secrets that ended, of clients that changed.
    pub(super) async fn retain_verified_secrets(&self) {
        for client_id in self.facts.take_changed_clients() {
            let retained = match self.client(&client_id).await {
                Ok(client) => {
                    let live = &client.value.live_secrets;
                    self.store.retain_verified_secrets(&client_id, live).await
                }
                Err(Error::NotFound(_)) => self.store.retain_verified_secrets(&client_id, &[]).await,
                Err(error) => Err(error),
            };
            if let Err(error) = retained {
                tracing::warn!(%error, %client_id, "secrets that ended were not removed");
                self.facts.note_changed_client(&client_id);
                return;
            }
        }
    }

    /// Whether memory says that a secret is right. Fails if it says that the secret is not live; one that the client
    /// does not list may have been claimed a moment ago, so memory says so only after the registry did.
    fn is_known(&self, client: &KnownClient, secret_id: &SecretId, mac: &[u8; 32]) -> Result<bool, Error> {
        if self.is_verified(client, mac) {
            return Ok(true);
        }
        if client.is_rejected(secret_id) && !client.lists_secret(secret_id, self.clock.now()) {
            return Err(Error::InvalidClient);
        }
        Ok(false)
    }

    /// Whether a secret was verified and is live. Counts as a use of it.
    fn is_verified(&self, client: &KnownClient, mac: &[u8; 32]) -> bool {
        let now = self.clock.now();
        let secret = client.verified(mac, now);
        secret.is_some_and(|secret| {
            self.uses.note(&client.client_id, secret, now);
            true
        })
    }

    fn mac(&self, client_id: &ClientId, client_secret: &ClientSecret) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.mac_key);
        // A Client ID has one length, so that no two pairs give the same bytes.
        context.update(client_id.as_str().as_bytes());
        context.update(client_secret.expose().as_bytes());
        let mut mac = [0; 32];
        mac.copy_from_slice(context.sign().as_ref());
        mac
    }

    /// Reads a client.
    pub async fn client(&self, client_id: &ClientId) -> Result<AsOf<Arc<Cached<KnownClient>>>, Error> {
        if let Some(client) = self
            .facts
            .find(&self.registry_changes, &self.facts.clients, client_id)
        {
            return Ok(client);
        }
        let read = Box::pin(self.registry.client(client_id)).await?;
        Ok(self.keep_client(read))
    }

    fn keep_client(&self, read: AsOf<Client>) -> AsOf<Arc<Cached<KnownClient>>> {
        let key = read.value.client_id.clone();
        let clients = &self.facts.clients;
        self.facts
            .keep(&self.registry_changes, clients, key, read, |client| {
                let bytes = client_bytes(&client);
                let before = clients.get(&client.client_id);
                let known = KnownClient::new(client, before.as_deref().map(|before| &**before));
                (known, bytes)
            })
    }

    /// Reads a tenant.
    pub async fn tenant(&self, tenant_id: &TenantId) -> Result<AsOf<Arc<Cached<Tenant>>>, Error> {
        let (changes, tenants) = (&self.registry_changes, &self.facts.tenants);
        if let Some(tenant) = self.facts.find(changes, tenants, tenant_id) {
            return Ok(tenant);
        }
        let read = Box::pin(self.registry.tenant(tenant_id)).await?;
        Ok(self
            .facts
            .keep(changes, tenants, tenant_id.clone(), read, |tenant| {
                let bytes = tenant_bytes(&tenant);
                (tenant, bytes)
            }))
    }

    /// Reads a tenant's user.
    pub async fn user(
        &self,
        tenant_id: &TenantId,
        user_id: &UserId,
    ) -> Result<AsOf<Arc<Cached<User>>>, Error> {
        let (changes, users) = (&self.registry_changes, &self.facts.users);
        let key = (tenant_id.clone(), user_id.clone());
        if let Some(user) = self.facts.find(changes, users, &key) {
            return Ok(user);
        }
        let read = Box::pin(self.registry.user(tenant_id, UserRef::Id(user_id))).await?;
        Ok(self.facts.keep(changes, users, key, read, |user| {
            let bytes = OVERHEAD + user.label.len();
            (user, bytes)
        }))
    }

    /// The caller whose token this is; `None` for an unknown or revoked one.
    pub async fn caller(&self, token: &OpaqueToken) -> Result<Option<Caller>, Error> {
        let (changes, callers, key) = (&self.registry_changes, &self.facts.callers, token.digest());
        if let Some(caller) = self.facts.find(changes, callers, &key) {
            return Ok(Some(Caller::clone(&caller.value)));
        }
        let Some(read) = Box::pin(self.registry.caller(token)).await? else {
            return Ok(None);
        };
        let caller = self
            .facts
            .keep(changes, callers, key, read, |caller| (caller, OVERHEAD));
        Ok(Some(Caller::clone(&caller.value)))
    }

    /// At most `limit` revocations of clients, tenants and users after a position of the registry's feed.
    pub async fn registry_revocations_after(
        &self,
        seq: i64,
        limit: usize,
    ) -> Result<AsOf<Vec<Revocation>>, Error> {
        self.registry_changes
            .revocations_after(&self.facts, seq, limit)
            .await
    }

    /// Reports when secrets were used, until `stop` and once more.
    pub(super) async fn report_secret_uses(&self, stop: &CancellationToken) {
        let reports = async {
            let mut ticks = interval(REPORT_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.report().await;
                self.retain_verified_secrets().await;
            }
        };
        stop.run_until_cancelled(reports).await;
        self.report().await;
    }

    async fn report(&self) {
        loop {
            let taken = self.uses.take(MAX_USES);
            if taken.is_empty() {
                return;
            }
            let count = taken.len();
            let uses: Vec<_> = taken.iter().map(|(_, used)| used.clone()).collect();
            let reported = self.registry.report_secret_use(&uses).await;
            self.uses.settle(taken, reported.is_ok());
            if let Err(error) = reported {
                tracing::warn!(%error, count, "uses of secrets were not reported");
                return;
            }
            // Later uses wait for the next report; otherwise a busy client would make this endless.
            if count < MAX_USES {
                return;
            }
        }
    }
}

fn active(client: AsOf<Arc<Cached<KnownClient>>>) -> Result<AsOf<Arc<Cached<KnownClient>>>, Error> {
    if client.value.active {
        Ok(client)
    } else {
        Err(Error::InvalidClient)
    }
}
