//! Does together what several callers ask of a database: while one group is under way others wait, and
//! those that wait are the next group. So the cost of a transaction is shared by those who come at the same time.

use std::{fmt, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use sea_orm::DbErr;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::StoreError;

/// The most items in a group.
const MOST: usize = 512;
/// How long a group waits for others at most; timers are a millisecond apart.
const MOMENT: Duration = Duration::from_millis(1);
/// Of those who came the last time, so many are waited for, or half if that is more.
const FEW: usize = 16;
/// How many may wait, beside those that are under way. The next one is refused: a database that hangs
/// makes no queue without bound.
const MOST_WAITING: usize = 4096;
/// How long a group may take. Its callers may have given up before.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is done for a group.
pub trait Work: Send + Sync + 'static {
    /// What one caller asks for.
    type Item: Send + Sync + 'static;
    /// What becomes of it.
    type Outcome: Send + 'static;

    /// Does what all of the items ask for, or nothing, in one transaction. Outcomes are in the items' order.
    ///
    /// # Errors
    /// All but [`StoreError::Unavailable`] may be the fault of one of several items: then each is tried on
    /// its own.
    fn run(
        &self,
        items: &[Self::Item],
    ) -> impl Future<Output = Result<Vec<Self::Outcome>, StoreError>> + Send;
}

struct Waiting<W: Work> {
    item: W::Item,
    done: oneshot::Sender<Result<W::Outcome, StoreError>>,
}

/// Where items are handed in. Cheap to clone; clones hand in together. What works on them ends with the last
/// clone.
pub struct Group<W: Work> {
    queue: mpsc::Sender<Waiting<W>>,
}

impl<W: Work> Clone for Group<W> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<W: Work> fmt::Debug for Group<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl<W: Work> Group<W> {
    /// Begins to work, in a task of its own.
    pub fn start(work: W) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(serve(work, waiting));
        Self { queue }
    }

    /// Hands an item in, and returns when its transaction is over. A caller that stops waiting leaves it
    /// open whether it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when too many wait already or the database hangs; what the work says.
    pub async fn ask(&self, item: W::Item) -> Result<W::Outcome, StoreError> {
        let (done, told) = oneshot::channel();
        self.queue
            .try_send(Waiting { item, done })
            .map_err(|_| StoreError::Unavailable)?;
        told.await.map_err(|_| StoreError::Unavailable)?
    }
}

async fn serve<W: Work>(work: W, mut queue: mpsc::Receiver<Waiting<W>>) {
    let mut group = Vec::with_capacity(MOST);
    let mut before = 0;
    while let Some(first) = queue.recv().await {
        group.push(first);
        gather(&mut queue, &mut group, before.min(FEW).max(before / 2)).await;
        before = group.len();
        // For whom nobody waits any more nothing is done.
        let waiting = group.drain(..).filter(|waiting| !waiting.done.is_closed());
        let (items, waiting): (Vec<_>, Vec<_>) = waiting.map(|waiting| (waiting.item, waiting.done)).unzip();
        if !items.is_empty() {
            answer(&work, items, waiting).await;
        }
    }
}

/// Takes along those who are about to come: a moment at most they are waited for until as many are there as are
/// expected. Of few all are, of many half, so that there is something to do for the machine while the other half
/// is written. Among those who come alone, one after the other, nobody waits.
async fn gather<W: Work>(
    queue: &mut mpsc::Receiver<Waiting<W>>,
    group: &mut Vec<Waiting<W>>,
    expected: usize,
) {
    let all_come =
        async { while group.len() < expected && queue.recv_many(group, MOST - group.len()).await > 0 {} };
    let _ = timeout(MOMENT, all_come).await;
    while group.len() < MOST
        && let Ok(next) = queue.try_recv()
    {
        group.push(next);
    }
}

/// Does the work of a group, and tells everybody. All of it takes no longer than [`PATIENCE`].
async fn answer<W: Work>(
    work: &W,
    items: Vec<W::Item>,
    waiting: Vec<oneshot::Sender<Result<W::Outcome, StoreError>>>,
) {
    let until = Instant::now() + PATIENCE;
    match timeout_at(until, run(work, &items)).await {
        Ok(Ok(outcomes)) => {
            for (done, outcome) in waiting.into_iter().zip(outcomes) {
                let _ = done.send(Ok(outcome));
            }
        }
        // One item that is refused must not take the others along.
        Ok(Err(error)) if items.len() > 1 && !matches!(error, StoreError::Unavailable) => {
            for (done, item) in waiting.into_iter().zip(items) {
                if !done.is_closed() {
                    let alone = timeout_at(until, run(work, &[item])).await;
                    let alone = alone.unwrap_or(Err(StoreError::Unavailable));
                    let _ = done.send(alone.and_then(first));
                }
            }
        }
        Ok(Err(error)) => tell(waiting, &error),
        Err(_elapsed) => tell(waiting, &StoreError::Unavailable),
    }
}

fn tell<T>(waiting: Vec<oneshot::Sender<Result<T, StoreError>>>, error: &StoreError) {
    tracing::warn!(%error, callers = waiting.len(), "a group failed");
    for done in waiting {
        let _ = done.send(Err(error.clone()));
    }
}

/// Does the work; a panic in it fails these items alone.
async fn run<W: Work>(work: &W, items: &[W::Item]) -> Result<Vec<W::Outcome>, StoreError> {
    let done = AssertUnwindSafe(work.run(items)).catch_unwind().await;
    done.unwrap_or_else(|_panic| Err(StoreError::Database(DbErr::Custom("a panic".to_owned()))))
}

fn first<T>(outcomes: Vec<T>) -> Result<T, StoreError> {
    outcomes.into_iter().next().ok_or(StoreError::Unavailable)
}

#[cfg(test)]
#[path = "tests/group_commit.rs"]
mod tests;
