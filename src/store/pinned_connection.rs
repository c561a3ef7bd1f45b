//! A pinned connection, for a writer that runs all the time. Without it the pool pings every returned connection: on
//! PostgreSQL a round trip, on SQLite, where all writers share one connection, a task and two threads that wake up.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::sqlx::{self, Pool, pool::PoolConnection};

use super::StoreError;

/// How long a connection stays pinned without use. The network may drop an idle connection, and its next user hangs.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// A pool, and one of its connections that is not returned to it.
pub(super) struct PinnedConnection<DB: sqlx::Database> {
    pool: Pool<DB>,
    state: Mutex<State<DB>>,
}

struct State<DB: sqlx::Database> {
    /// The pinned connection, and when it was last used.
    pinned: Option<(PoolConnection<DB>, Instant)>,
    /// The number of users of the pool. Nothing is pinned meanwhile.
    pool_users: usize,
}

impl<DB: sqlx::Database> PinnedConnection<DB> {
    pub(super) fn new(pool: Pool<DB>) -> Self {
        let state = State {
            pinned: None,
            pool_users: 0,
        };
        Self {
            pool,
            state: Mutex::new(state),
        }
    }

    /// Takes the pinned connection, or else one of the pool. After success pass it to [`Self::pin`]. After a failure
    /// drop it: the pool then checks that it is alive and in no transaction.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<DB>, StoreError> {
        let pinned = self.state().pinned.take();
        match pinned {
            Some((connection, used)) if used.elapsed() < MAX_IDLE => Ok(connection),
            stale => {
                drop(stale);
                Ok(self.pool.acquire().await?)
            }
        }
    }

    /// Pins a connection for its next use, unless the pool has other users.
    pub(super) fn pin(&self, connection: PoolConnection<DB>) {
        let mut state = self.state();
        if state.pool_users == 0 && !self.pool.is_closed() {
            state.pinned = Some((connection, Instant::now()));
        }
    }

    /// Returns the pinned connection to the pool, and pins none until the guard is dropped. Without it a user of the
    /// pool would wait in vain for the last connection.
    pub(super) fn unpin(&self) -> Unpinned<'_, DB> {
        let mut state = self.state();
        state.pool_users += 1;
        state.pinned = None;
        Unpinned(self)
    }

    fn state(&self) -> MutexGuard<'_, State<DB>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guard: while it exists, no connection is pinned.
pub(super) struct Unpinned<'a, DB: sqlx::Database>(&'a PinnedConnection<DB>);

impl<DB: sqlx::Database> Unpinned<'_, DB> {
    pub(super) fn pool(&self) -> &Pool<DB> {
        &self.0.pool
    }
}

impl<DB: sqlx::Database> Drop for Unpinned<'_, DB> {
    fn drop(&mut self) {
        self.0.state().pool_users -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sea_orm::sqlx::sqlite::{Sqlite, SqlitePoolOptions};
    use tokio::time::timeout;

    use super::*;
    use crate::testing::sqlite;

    /// Creates a pool of one connection.
    async fn one(url: &str) -> PinnedConnection<Sqlite> {
        let pool = SqlitePoolOptions::new().max_connections(1).connect(url).await;
        PinnedConnection::new(pool.unwrap())
    }

    #[tokio::test]
    async fn unpin_returns_the_pinned_connection_to_the_pool() {
        let database = sqlite();
        let connection = one(&format!("{}?mode=rwc", database.url)).await;
        connection.pin(connection.acquire().await.unwrap());
        assert_eq!(connection.pool.num_idle(), 0, "the pool has it back");
        let taken = connection.acquire().await.unwrap();
        let unpinned = connection.unpin();
        connection.pin(taken);
        let given = unpinned.pool().acquire().await.unwrap();
        drop(unpinned);
        drop(given);
        connection.pin(connection.acquire().await.unwrap());
        let unpinned = connection.unpin();
        unpinned.pool().acquire().await.unwrap();
    }

    #[tokio::test]
    async fn closing_the_pool_does_not_wait_for_the_pinned_connection() {
        let database = sqlite();
        let connection = one(&format!("{}?mode=rwc", database.url)).await;
        connection.pin(connection.acquire().await.unwrap());
        let unpinned = connection.unpin();
        let closed = timeout(Duration::from_secs(60), unpinned.pool().close());
        closed.await.unwrap();
        assert!(matches!(connection.acquire().await, Err(StoreError::Unavailable)));
    }
}
