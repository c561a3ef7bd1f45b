//! Follows the change feed of one source. Holds the position that has been applied, and the lease: how long facts in
//! memory stay valid without a newer answer.
//!
//! An answer reflects everything that was committed before its request was *sent*, so the lease starts then, by the
//! monotonic clock. Each answer names the position up to which it is complete. After a lost or late answer the next
//! request starts from the same position, so no change is missed.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use accord::{
    metrics::{FEED_POSITION, LEASE_AGE},
    position::Position,
};
use arc_swap::ArcSwapOption;
use metrics::gauge;
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{facts::Facts, lock::Lock, revocation_index::RevocationIndex};
use crate::{
    error::{Error, Result},
    model::{
        change::{Change, Changes},
        revocation::{Revocation, RevocationKind},
        watermark::AsOf,
    },
};

/// How often a feed is polled: a lease outlives two polls that fail.
const POLL_EVERY: Duration = Duration::from_millis(200);
/// How long catching up may take. A later answer would hardly renew the lease.
const CATCH_UP_TIMEOUT: Duration = Duration::from_millis(500);

/// A change feed: the registry's, or that of this service's own database.
pub trait ChangeSource: Send + Sync {
    /// Its name in the log.
    const NAME: &'static str;

    /// Returns the error for a source that doesn't answer in time.
    fn unavailable() -> Error;

    /// Reads the changes after a position. Without one, returns no changes: only the feed's newest position, and the
    /// one before the first recent revocation.
    fn changes_after(&self, after: Option<&Position>) -> impl Future<Output = Result<Changes>> + Send;
}

/// Revocations in the order of their feed, and how current they are.
pub type Revocations = AsOf<Vec<Revocation>>;

/// Follows one source.
pub struct ChangeFollower<S> {
    source: S,
    /// How long its answers count.
    pub(super) lease_duration: Duration,
    applied: ArcSwapOption<Progress>,
    revocations: Lock<RevocationIndex>,
    /// Whether the last answer could not be used. What was revoked is then unknown.
    is_unusable: AtomicBool,
    /// Held while the source is read, so that answers are applied in the order of their requests.
    reading: Mutex<()>,
}

/// The state of the feed that has been applied.
struct Progress {
    position: Position,
    /// When the last request was sent whose answer left no change out; `None` after a restart, until there is one.
    complete_at: Option<Instant>,
}

impl<S> ChangeFollower<S> {
    pub(super) fn new(source: S, lease_duration: Duration) -> Self {
        Self {
            source,
            lease_duration,
            applied: ArcSwapOption::empty(),
            revocations: Lock::new(RevocationIndex::default()),
            is_unusable: AtomicBool::default(),
            reading: Mutex::default(),
        }
    }

    /// Returns the position that has been applied, while the lease lasts. Takes no lock.
    pub(super) fn lease(&self) -> Option<AsOf<()>> {
        let applied = self.applied.load();
        let applied = applied.as_ref()?;
        let sent_at = applied.complete_at?;
        (sent_at.elapsed() <= self.lease_duration).then(|| AsOf {
            value: (),
            position: applied.position.clone(),
            sent_at,
        })
    }

    /// Records the age of the lease, and the position.
    pub(super) fn record_gauges(&self, feed: &'static str) {
        let age = self.complete_at().map(|sent_at| sent_at.elapsed().as_secs_f64());
        gauge!(LEASE_AGE, "feed" => feed).set(age.unwrap_or(f64::INFINITY));
        if let Some(applied) = &*self.applied.load() {
            gauge!(FEED_POSITION, "feed" => feed).set(applied.position.seq as f64);
        }
    }

    /// Returns whether an answer read at this position reflects every change that has been applied.
    pub(super) fn is_covered_by(&self, position: &Position) -> bool {
        self.progress_is(|Progress { position: at, .. }| at.epoch == position.epoch && at.seq <= position.seq)
    }

    /// Returns whether an answer read at this position reflects changes that have not been applied.
    pub(super) fn is_behind(&self, position: &Position) -> bool {
        self.progress_is(|Progress { position: at, .. }| at.epoch != position.epoch || at.seq < position.seq)
    }

    /// Returns whether everything that was committed before this moment has been applied.
    pub(super) fn is_complete_since(&self, since: Instant) -> bool {
        self.complete_at() >= Some(since)
    }

    /// Returns whether the source answers what can't be used, such as a row that somebody has edited.
    pub(super) fn is_unusable(&self) -> bool {
        self.is_unusable.load(Relaxed)
    }

    /// Returns whether a position is behind the one that has been applied, in its epoch.
    fn went_back(&self, position: &Position) -> bool {
        self.progress_is(|Progress { position: at, .. }| at.epoch == position.epoch && position.seq < at.seq)
    }

    fn complete_at(&self) -> Option<Instant> {
        self.applied.load().as_ref()?.complete_at
    }

    fn progress_is(&self, test: impl FnOnce(&Progress) -> bool) -> bool {
        self.applied.load().as_deref().is_some_and(test)
    }
}

impl<S: ChangeSource> ChangeFollower<S> {
    /// Catches up every [`POLL_EVERY`] until `stop`.
    pub(super) async fn follow(&self, facts: &Facts, stop: &CancellationToken) {
        let polls = async {
            let mut ticks = interval(POLL_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut answered_before = true;
            loop {
                ticks.tick().await;
                let answers = self.catch_up(facts).await.is_ok();
                if answers != answered_before {
                    tracing::info!(feed = S::NAME, answers, "change feed went up or down");
                    answered_before = answers;
                }
            }
        };
        stop.run_until_cancelled(polls).await;
    }

    /// Applies every change that was committed before this call.
    pub(super) async fn catch_up(&self, facts: &Facts) -> Result<()> {
        let since = Instant::now();
        let caught_up = async {
            let _reading = self.reading.lock().await;
            // Another caller may have caught up meanwhile.
            if self.is_complete_since(since) {
                return Ok(());
            }
            let read = self.read(facts).await;
            match &read {
                Ok(()) => self.is_unusable.store(false, Relaxed),
                Err(error @ Error::Internal(_)) if !self.is_unusable.swap(true, Relaxed) => {
                    tracing::error!(feed = S::NAME, %error, "the change feed can't be used");
                }
                Err(_) => {}
            }
            read
        };
        timeout(CATCH_UP_TIMEOUT, caught_up)
            .await
            .unwrap_or_else(|_| Err(S::unavailable()))
    }

    async fn read(&self, facts: &Facts) -> Result<()> {
        let mut has_restarted = false;
        loop {
            let sent_at = Instant::now();
            let after = self.applied.load_full();
            let after = after.filter(|_| !self.revocations.lock().may_catch_up());
            let after = after.as_ref().map(|applied| &applied.position);
            let changes = self.source.changes_after(after).await?;
            if self.went_back(&changes.position) {
                // Somebody has put back the counter, or a server has lost what it had committed. The source then answers `reset`.
                tracing::error!(
                    feed = S::NAME,
                    "the change feed went back behind what it has answered"
                );
            }
            if changes.reset || after.is_none() {
                if has_restarted {
                    // Somebody may have edited or removed a change, and what it ended too.
                    self.is_unusable.store(true, Relaxed);
                    return Err(S::unavailable());
                }
                has_restarted = true;
                self.restart(facts, changes);
                continue;
            }
            let more = changes.more;
            self.apply(facts, changes, sent_at);
            if !more {
                return Ok(());
            }
        }
    }

    /// Removes what the changes affect, and then publishes their position. An answer that leaves changes out does
    /// not renew the lease.
    pub(super) fn apply(&self, facts: &Facts, changes: Changes, sent_at: Instant) {
        let now = Instant::now();
        let _applying = facts.applying.lock();
        let mut revocations = self.revocations.lock();
        for change in changes.changes {
            facts.apply(&change);
            match change {
                Change::Revocation(revocation) => revocations.insert(revocation, now),
                Change::UnknownRevocation => revocations.note_unknown(now),
                _ => {}
            }
        }
        revocations.remove_expired(now);
        let complete_at = (!changes.more).then_some(sent_at).or(self.complete_at());
        self.publish(changes.position, complete_at);
    }

    /// Clears memory, because the feed has a new epoch, went back, lacks a change or was never followed, or because the index
    /// has room for revocations that it left out. Continues before the first revocation that may still matter.
    pub(super) fn restart(&self, facts: &Facts, changes: Changes) {
        let _applying = facts.applying.lock();
        facts.clear();
        let mut revocations = self.revocations.lock();
        revocations.clear();
        let Position { epoch, seq } = changes.position;
        let seq = changes.recent_seq.min(seq).max(0);
        self.publish(Position { epoch, seq }, None);
    }

    fn publish(&self, position: Position, complete_at: Option<Instant>) {
        let applied = Progress {
            position,
            complete_at,
        };
        self.applied.store(Some(applied.into()));
    }

    /// Returns the last position after `seq` at which one of `named` was revoked, if there is one. The outer `None`
    /// says that memory does not know: there is no lease, or the index is incomplete. Takes no lock if nothing has
    /// changed after `seq`.
    pub(super) fn last_revocation_after(
        &self,
        seq: i64,
        named: &[(RevocationKind, &str)],
    ) -> Option<AsOf<Option<i64>>> {
        let lease = self.lease()?;
        if lease.position.seq <= seq {
            return Some(lease.map(|()| None));
        }
        // Index and position change together under this lock.
        let revocations = self.revocations.lock();
        let lease = self.lease()?;
        let last = revocations.last(named).filter(|last| *last > seq);
        revocations.is_complete().then(|| lease.map(|()| last))
    }

    /// Returns at most `limit` revocations after a position, in the feed's order, of tokens that may be unexpired. Catches up
    /// first if `seq` is ahead of this replica. If the answer is still lower, the feed itself went back.
    pub(super) async fn revocations_after(
        &self,
        facts: &Facts,
        seq: i64,
        limit: usize,
    ) -> Result<Revocations> {
        if self.lease().is_none_or(|lease| lease.position.seq < seq) {
            self.catch_up(facts).await?;
        }
        let revocations = self.revocations.lock();
        let lease = self.lease().ok_or_else(S::unavailable)?;
        if !revocations.is_complete() {
            return Err(Error::TooManyRevocations);
        }
        Ok(lease.map(|()| revocations.after(seq, limit)))
    }
}
