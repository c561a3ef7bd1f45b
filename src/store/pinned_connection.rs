//! A connection that is kept from one use to the next, for who writes again and again. A pool asks the database
//! for a sign of life whenever a connection comes back: on PostgreSQL a journey to the server, on SQLite, where
//! everybody waits for the one writer, a task and two threads that wake up.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::sqlx::{self, Pool, pool::PoolConnection};

use super::StoreError;

/// For how long a connection is kept without use. One that the network forgot would let those hang who use it.
const UNUSED: Duration = Duration::from_secs(30);

/// A pool, and one of its connections that is kept back.
pub(super) struct Kept<DB: sqlx::Database> {
    pool: Pool<DB>,
    state: Mutex<State<DB>>,
}

struct State<DB: sqlx::Database> {
    /// The connection, and since when it is not used.
    connection: Option<(PoolConnection<DB>, Instant)>,
    /// How many want one of the pool's: while there is anybody, none is kept back.
    wanted: usize,
}

impl<DB: sqlx::Database> Kept<DB> {
    /// Keeps none yet.
    pub(super) fn new(pool: Pool<DB>) -> Self {
        Self {
            pool,
            state: Mutex::new(State {
                connection: None,
                wanted: 0,
            }),
        }
    }

    /// Takes the connection that is kept, or else one of the pool's. It is to be given to [`Self::keep`] if all
    /// went well; otherwise it goes back to the pool, which looks whether it is alive and in no transaction.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(super) async fn take(&self) -> Result<PoolConnection<DB>, StoreError> {
        let kept = self.state().connection.take();
        match kept {
            Some((connection, since)) if since.elapsed() < UNUSED => Ok(connection),
            unused => {
                drop(unused);
                Ok(self.pool.acquire().await?)
            }
        }
    }

    /// Keeps a connection for the next use, unless somebody wants one of the pool's.
    pub(super) fn keep(&self, connection: PoolConnection<DB>) {
        let mut state = self.state();
        if state.wanted == 0 && !self.pool.is_closed() {
            state.connection = Some((connection, Instant::now()));
        }
    }

    /// Gives back what is kept, and sees to it that nothing is until the answer goes: for who waits for a
    /// connection of the pool, or for all of them.
    pub(super) fn want(&self) -> Wanted<'_, DB> {
        let mut state = self.state();
        state.wanted += 1;
        state.connection = None;
        Wanted(self)
    }

    fn state(&self) -> MutexGuard<'_, State<DB>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody wants a connection of the pool.
pub(super) struct Wanted<'a, DB: sqlx::Database>(&'a Kept<DB>);

impl<DB: sqlx::Database> Wanted<'_, DB> {
    /// The pool.
    pub(super) fn pool(&self) -> &Pool<DB> {
        &self.0.pool
    }
}

impl<DB: sqlx::Database> Drop for Wanted<'_, DB> {
    fn drop(&mut self) {
        self.0.state().wanted -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use sea_orm::sqlx::sqlite::{Sqlite, SqlitePoolOptions};
    use tokio::time::timeout;

    use super::*;
    use crate::testing::sqlite;

    /// A pool of one connection.
    async fn one(url: &str) -> Kept<Sqlite> {
        let pool = SqlitePoolOptions::new().max_connections(1).connect(url).await;
        Kept::new(pool.unwrap())
    }

    #[tokio::test]
    async fn what_is_kept_comes_back_until_somebody_wants_it() {
        let database = sqlite();
        let kept = one(&format!("{}?mode=rwc", database.url)).await;
        kept.keep(kept.take().await.unwrap());
        assert_eq!(kept.pool.num_idle(), 0, "the pool has it back");
        let taken = kept.take().await.unwrap();
        let wanted = kept.want();
        kept.keep(taken);
        let given = wanted.pool().acquire().await.unwrap();
        drop(wanted);
        drop(given);
        kept.keep(kept.take().await.unwrap());
        let wanted = kept.want();
        wanted.pool().acquire().await.unwrap();
    }

    #[tokio::test]
    async fn a_pool_that_closes_waits_for_nothing_that_is_kept() {
        let database = sqlite();
        let kept = one(&format!("{}?mode=rwc", database.url)).await;
        kept.keep(kept.take().await.unwrap());
        let wanted = kept.want();
        let closed = timeout(Duration::from_secs(60), wanted.pool().close());
        closed.await.unwrap();
        assert!(matches!(kept.take().await, Err(StoreError::Unavailable)));
    }
}
