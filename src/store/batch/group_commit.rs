//! Group commit: while one group is being written, further items wait and become the next group. So the
//! callers of one moment share the cost of one transaction.

use std::{fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use sea_orm::DbErr;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use crate::store::StoreError;

/// The most items in a group.
const MAX_GROUP: usize = 512;
/// How long a group waits for more items. Timers have a resolution of a millisecond.
const GATHER_TIME: Duration = Duration::from_millis(1);
/// A group waits for as many items as the last group had if those were at most this many, else for half.
const SMALL_GROUP: usize = 16;
/// The most items in the queue; further ones are rejected, so that a database that hangs builds no endless queue.
const MAX_QUEUE: usize = 4096;
/// How long a group may take. Its callers may have given up before.
const GROUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The work of a group.
pub trait Work: Send + Sync + 'static {
    /// The input of one caller.
    type Item: Send + Sync + 'static;
    /// The result of one item.
    type Outcome: Send + 'static;

    /// Does the work of all items in one transaction, or of none. Outcomes have the order of the items.
    ///
    /// # Errors
    /// After any error but [`StoreError::Unavailable`] each item is tried alone, since one of them may have
    /// caused it.
    fn run(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, StoreError>> + Send;
}

struct Queued<W: Work> {
    item: W::Item,
    done: oneshot::Sender<Result<W::Outcome, StoreError>>,
}

/// A queue of items and the task that works on them. Cheap to clone; clones share the queue. The task ends with
/// the last clone.
pub struct GroupCommit<W: Work> {
    queue: mpsc::Sender<Queued<W>>,
}

impl<W: Work> Clone for GroupCommit<W> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<W: Work> fmt::Debug for GroupCommit<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit").finish_non_exhaustive()
    }
}

impl<W: Work> GroupCommit<W> {
    /// Starts the task.
    pub fn start(work: W) -> Self {
        let (queue, items) = mpsc::channel(MAX_QUEUE);
        tokio::spawn(serve(work, items));
        Self { queue }
    }

    /// Submits an item, and returns after its transaction. If the caller stops waiting, the item may or may not
    /// be committed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the queue is full or the database hangs.
    pub async fn submit(&self, item: W::Item) -> Result<W::Outcome, StoreError> {
        let (done, outcome) = oneshot::channel();
        self.queue
            .try_send(Queued { item, done })
            .map_err(|_| StoreError::Unavailable)?;
        outcome.await.map_err(|_| StoreError::Unavailable)?
    }
}

async fn serve<W: Work>(work: W, mut queue: mpsc::Receiver<Queued<W>>) {
    let mut group = Vec::with_capacity(MAX_GROUP);
    let mut last = 0;
    while let Some(first) = queue.recv().await {
        group.push(first);
        gather(&mut queue, &mut group, last.min(SMALL_GROUP).max(last / 2)).await;
        last = group.len();
        // Skips items whose caller has gone away.
        let waiting = group.drain(..).filter(|queued| !queued.done.is_closed());
        let (items, callers): (Vec<_>, Vec<_>) = waiting.map(|queued| (queued.item, queued.done)).unzip();
        if !items.is_empty() {
            answer(&work, items, callers).await;
        }
    }
}

/// Waits up to 1 ms for more items, so that they share one commit, until `expected` are there. Expecting half of
/// a large group leaves the processor work while the other half is written. A caller that is alone never waits:
/// then one item is expected.
async fn gather<W: Work>(queue: &mut mpsc::Receiver<Queued<W>>, group: &mut Vec<Queued<W>>, expected: usize) {
    let expected_come = async {
        while group.len() < expected && queue.recv_many(group, MAX_GROUP - group.len()).await > 0 {}
    };
    let _ = timeout(GATHER_TIME, expected_come).await;
    while group.len() < MAX_GROUP
        && let Ok(next) = queue.try_recv()
    {
        group.push(next);
    }
}

/// Runs a group and answers its callers, within [`GROUP_TIMEOUT`].
async fn answer<W: Work>(
    work: &W,
    items: Vec<W::Item>,
    callers: Vec<oneshot::Sender<Result<W::Outcome, StoreError>>>,
) {
    let deadline = Instant::now() + GROUP_TIMEOUT;
    match timeout_at(deadline, run(work, &items)).await {
        Ok(Ok(outcomes)) => {
            for (done, outcome) in callers.into_iter().zip(outcomes) {
                let _ = done.send(Ok(outcome));
            }
        }
        // One item that fails must not fail the others.
        Ok(Err(error)) if items.len() > 1 && !matches!(error, StoreError::Unavailable) => {
            for (done, item) in callers.into_iter().zip(items) {
                if !done.is_closed() {
                    let alone = timeout_at(deadline, run(work, &[item])).await;
                    let alone = alone.unwrap_or(Err(StoreError::Unavailable));
                    let first = |outcomes: Vec<_>| outcomes.into_iter().next().ok_or(StoreError::Unavailable);
                    let _ = done.send(alone.and_then(first));
                }
            }
        }
        Ok(Err(error)) => fail(callers, &error),
        Err(_elapsed) => fail(callers, &StoreError::Unavailable),
    }
}

fn fail<T>(callers: Vec<oneshot::Sender<Result<T, StoreError>>>, error: &StoreError) {
    tracing::warn!(%error, callers = callers.len(), "a group failed");
    for done in callers {
        let _ = done.send(Err(error.clone()));
    }
}

/// Runs the work. A panic fails these items alone.
async fn run<W: Work>(work: &W, items: &[W::Item]) -> Result<Vec<W::Outcome>, StoreError> {
    let done = AssertUnwindSafe(work.run(items)).catch_unwind().await;
    done.unwrap_or_else(|_panic| Err(StoreError::Database(DbErr::Custom("a panic".to_owned()))))
}

#[cfg(test)]
#[path = "../tests/group_commit.rs"]
mod tests;
