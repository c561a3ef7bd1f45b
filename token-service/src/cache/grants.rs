//! What this service's own database says: grants, revocations, signing keys.

use std::{sync::Arc, time::Duration};

use accord::{
    position::Position,
    store::change::{ChangeRow, FeedPage},
    text::id::{ClientId, GrantId, TenantId},
};
use tokio::time::Instant;

use super::{Cache, Cached, facts::grant_bytes, follower::ChangeSource};
use crate::{
    error::Error,
    model::{
        change::{Change, Changes},
        grant::{Grant, StoredState},
        revocation::{Revocation, RevocationKind},
        signing_key::{Keys, Signer},
        watermark::AsOf,
    },
    store::{Store, change_kind},
};

/// Revocations from before this long ago no longer matter: more than an access token's life, and what the clocks of
/// replicas may differ.
const RECENT: Duration = Duration::from_secs(25 * 60);
/// The most changes in one answer.
const MAX_CHANGES: u64 = 500;

impl ChangeSource for Store {
    const NAME: &'static str = "own database";

    fn unavailable() -> Error {
        Error::Unavailable
    }

    async fn changes_after(&self, after: Option<&Position>) -> Result<Changes, Error> {
        let FeedPage {
            changes,
            position,
            reset,
            more,
        } = self.changes_after(after, MAX_CHANGES).await?;
        let recent_seq = if reset || after.is_none() {
            self.seq_before(self.now().minus(RECENT)).await?
        } else {
            0
        };
        Ok(Changes {
            changes: changes.into_iter().map(change).collect(),
            position,
            recent_seq,
            reset,
            more,
        })
    }
}

fn change(row: ChangeRow) -> Change {
    match row.kind.as_str() {
        change_kind::GRANT => GrantId::parse(&row.id).map_or(Change::Unknown, Change::Grant),
        change_kind::SIGNING_KEY => Change::SigningKeys,
        change_kind::REVOCATION => match RevocationKind::from_change(&row.id) {
            Some((kind, id)) => Change::Revocation(Revocation {
                kind,
                id: id.to_owned(),
                seq: row.seq,
            }),
            None => Change::UnknownRevocation,
        },
        _ => Change::Unknown,
    }
}

impl Cache {
    /// Applies every change of this database that was committed before this call.
    pub async fn catch_up(&self) -> Result<(), Error> {
        self.own_changes.catch_up(&self.facts).await
    }

    /// [`Self::catch_up`] after something was ended here and committed, so that this process knows it before it
    /// answers; other replicas learn it by following. If the database does not answer, the lease is not renewed
    /// either.
    pub async fn learn(&self) {
        if self.facts.enabled
            && let Err(error) = self.catch_up().await
        {
            tracing::warn!(%error, "what was ended here is not in memory yet");
        }
    }

    /// The feed's position: what is read after this call reflects all changes up to it. Takes no lock.
    pub async fn own_position(&self) -> Result<AsOf<()>, Error> {
        match self.facts.lease_of(&self.own_changes) {
            Some(lease) => Ok(lease),
            None => Box::pin(self.read(async { Ok(()) })).await,
        }
    }

    /// The one grant of a tenant to a client whose stored state is active, if there is one.
    pub async fn current_grant(
        &self,
        client_id: &ClientId,
        tenant_id: &TenantId,
    ) -> Result<AsOf<Option<Arc<Cached<Grant>>>>, Error> {
        if let Some(lease) = self.facts.lease_of(&self.own_changes)
            && let Some(entry) = self.facts.entries.get(&(client_id.clone(), tenant_id.clone()))
            && entry.grant.is_current()
        {
            return Ok(lease.map(|()| Some(entry.grant.clone())));
        }
        let read = Box::pin(self.read(self.store.find_current_grant(tenant_id, client_id))).await?;
        Ok(Box::pin(self.keep_grant(read)).await)
    }

    /// A tenant's grant, whatever its state.
    pub async fn grant(
        &self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<AsOf<Option<Arc<Cached<Grant>>>>, Error> {
        if let Some(known) = self.facts.find(&self.own_changes, &self.facts.grants, grant_id)
            && known.value.tenant_id == *tenant_id
        {
            return Ok(known.map(Some));
        }
        let read = Box::pin(self.read(self.store.find_grant(tenant_id, grant_id))).await?;
        Ok(Box::pin(self.keep_grant(read)).await)
    }

    /// Keeps a grant that was read, if it is active. If it is newer than the revocations in memory, catches up:
    /// otherwise a token could be made of it that seems older than the last revocation of its grant.
    async fn keep_grant(&self, read: AsOf<Option<Grant>>) -> AsOf<Option<Arc<Cached<Grant>>>> {
        let is_behind = self.own_changes.is_behind(&read.position);
        let (grant, read) = read.split();
        let kept = grant.map(|grant| match grant.state {
            StoredState::Active => {
                let key = grant.grant_id.clone();
                let read = read.clone().map(|()| grant);
                let kept = self
                    .facts
                    .keep(&self.own_changes, &self.facts.grants, key, read, |grant| {
                        let bytes = grant_bytes(&grant);
                        (grant, bytes)
                    });
                kept.value
            }
            _ => Cached::detached(grant),
        });
        if is_behind {
            self.learn().await;
        }
        read.map(|()| kept)
    }

    /// The last position after `seq` at which one of these was revoked, if any was, of revocations whose tokens may
    /// still live.
    pub async fn last_revocation_after(
        &self,
        seq: i64,
        named: &[(RevocationKind, &str)],
    ) -> Result<AsOf<Option<i64>>, Error> {
        let known = self.own_changes.last_revocation_after(seq, named);
        match known.filter(|_| self.facts.enabled) {
            Some(known) => Ok(known),
            None => {
                let last = Box::pin(self.read(self.store.last_revocation(named))).await?;
                Ok(last.map(|last| last.filter(|last| *last > seq)))
            }
        }
    }

    /// At most `limit` revocations after a position of this database's feed.
    pub async fn own_revocations_after(
        &self,
        seq: i64,
        limit: usize,
    ) -> Result<AsOf<Vec<Revocation>>, Error> {
        self.own_changes.revocations_after(&self.facts, seq, limit).await
    }

    /// The signing keys that are not revoked, and the one that signs. Takes no lock while they are in memory.
    pub async fn keys(&self) -> Result<AsOf<Arc<Keys>>, Error> {
        if let Some(lease) = self.facts.lease_of(&self.own_changes)
            && let Some(keys) = self.facts.keys.load_full()
        {
            return Ok(lease.map(|()| keys));
        }
        let read = Box::pin(self.read(self.read_keys())).await?.map(Arc::new);
        let _applying = self.facts.applying.lock();
        if self.facts.enabled && self.own_changes.covers(&read.position) {
            self.facts.keys.store(Some(read.value.clone()));
        }
        Ok(read)
    }

    async fn read_keys(&self) -> Result<Keys, Error> {
        let kid = self.store.active_signing_key().await?;
        let known = self.signer.lock().clone().filter(|signer| signer.kid() == kid);
        let signer = match known {
            Some(signer) => signer,
            None => {
                let pkcs8 = self.store.unseal_signing_key(&kid).await?;
                let signer = Arc::new(Signer::new(kid, &pkcs8)?);
                *self.signer.lock() = Some(signer.clone());
                signer
            }
        };
        Keys::new(signer, self.store.live_signing_keys().await?)
    }

    /// Reads the position first and the answer second: a change in between may show in the answer, and no change is
    /// claimed that doesn't. Callers put it on the heap: its size should not be part of every call that is answered
    /// from memory.
    async fn read<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<AsOf<T>, Error> {
        let asked_at = Instant::now();
        let position = self.store.position().await?;
        Ok(AsOf {
            value: answer.await?,
            position,
            asked_at,
        })
    }
}
