//! A small write that proves that the database can be written. A database that only reads may be the old primary after a
//! failover: what it answers is out of date.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, ExprTrait};
use sea_orm_migration::prelude::{Expr, OnConflict, Query};

use super::{StoreError, pool::Pool};

/// The table of the heartbeat, with one row.
pub(super) const TABLE: &str = "heartbeat";
/// How long a proof counts for facts in memory.
const PROOF_PERIOD: Duration = Duration::from_millis(200);

/// The connection for heartbeats, and when the last one began that was committed.
pub(super) struct Heartbeat {
    pool: Pool,
    proven_at: Mutex<Option<Instant>>,
}

impl Heartbeat {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            pool,
            proven_at: Mutex::new(None),
        }
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether one was committed that began within the last 200 ms.
    pub(super) fn is_proven(&self) -> bool {
        let proven_at = *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner);
        proven_at.is_some_and(|at| at.elapsed() < PROOF_PERIOD)
    }

    /// Writes and commits one.
    pub(super) async fn beat(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        let next = Expr::col((TABLE, "beat")).add(1);
        let beat = Query::insert()
            .into_table(TABLE)
            .columns(["id", "beat"])
            .values_panic([1.into(), 0.into()])
            .on_conflict(OnConflict::column("id").value("beat", next).to_owned())
            .to_owned();
        self.pool.execute(&beat).await?;
        *self.proven_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(began);
        Ok(())
    }
}
