//! Redemptions whose tokens may never reach their client: the call failed or was given up after its commit, or the
//! answer to the commit was lost. Their codes become usable again. Otherwise a client that repeats the call would look
//! like a thief ([decision 66](../../../docs/decisions/0066-codes-of-unanswered-calls.md)).

use std::{slice, sync::Arc, time::Duration};

use accord::{
    clock::{SharedClock, UnixMillis},
    lock::Lock,
    random::SharedRandom,
    store::{
        Database, StoreError, Transaction,
        audit::{self, Event, Origin, action},
        rows::{Locked, ProtectedRows},
    },
    text::opaque::OpaqueToken,
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Store, entity::code::Entity};
use crate::{
    error::Result,
    model::{code::Code, family::Family},
};

/// How long to wait before the next attempt while the database is unavailable.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// How long a failing call waits for its code to become usable again.
const WAIT: Duration = Duration::from_secs(1);

/// Makes codes usable again. Remembers which ones are under way: presenting one of them is no replay yet.
#[derive(derive_more::Debug)]
#[debug("Reopenings {{ .. }}")]
pub(super) struct Reopenings {
    db: Database,
    clock: SharedClock,
    random: SharedRandom,
    /// The digests of these codes, each once for every task that works on it.
    under_way: Lock<Vec<[u8; 32]>>,
}

/// A redemption, for as long as its tokens have not left. Dropping it makes the code usable again.
#[derive(derive_more::Debug)]
#[debug("PendingAnswer {{ .. }}")]
pub struct PendingAnswer {
    reopenings: Arc<Reopenings>,
    /// `None` once it is settled.
    redeemed: Option<Box<Redeemed>>,
}

struct Redeemed {
    origin: Origin,
    /// The code as it was before.
    code: Code,
    family: Family,
}

impl PendingAnswer {
    /// Commits the redemptions of these answers. No code becomes usable again if they were certainly rolled back: the same
    /// redemption is tried again, and its tokens leave.
    pub(super) async fn commit(answers: &mut [Self], tx: Transaction) -> Result<(), StoreError> {
        let committed = tx.commit().await;
        if !matches!(committed, Ok(()) | Err(StoreError::Unavailable(_))) {
            answers.iter_mut().for_each(|answer| answer.redeemed = None);
        }
        committed
    }

    /// The code stays used: its tokens are being sent.
    pub fn confirm(mut self) {
        self.redeemed = None;
    }

    /// Makes the code usable again. Returns afterwards, or within a second while the database is unavailable.
    pub async fn reopen(mut self) {
        if let Some(task) = self.reopen_task() {
            let _ = timeout(WAIT, task).await;
        }
    }

    fn reopen_task(&mut self) -> Option<JoinHandle<()>> {
        let redeemed = self.redeemed.take()?;
        // Without a runtime the process is about to end.
        let runtime = Handle::try_current().ok()?;
        let reopenings = self.reopenings.clone();
        reopenings.under_way.lock().push(redeemed.code.digest);
        Some(runtime.spawn(async move { reopenings.run(&redeemed).await }))
    }
}

impl Drop for PendingAnswer {
    fn drop(&mut self) {
        self.reopen_task();
    }
}

impl Reopenings {
    pub(super) fn new(db: Database, clock: SharedClock, random: SharedRandom) -> Arc<Self> {
        Arc::new(Self {
            db,
            clock,
            random,
            under_way: Lock::default(),
        })
    }

    /// Returns whether the code is about to become usable again.
    pub(super) fn is_under_way(&self, code: &OpaqueToken) -> bool {
        self.under_way.lock().contains(&code.digest())
    }

    /// Returns the answer of a redemption that is about to be committed.
    pub(super) fn answer(self: &Arc<Self>, origin: &Origin, code: &Code, family: &Family) -> PendingAnswer {
        PendingAnswer {
            reopenings: self.clone(),
            redeemed: Some(Box::new(Redeemed {
                origin: origin.clone(),
                code: code.clone(),
                family: family.clone(),
            })),
        }
    }

    /// Tries until it is done, or the code has expired.
    async fn run(&self, redeemed: &Redeemed) {
        while self.clock.now() < redeemed.code.expires_at {
            match self.reopen(redeemed).await {
                Err(error) if error.is_retryable() => sleep(RETRY_EVERY).await,
                Err(error) => {
                    tracing::warn!(%error, "a code whose tokens did not leave stays used");
                    break;
                }
                Ok(()) => break,
            }
        }
        let mut under_way = self.under_way.lock();
        if let Some(at) = under_way
            .iter()
            .position(|digest| *digest == redeemed.code.digest)
        {
            under_way.swap_remove(at);
        }
    }

    /// Changes nothing if the redemption was not committed. Waits for one whose commit is under way, which holds the row.
    async fn reopen(&self, Redeemed { origin, code, family }: &Redeemed) -> Result<(), StoreError> {
        let tx = self.db.write().await?;
        let row = lock(&tx, code, family).await?;
        let Some(mut row) = row.filter(|row| row.used_at.is_some()) else {
            return Ok(());
        };
        row.used_at = None;
        row.expires_at = code.expires_at.as_millis();
        row.save(&tx).await?;
        let event = Event::new(action::CODE_REOPEN)
            .tenant(&code.tenant_id)
            .client(&code.client_id)
            .subject(code.grant_id.as_str())
            .detail("family_id", family.family_id.as_str());
        audit::record(&tx, &*self.clock, &*self.random, origin, event).await;
        tx.commit().await
    }
}

/// Locks the row of a code that began this family.
async fn lock(tx: &Transaction, code: &Code, family: &Family) -> Result<Option<Locked<Entity>>, StoreError> {
    let row = Entity::look_up_by_id(code.digest.to_vec()).lock_one(tx).await?;
    Ok(row.filter(|row| row.family_id.as_deref() == Some(family.family_id.as_str())))
}

impl Store {
    /// Redeems a code again whose redemption was not answered: its grant is active and its family has begun. Returns
    /// `None` if another call uses the code first.
    pub async fn redeem_again(
        &self,
        origin: &Origin,
        code: &Code,
        family: &Family,
        issued: Event,
    ) -> Result<Option<PendingAnswer>> {
        let now: UnixMillis = self.now();
        let tx = self.db.write().await?;
        let row = lock(&tx, code, family).await?;
        let Some(mut row) = row.filter(|row| row.used_at.is_none()) else {
            return Ok(None);
        };
        row.used_at = Some(now.as_millis());
        row.expires_at = family.expires_at.as_millis();
        row.save(&tx).await?;
        self.audit(&tx, origin, issued).await;
        let mut answer = self.reopenings.answer(origin, code, family);
        PendingAnswer::commit(slice::from_mut(&mut answer), tx).await?;
        Ok(Some(answer))
    }
}
