//! What is remembered of this service's own database, and up to which of its changes. Asks nobody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use accord::{
    position::Position,
    store::change::{ChangeRow, Told},
    text::id::{ClientId, GrantId, ScopeName, TenantId},
};
use tokio::time::Instant;

use crate::{
    cache::{
        bounded::Bounded,
        follower::Followed,
        lease,
        revocation_index::{Ended, Recent},
    },
    error::Error,
    model::{
        grant::{Grant, StoredState},
        revocation::RevocationKind,
        signing_key::Keys,
        watermark::At,
    },
    store::change_kind,
};

/// The most that remembered grants may take, in bytes.
const MOST_GRANT_BYTES: usize = 64 * 1024 * 1024;
/// Besides texts, what a remembered grant takes, roughly.
const GRANT_OVERHEAD: usize = 768;

/// The memory.
pub(super) struct Cache {
    /// Whether questions are answered from memory at all.
    answers: bool,
    state: Mutex<State>,
}

struct State {
    followed: Followed,
    /// Grants whose stored state is active.
    grants: Bounded<GrantId, Arc<Grant>>,
    /// Of these, the one of a client at a tenant.
    current: HashMap<ClientId, HashMap<TenantId, GrantId>>,
    ended: Recent,
    keys: Option<Arc<Keys>>,
}

impl Cache {
    /// Remembers nothing yet.
    pub(super) fn new(answers: bool) -> Self {
        Self {
            answers,
            state: Mutex::new(State {
                followed: Followed::default(),
                grants: Bounded::new(MOST_GRANT_BYTES),
                current: HashMap::new(),
                ended: Recent::default(),
                keys: None,
            }),
        }
    }

    /// Whether questions are answered from memory at all.
    pub(super) fn answers(&self) -> bool {
        self.answers
    }

    pub(super) fn position_under_lease(&self, at: Instant) -> Option<At<()>> {
        self.known(at, |_| Some(()))
    }

    pub(super) fn grant(
        &self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
        at: Instant,
    ) -> Option<At<Arc<Grant>>> {
        self.known(at, |state| {
            let grant = state.grants.get(grant_id)?;
            (grant.tenant_id == *tenant_id).then(|| grant.clone())
        })
    }

    pub(super) fn current_grant(
        &self,
        tenant_id: &TenantId,
        client_id: &ClientId,
        at: Instant,
    ) -> Option<At<Arc<Grant>>> {
        self.known(at, |state| {
            let grant_id = state.current.get(client_id)?.get(tenant_id)?;
            state.grants.get(grant_id).cloned()
        })
    }

    pub(super) fn last_revocation(
        &self,
        named: &[(RevocationKind, &str)],
        at: Instant,
    ) -> Option<At<Option<i64>>> {
        self.known(at, |state| {
            let is_complete = state.ended.is_complete();
            is_complete.then(|| state.ended.last(named))
        })
    }

    pub(super) fn keys(&self, at: Instant) -> Option<At<Arc<Keys>>> {
        self.known(at, |state| state.keys.clone())
    }

    /// What ended behind a position, at most so much, and up to where and since when that is all; `None`
    /// without a lease.
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
        let lease = state.followed.lease(at, lease::LIFE);
        lease
            .map(|lease| state.ended.told_after(lease, seq, limit))
            .transpose()
    }

    fn known<T>(&self, at: Instant, find: impl FnOnce(&mut State) -> Option<T>) -> Option<At<T>> {
        if !self.answers {
            return None;
        }
        let mut state = self.state();
        let (position, asked_at) = state.followed.lease(at, lease::LIFE)?;
        Some(At {
            value: find(&mut state)?,
            position,
            asked_at,
        })
    }

    /// Remembers a grant that was read at this position, if it is active.
    pub(super) fn keep_grant(&self, grant: &Arc<Grant>, position: &Position) {
        let mut state = self.state();
        if self.answers && grant.state == StoredState::Active && state.followed.covers(position) {
            state.keep(grant.clone());
        }
    }

    pub(super) fn keep_keys(&self, keys: &At<Arc<Keys>>) {
        let mut state = self.state();
        if self.answers && state.followed.covers(&keys.position) {
            state.keys = Some(keys.value.clone());
        }
    }

    /// The position after which changes are wanted; `None` before the first answer.
    pub(super) fn position(&self) -> Option<Position> {
        self.state().followed.position().cloned()
    }

    /// Takes in what was told in answer to a question that was sent at `asked_at`.
    pub(super) fn apply(&self, told: Told, asked_at: Instant) {
        let now = Instant::now();
        let mut state = self.state();
        for change in told.changes {
            state.take_in(change, now);
        }
        state.ended.tidy(now);
        state
            .followed
            .advance(told.position, (!told.more).then_some(asked_at));
    }

    /// Forgets everything: the feed is another one, went back, or was never followed. What is known next
    /// begins with what ended lately, behind `position`.
    pub(super) fn restart(&self, position: Position) {
        let mut state = self.state();
        state.forget_everything();
        state.ended.clear();
        state.followed.restart(position);
    }

    /// Whether an answer of this position knows changes that are not known here.
    pub(super) fn is_behind(&self, position: &Position) -> bool {
        let state = self.state();
        let told = state.followed.position();
        told.is_some_and(|told| told.epoch != position.epoch || told.seq < position.seq)
    }

    /// Whether all that was committed before this moment is known.
    pub(super) fn is_complete_since(&self, wanted_at: Instant) -> bool {
        self.state().followed.is_complete_since(wanted_at)
    }

    /// Whether revocations were left out that there is room for now.
    pub(super) fn may_catch_up(&self) -> bool {
        self.state().ended.may_catch_up()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, grant: Arc<Grant>) {
        let of_client = self.current.entry(grant.client_id.clone()).or_default();
        of_client.insert(grant.tenant_id.clone(), grant.grant_id.clone());
        let bytes = weight(&grant);
        for gone in self.grants.put(grant.grant_id.clone(), grant, bytes) {
            self.is_not_current(&gone);
        }
    }

    fn forget(&mut self, grant_id: &str) {
        let Ok(grant_id) = GrantId::parse(grant_id) else {
            return;
        };
        if let Some(gone) = self.grants.remove(&grant_id) {
            self.is_not_current(&gone);
        }
    }

    fn is_not_current(&mut self, gone: &Grant) {
        if let Some(of_client) = self.current.get_mut(&gone.client_id) {
            if of_client.get(&gone.tenant_id) == Some(&gone.grant_id) {
                of_client.remove(&gone.tenant_id);
            }
            if of_client.is_empty() {
                self.current.remove(&gone.client_id);
            }
        }
    }

    fn take_in(&mut self, change: ChangeRow, now: Instant) {
        match change.kind.as_str() {
            change_kind::GRANT => self.forget(&change.id),
            change_kind::SIGNING_KEY => self.keys = None,
            change_kind::REVOCATION => {
                let Some((kind, id)) = RevocationKind::from_change(&change.id) else {
                    // A newer version wrote it. What it ends is not known here.
                    self.ended.leave_out();
                    return self.forget_everything();
                };
                match kind {
                    // A superseded grant has no change of its own.
                    RevocationKind::Grant => self.forget(id),
                    RevocationKind::Kid => self.keys = None,
                    _ => {}
                }
                let ended = Ended {
                    kind,
                    id: id.to_owned(),
                    seq: change.seq,
                };
                self.ended.insert(ended, now);
            }
            // A newer version wrote it.
            _ => self.forget_everything(),
        }
    }

    /// Forgets all but what ended, which stays so.
    fn forget_everything(&mut self) {
        self.grants.clear();
        self.current.clear();
        self.keys = None;
    }
}

/// What a grant takes in memory, roughly.
fn weight(grant: &Grant) -> usize {
    let scopes: usize = grant.scopes.iter().map(ScopeName::as_str).map(str::len).sum();
    GRANT_OVERHEAD + scopes + grant.scopes.len() * 24 + grant.profile.size()
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
