//! A small write that proves that the database can be written. A database that only reads may be the old primary after a
//! failover: what it answers is out of date.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, ExprTrait};
use sea_orm_migration::prelude::{Expr, OnConflict, Query};

use super::{StoreError, pool::Pool};

/// The table of the heartbeat, with one row.
pub(in crate::store) const TABLE: &str = "heartbeat";
/// How long a proof counts for facts in memory.
const PROOF_PERIOD: Duration = Duration::from_millis(200);

/// The connections for heartbeats, and what the last ones proved.
pub(in crate::store) struct Heartbeat {
    pool: Pool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When the last heartbeat began that was committed.
    proven_at: Option<Instant>,
    /// Whether one has failed since.
    has_failed: bool,
}

impl Heartbeat {
    pub(in crate::store) fn new(pool: Pool) -> Self {
        Self {
            pool,
            state: Mutex::default(),
        }
    }

    pub(in crate::store) fn pool(&self) -> &Pool {
        &self.pool
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one was committed that began within the last 200 ms.
    pub(in crate::store) fn is_proven(&self) -> bool {
        let proven_at = self.state().proven_at;
        proven_at.is_some_and(|at| at.elapsed() < PROOF_PERIOD)
    }

    /// Notes that one failed.
    pub(in crate::store) fn fail(&self) {
        self.state().has_failed = true;
    }

    /// Writes and commits one. After a failure the first one that is committed makes all older connections suspect: they
    /// may lead to an old primary, which still answers what they read.
    pub(in crate::store) async fn beat(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        let next = Expr::col((TABLE, "beat")).add(1);
        let beat = Query::insert()
            .into_table(TABLE)
            .columns(["id", "beat"])
            .values_panic([1.into(), 0.into()])
            .on_conflict(OnConflict::column("id").value("beat", next).to_owned())
            .to_owned();
        if self.pool.execute(&beat).await.is_err() {
            self.fail();
            // Once more: a session that ended while nobody used it says nothing about the database.
            self.pool.execute(&beat).await?;
        }
        let mut state = self.state();
        if std::mem::take(&mut state.has_failed) {
            self.pool.suspicion().raise();
        }
        state.proven_at = Some(began);
        Ok(())
    }
}
