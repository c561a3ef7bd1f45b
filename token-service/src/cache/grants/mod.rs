//! What this service's own database says of grants, revocations and signing keys, from memory for as long
//! as that is known to hold, and else by reading.
//!
//! Other replicas write to the same database. So its feed of changes is followed as the registry's is (see
//! [`crate::cache::registry`]), under a lease of its own: without one every question goes to the database. Only
//! what stands is remembered: that a grant is not there, or is pending, is read each time.

use std::{fmt, sync::Arc, time::Duration};

use accord::{
    position::Position,
    text::id::{ClientId, GrantId, TenantId},
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cache::{follower, revocation_index::Ended},
    error::Error,
    model::{
        grant::Grant,
        revocation::RevocationKind,
        signing_key::{Keys, Signer},
        watermark::At,
    },
    store::Store,
};

mod cache;

use cache::Cache;

/// Where the changes begin that a memory is filled from: more than the life of an access token ago, and
/// what clocks of replicas may differ.
const RECENT: Duration = Duration::from_secs(25 * 60);
/// Changes in one reading.
const CHANGES: u64 = 500;

/// The database, read through a memory. Cheap to clone; clones remember together.
#[derive(Clone)]
pub struct Ledger {
    store: Store,
    cache: Arc<Cache>,
    /// The signing key that was unsealed last.
    signer: Arc<std::sync::Mutex<Option<Arc<Signer>>>>,
    /// Held while the feed is read: what it tells is applied in its order.
    reading: Arc<Mutex<()>>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Ledger {
    /// Remembers nothing yet. Answers from memory if the feed is followed, which `follows` says.
    pub fn new(store: Store, follows: bool) -> Self {
        Self {
            store,
            cache: Arc::new(Cache::new(follows)),
            signer: Arc::default(),
            reading: Arc::default(),
        }
    }

    /// Follows the feed until `stop`.
    pub async fn follow(&self, every: Duration, stop: &CancellationToken) {
        follower::follow("own", every, stop, || self.catch_up()).await;
    }

    /// Reads what changed, and on until nothing more waits. Who ends something calls this before it
    /// answers, so that it has ended in this process's memory, too; other replicas learn it by following.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn catch_up(&self) -> Result<(), Error> {
        let wanted_at = Instant::now();
        let caught_up = async {
            let _turn = self.reading.lock().await;
            // Whoever had the turn before may have read since.
            if self.cache.is_complete_since(wanted_at) {
                return Ok(());
            }
            self.read_in_turn().await
        };
        // Nobody keeps the turn for longer than its answer would be worth.
        timeout(follower::PATIENCE, caught_up)
            .await
            .unwrap_or(Err(Error::Unavailable))
    }

    async fn read_in_turn(&self) -> Result<(), Error> {
        let mut has_restarted = false;
        loop {
            let asked_at = Instant::now();
            let after = self.cache.position().filter(|_| !self.cache.may_catch_up());
            let told = self.store.changes_after(after.as_ref(), CHANGES).await?;
            if told.reset || after.is_none() {
                if has_restarted {
                    return Err(Error::Unavailable);
                }
                has_restarted = true;
                let recent = self.store.seq_before(self.store.now().minus(RECENT)).await?;
                self.cache.restart(Position {
                    seq: recent.min(told.position.seq),
                    epoch: told.position.epoch,
                });
                continue;
            }
            let more = told.more;
            self.cache.apply(told, asked_at);
            if !more {
                return Ok(());
            }
        }
    }

    /// [`Self::catch_up`] after something was ended that is committed: it has ended, whether or not this
    /// process could learn it from its database at once. If not, its lease is not renewed either.
    pub async fn learn(&self) {
        if self.cache.answers()
            && let Err(error) = self.catch_up().await
        {
            tracing::warn!(%error, "what was ended here is not in memory yet");
        }
    }

    /// The feed's position: what is read after this call reflects all changes up to it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn position(&self) -> Result<At<()>, Error> {
        match self.cache.position_under_lease(Instant::now()) {
            Some(known) => Ok(known),
            None => Box::pin(self.read(async { Ok(()) })).await,
        }
    }

    /// The one grant of a tenant to a client whose stored state is active, if there is one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn current_grant(
        &self,
        tenant_id: &TenantId,
        client_id: &ClientId,
    ) -> Result<At<Option<Arc<Grant>>>, Error> {
        if let Some(known) = self.cache.current_grant(tenant_id, client_id, Instant::now()) {
            return Ok(known.map(Some));
        }
        let read = Box::pin(self.read(self.store.find_current_grant(tenant_id, client_id))).await?;
        Ok(Box::pin(self.keep(read)).await)
    }

    /// A tenant's grant, whatever its state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn grant(
        &self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<At<Option<Arc<Grant>>>, Error> {
        if let Some(known) = self.cache.grant(tenant_id, grant_id, Instant::now()) {
            return Ok(known.map(Some));
        }
        let read = Box::pin(self.read(self.store.find_grant(tenant_id, grant_id))).await?;
        Ok(Box::pin(self.keep(read)).await)
    }

    /// Remembers a grant that was read. If it is newer than what is known of revocations, these are read,
    /// too: else a token could be made of it that seems to be older than the last end of its grant.
    async fn keep(&self, read: At<Option<Grant>>) -> At<Option<Arc<Grant>>> {
        let read = read.map(|grant| grant.map(Arc::new));
        if let Some(grant) = &read.value {
            self.cache.keep_grant(grant, &read.position);
        }
        if self.cache.is_behind(&read.position) {
            self.learn().await;
        }
        read
    }

    /// The last position at which one of these was revoked, if any was, of revocations whose tokens may
    /// still live.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn last_revocation(&self, named: &[(RevocationKind, &str)]) -> Result<At<Option<i64>>, Error> {
        match self.cache.last_revocation(named, Instant::now()) {
            Some(known) => Ok(known),
            None => Box::pin(self.read(self.store.last_revocation(named))).await,
        }
    }

    /// What ended behind a position of this database's feed, in its order and at most so much.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::TooManyRevocations`].
    pub async fn ended_after(&self, seq: i64, limit: usize) -> Result<At<Vec<Ended>>, Error> {
        if let Some(ended) = self.cache.ended_after(seq, limit, Instant::now())? {
            return Ok(ended);
        }
        self.catch_up().await?;
        let ended = self.cache.ended_after(seq, limit, Instant::now())?;
        ended.ok_or(Error::Unavailable)
    }

    /// The signing keys that are not revoked, and the one that signs.
    ///
    /// # Errors
    /// [`Error::Signing`], [`Error::Store`], [`Error::Key`].
    pub async fn keys(&self) -> Result<At<Arc<Keys>>, Error> {
        if let Some(known) = self.cache.keys(Instant::now()) {
            return Ok(known);
        }
        let read = Box::pin(self.read(self.read_keys())).await?.map(Arc::new);
        self.cache.keep_keys(&read);
        Ok(read)
    }

    async fn read_keys(&self) -> Result<Keys, Error> {
        let kid = self.store.active_signing_key().await?;
        let known = self.held_signer().clone().filter(|signer| signer.kid() == kid);
        let signer = match known {
            Some(signer) => signer,
            None => {
                let pkcs8 = self.store.unseal_signing_key(&kid).await?;
                let signer = Arc::new(Signer::new(kid, &pkcs8)?);
                *self.held_signer() = Some(signer.clone());
                signer
            }
        };
        Keys::new(signer, self.store.live_signing_keys().await?)
    }

    fn held_signer(&self) -> std::sync::MutexGuard<'_, Option<Arc<Signer>>> {
        self.signer
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads the position first, then the answer: what commits in between may show in the answer, and
    /// what shows in no answer is never claimed. Callers put it on the heap: its size should not be part
    /// of every call that is answered from memory.
    async fn read<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<At<T>, Error> {
        let asked_at = Instant::now();
        let position = self.store.position().await?;
        Ok(At {
            value: answer.await?,
            position,
            asked_at,
        })
    }
}
