//! Facts of this service's own database: grants, revocations, signing keys.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use accord::{
    position::Position,
    store::change::ChangeRow,
    text::id::{ClientId, GrantId, TenantId},
};
use tokio::time::Instant;

use super::{Cache, Cached, Revocations, follower::ChangeSource};
use crate::{
    error::{Error, Result},
    model::{
        change::{Change, Changes},
        grant::{Grant, StoredState},
        revocation::{Revocation, RevocationKind},
        signing_key::{Keys, Signer},
        watermark::AsOf,
    },
    store::{Store, change_kind},
};

/// How long a revocation matters: longer than an access token's lifetime plus the difference between the clocks of
/// replicas.
const RECENT: Duration = Duration::from_secs(25 * 60);
/// The most changes in one answer.
const MAX_CHANGES: u64 = 500;

/// A grant, if there is one, and how current the answer is.
type GrantAsOf = AsOf<Option<Arc<Cached<Grant>>>>;

impl ChangeSource for Store {
    const NAME: &'static str = "own database";

    fn unavailable() -> Error {
        Error::Unavailable
    }

    /// Revocations come from their own rows too, which carry MACs: whoever edits the feed can add a revocation, but hide none.
    /// Without the row, which goes when the tokens have expired, the feed's word counts.
    async fn changes_after(&self, after: Option<&Position>) -> Result<Changes> {
        let read = self.changes_after(after, MAX_CHANGES).await?;
        let mut revocations = match after {
            Some(Position { seq, .. }) if !read.reset && *seq < read.position.seq => {
                self.revocations_between(*seq, read.position.seq).await?
            }
            _ => BTreeMap::new(),
        };
        let recent_seq = match after {
            Some(_) if !read.reset => 0,
            _ => self.seq_before(self.now().minus(RECENT)).await?,
        };
        let mut changes = Vec::with_capacity(read.changes.len());
        for row in read.changes {
            let seq = row.seq;
            let from_feed = change(row);
            changes.extend(revocations.remove(&seq).filter(|own| *own != from_feed));
            changes.push(from_feed);
        }
        changes.extend(revocations.into_values());
        Ok(Changes {
            changes,
            position: read.position,
            recent_seq,
            reset: read.reset,
            more: read.more,
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
    /// Catches up after this process has ended a grant, a family or a token, so that memory reflects it before the
    /// response leaves. Other replicas read it from the feed. A failure is only logged: if the database does not
    /// answer, the lease ends too.
    pub async fn catch_up_or_log(&self) {
        if let Err(error) = self.own_changes.catch_up(&self.facts).await {
            tracing::warn!(%error, "memory does not reflect the last change yet");
        }
    }

    /// Returns the feed's position. What is read after this call reflects all changes up to it. Takes no lock while the
    /// lease lasts.
    pub async fn own_position(&self) -> Result<AsOf<()>> {
        match self.own_changes.lease() {
            Some(lease) => Ok(lease),
            None => Box::pin(self.read(async { Ok(()) })).await,
        }
    }

    /// Returns the client's grant at the tenant, if its stored state is active. There is at most one such grant.
    pub async fn current_grant(&self, client_id: &ClientId, tenant_id: &TenantId) -> Result<GrantAsOf> {
        if let Some(lease) = self.own_changes.lease()
            && let Some(entry) = self.facts.entries.get(&(client_id.clone(), tenant_id.clone()))
            && entry.grant.is_current()
        {
            return Ok(lease.map(|()| Some(entry.grant.clone())));
        }
        let read = Box::pin(self.store.find_current_grant(tenant_id, client_id)).await?;
        Ok(Box::pin(self.cache_grant(read)).await)
    }

    /// Returns a tenant's grant in any state.
    pub async fn grant(&self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<GrantAsOf> {
        if let Some(known) = self
            .facts
            .look_up(&self.own_changes, &self.facts.grants, grant_id)
            && known.value.tenant_id == *tenant_id
        {
            return Ok(known.map(Some));
        }
        let read = Box::pin(self.read(self.store.find_grant(tenant_id, grant_id))).await?;
        Ok(Box::pin(self.cache_grant(read)).await)
    }

    /// Caches a grant that was read, if its stored state is active. Catches up if the read is newer than the revocations
    /// in memory. Otherwise a new token could carry a lower position than the last revocation of its grant.
    async fn cache_grant(&self, read: AsOf<Option<Grant>>) -> GrantAsOf {
        let is_behind = self.own_changes.is_behind(&read.position);
        let (grant, as_of) = read.split();
        let kept = match grant {
            Some(grant) if grant.state == StoredState::Active => {
                let (grants, key) = (&self.facts.grants, grant.grant_id.clone());
                let read = as_of.clone().map(|()| grant);
                Some(
                    self.facts
                        .insert_if_current(&self.own_changes, grants, key, read)
                        .value,
                )
            }
            grant => grant.map(Cached::uncached),
        };
        if is_behind {
            self.catch_up_or_log().await;
        }
        as_of.map(|()| kept)
    }

    /// Returns the last position after `seq` at which one of `named` was revoked, if there is one.
    pub async fn last_revocation_after(
        &self,
        seq: i64,
        named: &[(RevocationKind, &str)],
    ) -> Result<AsOf<Option<i64>>> {
        if let Some(known) = self.own_changes.last_revocation_after(seq, named) {
            return Ok(known);
        }
        if self.own_changes.is_unusable() {
            // A row that was edited no longer says what it revoked, so that a search for it would find nothing.
            self.own_changes.catch_up(&self.facts).await?;
        }
        let last = Box::pin(self.read(self.store.last_revocation(named))).await?;
        Ok(last.map(|last| last.filter(|last| *last > seq)))
    }

    /// Returns at most `limit` revocations after a position of this database's feed.
    pub async fn own_revocations_after(&self, seq: i64, limit: usize) -> Result<Revocations> {
        self.own_changes.revocations_after(&self.facts, seq, limit).await
    }

    /// Returns the signing keys that are not revoked, and the one that signs. Takes no lock while they are in memory.
    pub async fn keys(&self) -> Result<AsOf<Arc<Keys>>> {
        let known = self.own_changes.lease().zip(self.facts.keys.load_full());
        self.facts.key_reads.count(known.is_some());
        if let Some((lease, keys)) = known {
            return Ok(lease.map(|()| keys));
        }
        self.read_keys_again().await
    }

    /// Reads the signing keys, and puts them in the place of those in memory.
    pub(super) async fn read_keys_again(&self) -> Result<AsOf<Arc<Keys>>> {
        let read = Box::pin(self.read(self.read_keys())).await?.map(Arc::new);
        let _applying = self.facts.applying.lock();
        if self.own_changes.is_covered_by(&read.position) {
            self.facts.keys.store(Some(read.value.clone()));
        }
        Ok(read)
    }

    async fn read_keys(&self) -> Result<Keys> {
        let kid = self.store.active_signing_key().await?;
        let known = self.signer.lock().clone().filter(|signer| signer.kid == kid);
        let signer = match known {
            Some(signer) => signer,
            None => {
                let (algorithm, pkcs8) = self.store.unseal_signing_key(&kid).await?;
                let signer = Arc::new(Signer::new(kid, algorithm, &pkcs8)?);
                *self.signer.lock() = Some(signer.clone());
                signer
            }
        };
        Keys::new(signer, self.store.live_signing_keys().await?)
    }

    /// Reads the position first and the answer second, so that the answer reflects at least the changes up to the
    /// position. Callers put this future on the heap: otherwise it enlarges every call, also those that memory answers.
    async fn read<T>(&self, answer: impl Future<Output = Result<T>>) -> Result<AsOf<T>> {
        let sent_at = Instant::now();
        let position = self.store.position().await?;
        Ok(AsOf {
            value: answer.await?,
            position,
            sent_at,
        })
    }
}
