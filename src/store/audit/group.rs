//! Groups the events of calls that change nothing else: while one group is being written, others wait, and
//! all that wait go in the next one. So the cost of a commit is shared by those who come at a time, and
//! nobody waits for more than two.

use std::{fmt, time::Duration};

use sea_orm::DatabaseBackend;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Record, insert, insert::MOST_ROWS};
use crate::store::{Database, StoreError};

/// The most events in a group.
const MOST: usize = 512;
/// How often others get their turn before a group is written.
const MOST_TURNS: usize = 32;
/// How many may wait, beside those that are being written. The next one is refused: a database that
/// hangs makes no queue without bound.
const MOST_WAITING: usize = 4096;
/// How long a group may take. Its callers may have given up before.
const PATIENCE: Duration = Duration::from_secs(10);

struct Waiting {
    record: Record,
    written: oneshot::Sender<Result<(), StoreError>>,
}

/// Writes events in groups. Cheap to clone; clones write together. What writes ends with the last clone.
#[derive(Clone)]
pub struct GroupWriter {
    queue: mpsc::Sender<Waiting>,
}

impl fmt::Debug for GroupWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupWriter").finish_non_exhaustive()
    }
}

impl GroupWriter {
    /// Begins to write to this database, in a task of its own.
    pub fn start(db: Database) -> Self {
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        tokio::spawn(write(db, waiting));
        Self { queue }
    }

    /// Writes an event, and returns when it is committed. A caller that stops waiting leaves it open
    /// whether it is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when too many wait already or the database hangs; what it says.
    pub async fn record(&self, record: Record) -> Result<(), StoreError> {
        let (written, told) = oneshot::channel();
        let waiting = Waiting { record, written };
        self.queue
            .try_send(waiting)
            .map_err(|_| StoreError::Unavailable)?;
        told.await.map_err(|_| StoreError::Unavailable)?
    }
}

async fn write(db: Database, mut queue: mpsc::Receiver<Waiting>) {
    let mut group = Vec::with_capacity(MOST);
    while let Some(first) = queue.recv().await {
        group.push(first);
        all_come(&queue).await;
        while group.len() < MOST
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        // Who has given up meanwhile gets no token: there is nothing to record.
        group.retain(|waiting| !waiting.written.is_closed());
        let records = group.iter().map(|waiting| waiting.record.clone()).collect();
        match insert_group(&db, records).await {
            // One event that the database refuses must not take the others along.
            Err(StoreError::Conflict | StoreError::Database(_)) if group.len() > 1 => {
                for Waiting { record, written } in group.drain(..) {
                    let _ = written.send(insert_group(&db, vec![record]).await);
                }
            }
            told => {
                for waiting in group.drain(..) {
                    let _ = waiting.written.send(told.clone());
                }
            }
        }
    }
}

/// Lets those come along who are about to: tasks that could run now get their turn, for as long as that
/// brings more. It takes microseconds when there is little to do, and under load a commit for few becomes
/// one for many.
async fn all_come(queue: &mpsc::Receiver<Waiting>) {
    for _ in 0..MOST_TURNS {
        let before = queue.len();
        tokio::task::yield_now().await;
        if queue.len() == before || before >= MOST {
            return;
        }
    }
}

/// Inserts all of the records or none.
async fn insert_group(db: &Database, records: Vec<Record>) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let inserting = async {
        // One statement is a transaction by itself.
        if db.backend() == DatabaseBackend::Postgres || records.len() <= MOST_ROWS {
            return insert(db.write_once(), records).await;
        }
        let tx = db.write().await?;
        insert(&tx, records).await?;
        Ok(tx.commit().await?)
    };
    timeout(PATIENCE, inserting)
        .await
        .unwrap_or(Err(StoreError::Unavailable))
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
