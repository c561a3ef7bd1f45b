//! Does together what several callers ask of a database: while one group is under way others wait, and
//! those that wait are the next group. So the cost of a transaction is shared by those who come at a time.

use std::{collections::HashSet, fmt, future::Future, mem, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::StoreError;

/// The most items in a group.
const MOST: usize = 512;
/// How long a group waits for others at most; timers are a millisecond apart.
const MOMENT: Duration = Duration::from_millis(1);
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

    /// What no two items of a group may have in common: the one that comes later waits for the next group.
    /// `None` for what goes together with anything.
    fn key(item: &Self::Item) -> Option<String>;

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
    loop {
        if group.is_empty() {
            match queue.recv().await {
                Some(first) => group.push(first),
                None => return,
            }
        }
        gather(&mut queue, &mut group, before / 2).await;
        // For whom nobody waits any more nothing is done.
        group.retain(|waiting| !waiting.done.is_closed());
        before = group.len();
        let later = set_apart(&mut group);
        let (items, waiting): (Vec<_>, Vec<_>) = mem::replace(&mut group, later)
            .into_iter()
            .map(|waiting| (waiting.item, waiting.done))
            .unzip();
        match in_time(&work, &items).await {
            Ok(outcomes) => {
                for (done, outcome) in waiting.into_iter().zip(outcomes) {
                    let _ = done.send(Ok(outcome));
                }
            }
            // One item that is refused must not take the others along.
            Err(error) if items.len() > 1 && !matches!(error, StoreError::Unavailable) => {
                for (done, item) in waiting.into_iter().zip(items) {
                    let _ = done.send(alone(&work, item).await);
                }
            }
            Err(error) => {
                for done in waiting {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }
}

/// Takes along those who are about to come: half as many as there were before are waited for, a moment at
/// most. Half, so that there is something to do for the machine while the other half is written. Who comes
/// alone never waits.
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

/// Takes out, in their order, those whose key another one before them has.
fn set_apart<W: Work>(group: &mut Vec<Waiting<W>>) -> Vec<Waiting<W>> {
    let mut keys = HashSet::new();
    group
        .extract_if(.., |waiting| {
            W::key(&waiting.item).is_some_and(|key| !keys.insert(key))
        })
        .collect()
}

async fn alone<W: Work>(work: &W, item: W::Item) -> Result<W::Outcome, StoreError> {
    let outcomes = in_time(work, &[item]).await?;
    outcomes.into_iter().next().ok_or(StoreError::Unavailable)
}

/// Does the work, which may take so long.
async fn in_time<W: Work>(work: &W, items: &[W::Item]) -> Result<Vec<W::Outcome>, StoreError> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    timeout(PATIENCE, work.run(items))
        .await
        .unwrap_or(Err(StoreError::Unavailable))
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
