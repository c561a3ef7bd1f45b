//! Group commit: while one group is written, further items wait and form the next group. So concurrent callers share
//! the cost of one transaction.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use metrics::{gauge, histogram};
use sea_orm::DbErr;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    metrics::{GROUP_SIZE, GROUP_WAITING},
    store::StoreError,
};

/// The most items in a group.
const MAX_GROUP: usize = 512;
/// How long a group waits for more items: the resolution of timers.
const GATHER_TIME: Duration = Duration::from_millis(1);
/// A group waits for as many items as the last group had, up to this number; after a larger one for half as many.
const SMALL_GROUP: usize = 16;
/// The most items in the queue. Further ones are rejected, so that the queue stays bounded while the database hangs.
const MAX_QUEUE: usize = 4096;
/// How long a group may take. Its callers may give up earlier.
const GROUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The work of a group.
pub trait Work: Send + Sync + 'static {
    /// The input of one caller.
    type Item: Send + Sync + 'static;
    /// The result of one item.
    type Outcome: Send + 'static;

    /// The name of these groups in metrics.
    const NAME: &'static str;
    /// The most groups under way at a time.
    const AT_ONCE: usize = 1;

    /// Commits all items in one transaction, or none. Returns the outcomes in the order of the items.
    ///
    /// # Errors
    /// After any error that is not temporary each item is tried alone, since one of them may have caused
    /// it.
    fn run(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, StoreError>> + Send;
}

/// Receives the outcome of one item.
type Caller<W> = oneshot::Sender<Result<<W as Work>::Outcome, StoreError>>;

/// A queue of items, and the task that commits them. Clones share the queue. The task ends with the last clone.
#[derive(derive_more::Debug)]
#[debug("GroupCommit {{ .. }}")]
pub struct GroupCommit<W: Work> {
    queue: mpsc::Sender<(W::Item, Caller<W>)>,
    /// How many items the groups under way have.
    under_way: Arc<AtomicUsize>,
}

impl<W: Work> Clone for GroupCommit<W> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            under_way: self.under_way.clone(),
        }
    }
}

impl<W: Work> GroupCommit<W> {
    /// Starts the task.
    pub fn start(work: W) -> Self {
        let (queue, items) = mpsc::channel(MAX_QUEUE);
        let under_way = Arc::<AtomicUsize>::default();
        tokio::spawn(serve(work, items, under_way.clone()));
        Self { queue, under_way }
    }

    /// Records how many items wait for the end of their group.
    pub fn record_gauges(&self) {
        let queued = self.queue.max_capacity() - self.queue.capacity();
        let waiting = queued + self.under_way.load(Ordering::Relaxed);
        gauge!(GROUP_WAITING, "group" => W::NAME).set(waiting as f64);
    }

    /// Submits an item, and returns after its transaction. If the caller stops waiting, the item may or may not be
    /// committed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the queue is full or the database hangs.
    pub async fn submit(&self, item: W::Item) -> Result<W::Outcome, StoreError> {
        let (caller, outcome) = oneshot::channel();
        let queued = self.queue.try_send((item, caller));
        queued.map_err(|_| StoreError::unavailable("too many items wait for the database"))?;
        outcome
            .await
            .map_err(|_| StoreError::unavailable("the service stops"))?
    }
}

async fn serve<W: Work>(
    work: W,
    mut queue: mpsc::Receiver<(W::Item, Caller<W>)>,
    under_way: Arc<AtomicUsize>,
) {
    let sizes = histogram!(GROUP_SIZE, "group" => W::NAME);
    let (work, permits) = (Arc::new(work), Arc::new(Semaphore::new(W::AT_ONCE)));
    let mut group = Vec::with_capacity(MAX_GROUP);
    let mut last = 0;
    while let Some(first) = queue.recv().await {
        group.push(first);
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        gather(&mut queue, &mut group, last.min(SMALL_GROUP).max(last / 2)).await;
        last = group.len();
        // Skips items whose caller has gone away.
        let waiting = group.drain(..).filter(|(_, caller)| !caller.is_closed());
        let (items, callers): (Vec<_>, Vec<_>) = waiting.unzip();
        if items.is_empty() {
            continue;
        }
        let size = items.len();
        sizes.record(size as f64);
        under_way.fetch_add(size, Ordering::Relaxed);
        if W::AT_ONCE == 1 {
            answer(&*work, items, callers).await;
            under_way.fetch_sub(size, Ordering::Relaxed);
        } else {
            let (work, under_way) = (work.clone(), under_way.clone());
            tokio::spawn(async move {
                answer(&*work, items, callers).await;
                under_way.fetch_sub(size, Ordering::Relaxed);
                drop(permit);
            });
        }
    }
}

/// Waits up to 1 ms until the group has `expected` items, so that they share one commit. Half of a large group is
/// expected, so that the processor has work while the other half is written. A lone caller never waits: one item is
/// expected.
async fn gather<T>(queue: &mut mpsc::Receiver<T>, group: &mut Vec<T>, expected: usize) {
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

/// Commits a group and answers its callers, within [`GROUP_TIMEOUT`].
async fn answer<W: Work>(work: &W, items: Vec<W::Item>, callers: Vec<Caller<W>>) {
    let deadline = Instant::now() + GROUP_TIMEOUT;
    match timeout_at(deadline, run(work, &items)).await {
        Ok(Ok(outcomes)) => {
            for (caller, outcome) in callers.into_iter().zip(outcomes) {
                let _ = caller.send(Ok(outcome));
            }
        }
        // An item that fails must not fail the others.
        Ok(Err(error)) if items.len() > 1 && !error.is_temporary() => {
            for (caller, item) in callers.into_iter().zip(items) {
                if !caller.is_closed() {
                    let alone = timeout_at(deadline, run(work, &[item])).await;
                    let alone = alone.unwrap_or_else(|_| Err(timed_out()));
                    let first = |outcomes: Vec<_>| outcomes.into_iter().next().ok_or_else(timed_out);
                    let _ = caller.send(alone.and_then(first));
                }
            }
        }
        Ok(Err(error)) => fail(callers, &error),
        Err(_elapsed) => fail(callers, &timed_out()),
    }
}

fn timed_out() -> StoreError {
    StoreError::unavailable("a group of items took too long")
}

fn fail<T>(callers: Vec<oneshot::Sender<Result<T, StoreError>>>, error: &StoreError) {
    tracing::debug!(%error, callers = callers.len(), "a group failed");
    for caller in callers {
        let _ = caller.send(Err(error.clone()));
    }
}

/// Runs the work. A panic fails only these items.
async fn run<W: Work>(work: &W, items: &[W::Item]) -> Result<Vec<W::Outcome>, StoreError> {
    let done = AssertUnwindSafe(work.run(items)).catch_unwind().await;
    done.unwrap_or_else(|_panic| Err(StoreError::Database(DbErr::Custom("a panic".to_owned()))))
}

#[cfg(test)]
#[path = "../tests/group_commit.rs"]
mod tests;
