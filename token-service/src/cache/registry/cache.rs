//! What is remembered of the registry, and up to which of its changes. Asks nobody.
//!
//! An answer is kept only if it was read at the position that the feed has told of, or later: otherwise a
//! change that it does not know may have gone by already. From then on the feed takes it away when it
//! changes. So whatever is here reflects all changes up to the feed's position.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use accord::{
    clock::UnixMillis,
    position::Position,
    rpc::auth::Caller,
    text::id::{ClientId, SecretId, TenantId, UserId},
};
use tokio::time::Instant;

use crate::model::client::SecretUse;
use crate::{
    cache::{
        bounded::Bounded,
        follower::Followed,
        revocation_index::{Ended, Recent},
    },
    error::Error,
    model::{
        change::{Change, Changes},
        client::Client,
        tenant::Tenant,
        user::User,
        watermark::At,
    },
};

/// The most that remembered clients may take, in bytes.
const MOST_CLIENT_BYTES: usize = 64 * 1024 * 1024;
/// The most that remembered tenants, users and callers may take, each.
const MOST_OTHER_BYTES: usize = 16 * 1024 * 1024;
/// The most secrets of a client that are remembered as verified.
const MOST_SECRETS: usize = 16;
/// Besides texts, what anything remembered takes, roughly.
const OVERHEAD: usize = 256;

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
    client: Option<Arc<Client>>,
    verified: Vec<Verified>,
}

/// What is known of a secret that was brought.
pub(super) enum Proven {
    /// It is right, and this is its client.
    Client(At<Arc<Client>>),
    /// It is right, up to this position and moment; its client has to be read.
    Alone(Position, Instant),
}

/// The memory.
pub(super) struct Cache {
    /// Whether questions are answered from memory at all.
    answers: bool,
    /// How long what the feed told counts.
    life: Duration,
    state: Mutex<State>,
}

struct State {
    followed: Followed,
    clients: Bounded<ClientId, KnownClient>,
    tenants: Bounded<TenantId, Arc<Tenant>>,
    users: Bounded<UserId, (TenantId, Arc<User>)>,
    /// By the SHA-256 of their token.
    callers: Bounded<[u8; 32], Caller>,
    /// Whose access tokens ended lately.
    ended: Recent,
    /// Uses of secrets that the registry does not know of yet.
    uses: HashMap<SecretId, SecretUse>,
}

impl Cache {
    /// Remembers nothing yet.
    pub(super) fn new(answers: bool, life: Duration) -> Self {
        Self {
            answers,
            life,
            state: Mutex::new(State {
                followed: Followed::default(),
                clients: Bounded::new(MOST_CLIENT_BYTES),
                tenants: Bounded::new(MOST_OTHER_BYTES),
                users: Bounded::new(MOST_OTHER_BYTES),
                callers: Bounded::new(MOST_OTHER_BYTES),
                ended: Recent::default(),
                uses: HashMap::new(),
            }),
        }
    }

    /// How long what the feed told counts.
    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// Whether a client's secret is known to be right. Counts as a use of it.
    pub(super) fn proven(
        &self,
        client_id: &ClientId,
        mac: &[u8; 32],
        now: UnixMillis,
        at: Instant,
    ) -> Option<Proven> {
        let mut state = self.state();
        let (position, asked_at) = self.lease(&state, at)?;
        let State { clients, uses, .. } = &mut *state;
        let known = clients.get(client_id)?;
        // Both are MACs under a key that nobody has: comparing them tells nothing.
        let verified = known.verified.iter().find(|verified| verified.mac == *mac)?;
        if verified.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        match uses.get_mut(&verified.secret_id) {
            Some(used) => used.used_at = now,
            None => {
                let used = SecretUse {
                    client_id: client_id.clone(),
                    secret_id: verified.secret_id.clone(),
                    used_at: now,
                };
                uses.insert(used.secret_id.clone(), used);
            }
        }
        Some(match &known.client {
            Some(client) => Proven::Client(At {
                value: client.clone(),
                position,
                asked_at,
            }),
            None => Proven::Alone(position, asked_at),
        })
    }

    pub(super) fn client(&self, client_id: &ClientId, at: Instant) -> Option<At<Arc<Client>>> {
        self.known(at, |state| state.clients.get(client_id)?.client.clone())
    }

    pub(super) fn tenant(&self, tenant_id: &TenantId, at: Instant) -> Option<At<Arc<Tenant>>> {
        self.known(at, |state| state.tenants.get(tenant_id).cloned())
    }

    pub(super) fn user(&self, tenant_id: &TenantId, user_id: &UserId, at: Instant) -> Option<At<Arc<User>>> {
        self.known(at, |state| {
            let (tenant, user) = state.users.get(user_id)?;
            (tenant == tenant_id).then(|| user.clone())
        })
    }

    pub(super) fn caller(&self, digest: &[u8; 32], at: Instant) -> Option<Caller> {
        let caller = self.known(at, |state| state.callers.get(digest).cloned())?;
        Some(caller.value)
    }

    /// Whose tokens ended behind a position, at most so many, and up to where and since when that is all;
    /// `None` without a lease.
    ///
    /// # Errors
    /// [`Error::TooManyRevocations`].
    pub(super) fn ended_after(
        &self,
        seq: i64,
        limit: usize,
        at: Instant,
    ) -> Result<Option<At<Vec<Ended>>>, Error> {
        let state = self.state();
        let lease = state.followed.lease(at, self.life);
        lease
            .map(|lease| state.ended.told_after(lease, seq, limit))
            .transpose()
    }

    fn known<T>(&self, at: Instant, find: impl FnOnce(&mut State) -> Option<T>) -> Option<At<T>> {
        let mut state = self.state();
        let (position, asked_at) = self.lease(&state, at)?;
        Some(At {
            value: find(&mut state)?,
            position,
            asked_at,
        })
    }

    /// Whether questions are answered from memory now.
    pub(super) fn has_lease(&self, at: Instant) -> bool {
        self.lease(&self.state(), at).is_some()
    }

    fn lease(&self, state: &State, at: Instant) -> Option<(Position, Instant)> {
        state.followed.lease(at, self.life).filter(|_| self.answers)
    }

    /// Remembers a client; with the secret that it was proven by, if it was.
    pub(super) fn keep_client(&self, client: &At<Arc<Client>>, verified: Option<Verified>) {
        let mut state = self.state();
        if !(self.answers && state.followed.covers(&client.position)) {
            return;
        }
        let client_id = client.value.client_id.clone();
        let before = state.clients.remove(&client_id);
        let mut secrets = before.map(|known| known.verified).unwrap_or_default();
        if let Some(verified) = verified {
            secrets.retain(|known| known.secret_id != verified.secret_id);
            secrets.truncate(MOST_SECRETS - 1);
            secrets.insert(0, verified);
        }
        let bytes = weight(&client.value) + secrets.len() * OVERHEAD;
        let known = KnownClient {
            client: Some(client.value.clone()),
            verified: secrets,
        };
        state.clients.put(client_id, known, bytes);
    }

    pub(super) fn keep_tenant(&self, tenant: &At<Arc<Tenant>>) {
        let mut state = self.state();
        if self.answers && state.followed.covers(&tenant.position) {
            let known = &tenant.value;
            let bytes = OVERHEAD + known.display_name.len() + known.issuer.len() + known.cloud_api_url.len();
            state.tenants.put(known.tenant_id.clone(), known.clone(), bytes);
        }
    }

    pub(super) fn keep_user(&self, tenant_id: &TenantId, user: &At<Arc<User>>) {
        let mut state = self.state();
        if self.answers && state.followed.covers(&user.position) {
            let known = (tenant_id.clone(), user.value.clone());
            let bytes = OVERHEAD + user.value.label.len();
            state.users.put(user.value.user_id.clone(), known, bytes);
        }
    }

    pub(super) fn keep_caller(&self, digest: [u8; 32], caller: &At<Caller>) {
        let mut state = self.state();
        if self.answers && state.followed.covers(&caller.position) {
            state.callers.put(digest, caller.value.clone(), OVERHEAD);
        }
    }

    /// The position after which changes are wanted; `None` before the first answer.
    pub(super) fn position(&self) -> Option<Position> {
        self.state().followed.position().cloned()
    }

    /// Takes away what changed, in an answer to a question that was sent at `asked_at`.
    pub(super) fn apply(&self, told: Changes, asked_at: Instant) {
        let now = Instant::now();
        let mut state = self.state();
        for change in &told.changes {
            state.forget(change);
        }
        for (kind, id, seq) in told.ended {
            state.ended.insert(Ended { kind, id, seq }, now);
        }
        state.ended.tidy(now);
        // Changes that wait behind this answer are not known yet: it renews nothing.
        let complete_at = (!told.more).then_some(asked_at);
        state.followed.advance(told.position, complete_at);
    }

    /// Forgets everything: the feed is another one, went back, or was never followed. What is known next
    /// begins with what ended lately, behind `position`.
    pub(super) fn restart(&self, position: Position) {
        let mut state = self.state();
        state.forget_everything();
        state.ended.clear();
        state.followed.restart(position);
    }

    /// Whether all that was committed before this moment is known.
    pub(super) fn is_complete_since(&self, wanted_at: Instant) -> bool {
        self.state().followed.is_complete_since(wanted_at)
    }

    /// Whether revocations were left out that there is room for now.
    pub(super) fn may_catch_up(&self) -> bool {
        self.state().ended.may_catch_up()
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, change: &Change) {
        match change {
            Change::Client(id) => {
                self.clients.remove(id);
            }
            Change::Tenant(id) => {
                self.tenants.remove(id);
            }
            Change::User(_, user_id) => {
                self.users.remove(user_id);
            }
            // Which clients have the scope is not known here. Their secrets are as good as before: else one
            // new scope would send every client to the slow hash at once.
            Change::Scope => {
                for known in self.clients.values_mut() {
                    known.client = None;
                }
            }
            Change::Caller(id) => self.callers.retain(|caller| caller.id() != id),
            Change::Unknown => self.forget_everything(),
        }
    }

    fn forget_everything(&mut self) {
        self.clients.clear();
        self.tenants.clear();
        self.users.clear();
        self.callers.clear();
    }
}

/// What a client takes in memory, roughly.
fn weight(client: &Client) -> usize {
    let scopes = client.scopes.iter();
    let scopes: usize = scopes
        .map(|scope| scope.description.len() + scope.reason.len() + 128)
        .sum();
    let uris: usize = client.redirect_uris.iter().map(|uri| uri.len() + 32).sum();
    2 * OVERHEAD
        + scopes
        + uris
        + client.tenant_ids.len() * 64
        + client.profile.size()
        + client.json_web_key_set.len()
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
