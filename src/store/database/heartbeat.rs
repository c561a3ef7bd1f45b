//! A small write that proves that the database can be written. A database that only reads may be the old primary after a
//! failover: what it answers is out of date.

use std::{
    sync::{Arc, MutexGuard},
    time::{Duration, Instant},
};

use sea_orm::{ConnectionTrait, DatabaseBackend, ExprTrait};
use sea_orm_migration::prelude::{Expr, OnConflict, Query};
use tokio::{sync::Mutex, time::timeout};

use super::{StoreError, pool::Pool};
use crate::lock::Lock;

/// The table of the heartbeat, with one row.
pub(in crate::store) const TABLE: &str = "heartbeat";
/// How long a proof counts for facts in memory.
const PROOF_PERIOD: Duration = Duration::from_millis(200);
/// How long a proof may take.
const PROOF_TIMEOUT: Duration = Duration::from_millis(800);

/// Locks each table that this user may write as a write does, and releases it: a lock of somebody else is noticed, although
/// the heartbeat's own table is free. No lock of a vacuum or of a concurrent index is in the way.
const LOCK_TABLES: &str = "DO $$ DECLARE tables text; BEGIN
    SET LOCAL lock_timeout = '400ms';
    SELECT string_agg(format('%I.%I', schemaname, tablename), ', ' ORDER BY tablename) INTO tables FROM pg_tables
        WHERE schemaname = current_schema()
            AND has_table_privilege(format('%I.%I', schemaname, tablename), 'INSERT');
    IF tables IS NOT NULL THEN EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', tables); END IF;
END $$";

/// The connections for heartbeats, and what the last ones proved.
pub(in crate::store) struct Heartbeat {
    pool: Pool,
    state: Lock<State>,
    /// Held by the caller that seeks a proof for all.
    proving: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// When the last committed heartbeat began.
    proven_at: Option<Instant>,
    /// Whether a heartbeat has failed since.
    has_failed: bool,
    /// When the last attempt to prove anything ended, and why it failed.
    unproven: Option<(Instant, StoreError)>,
}

impl Heartbeat {
    pub(in crate::store) fn new(pool: Pool) -> Self {
        Self {
            pool,
            state: Lock::default(),
            proving: Mutex::default(),
        }
    }

    pub(in crate::store) fn pool(&self) -> &Pool {
        &self.pool
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Writes and commits a heartbeat, unless one was committed that began within the last 200 ms. Callers of the same moment share
    /// it, and its failure.
    pub(in crate::store) async fn prove(self: &Arc<Self>) -> Result<(), StoreError> {
        if self.is_proven() {
            return Ok(());
        }
        let asked_at = Instant::now();
        let _proving = self.proving.lock().await;
        if self.is_proven() {
            return Ok(());
        }
        if let Some((at, error)) = &self.state().unproven
            && *at >= asked_at
        {
            return Err(error.clone());
        }
        let proof = self.within(PROOF_TIMEOUT, self.beat_to_its_end(), || false).await;
        if let Err(error) = &proof {
            self.state().unproven = Some((Instant::now(), error.clone()));
        }
        proof
    }

    /// Returns whether a heartbeat was committed that began within the last 200 ms.
    fn is_proven(&self) -> bool {
        let proven_at = self.state().proven_at;
        proven_at.is_some_and(|at| at.elapsed() < PROOF_PERIOD)
    }

    /// Writes and commits a heartbeat within a time limit, and checks that no table is locked. On SQLite, where it waits in the queue
    /// of writers, a commit of another writer in that time proves as much.
    pub(in crate::store) async fn check_within(self: &Arc<Self>, limit: Duration) -> Result<(), StoreError> {
        let commits = self.pool.commits();
        let check = async {
            self.beat_to_its_end().await?;
            self.check_tables().await
        };
        let is_written = || self.pool.backend() == DatabaseBackend::Sqlite && self.pool.commits() > commits;
        self.within(limit, check, is_written).await
    }

    /// Writes and commits a heartbeat in a task of its own. If the caller gives up, the connection that is being opened stays for the
    /// next one: otherwise none would succeed where opening takes longer than the limit.
    async fn beat_to_its_end(self: &Arc<Self>) -> Result<(), StoreError> {
        let this = Arc::clone(self);
        let beat = tokio::spawn(async move { this.beat().await }).await;
        beat.unwrap_or_else(|_stopped| Err(StoreError::unavailable("the service stops")))
    }

    /// Limits the time of a check, which succeeds anyway if the database `is_written`. The first time limit that is missed makes every
    /// idle connection suspect; connections that are opened afterwards stay.
    async fn within(
        &self,
        limit: Duration,
        check: impl Future<Output = Result<(), StoreError>>,
        is_written: impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        // Boxed, or the compiler gives up on the depth of the future.
        let checked = timeout(limit, Box::pin(check)).await;
        if is_written() {
            return Ok(());
        }
        checked.unwrap_or_else(|_elapsed| {
            if !std::mem::replace(&mut self.state().has_failed, true) {
                self.pool.suspicion().raise();
            }
            Err(StoreError::unavailable("no small write was committed in time"))
        })
    }

    /// Writes and commits a heartbeat. After a failure the first heartbeat that is committed makes all older connections suspect: they
    /// may lead to an old primary, which still answers what they read.
    async fn beat(&self) -> Result<(), StoreError> {
        let began = Instant::now();
        // Boxed, or the compiler gives up on the depth of the future.
        if Box::pin(self.write()).await.is_err() {
            self.state().has_failed = true;
            // Once more: a session that ended while nobody used it says nothing about the database.
            Box::pin(self.write()).await?;
        }
        let mut state = self.state();
        if std::mem::take(&mut state.has_failed) {
            self.pool.suspicion().raise();
        }
        state.proven_at = Some(began);
        Ok(())
    }

    /// Writes in a transaction, which sets its own time limits: with those of a stranger's session behind a pooler, two
    /// heartbeats at a time would fail.
    async fn write(&self) -> Result<(), StoreError> {
        let next = Expr::col((TABLE, "beat")).add(1);
        let beat = Query::insert()
            .into_table(TABLE)
            .columns(["id", "beat"])
            .values_panic([1.into(), 0.into()])
            .on_conflict(OnConflict::column("id").value("beat", next).to_owned())
            .to_owned();
        let tx = self.pool.begin().await?;
        tx.execute(&beat).await?;
        tx.commit().await
    }

    /// Checks that no table of a PostgreSQL database is locked.
    async fn check_tables(&self) -> Result<(), StoreError> {
        if self.pool.backend() == DatabaseBackend::Sqlite {
            return Ok(());
        }
        let mut connection = self.pool.take_out().await?;
        match connection
            .execute_text(LOCK_TABLES)
            .await
            .map_err(StoreError::from)
        {
            Err(StoreError::Busy) => Err(StoreError::unavailable("somebody has locked a table")),
            checked => checked.map(drop),
        }
    }
}
