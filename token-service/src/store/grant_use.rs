//! When each grant last yielded a token. Uses are collected in memory and written together every two seconds, so that
//! issuing a token updates no row.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use accord::{
    clock::UnixMillis,
    store::{Database, StoreError},
    text::id::TenantId,
};
use sea_orm::{
    ActiveValue::Set,
    entity::prelude::*,
    sea_query::{Alias, ExprTrait, OnConflict},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Store,
    entity::grant_use::{ActiveModel, Column, Entity, Model},
};
use crate::error::Result;

/// How often uses are written.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// The most grants whose uses wait to be written. A use of another grant is dropped, because its next token records
/// another.
const MAX_WAITING: usize = 64 * 1024;
/// Rows in one statement, three parameters each.
const ROWS: usize = 1000;

/// The uses that are not written yet.
#[derive(Debug, Default)]
pub(super) struct GrantUses {
    waiting: Mutex<HashMap<String, LastUse>>,
    /// Held during a write, so that the last write before the end waits for one that runs.
    writing: tokio::sync::Mutex<()>,
}

/// When a grant last yielded a token.
#[derive(Clone, Debug)]
struct LastUse {
    tenant_id: String,
    at: UnixMillis,
}

impl GrantUses {
    /// Starts the task that writes uses to `db`, which ends with the last clone of the answer.
    pub(super) fn start(db: Database) -> Arc<Self> {
        let uses = Arc::new(Self::default());
        let weak = Arc::downgrade(&uses);
        tokio::spawn(async move {
            let mut ticks = interval(WRITE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(uses) = weak.upgrade() else { return };
                uses.write(&db).await;
            }
        });
        uses
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, LastUse>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, db: &Database) {
        let _writing = self.writing.lock().await;
        let uses = std::mem::take(&mut *self.waiting());
        if let Err(error) = upsert(db, &uses).await {
            tracing::warn!(%error, "the last uses of grants were not written");
            let mut waiting = self.waiting();
            for (grant_id, unwritten) in uses {
                waiting.entry(grant_id).or_insert(unwritten);
            }
        }
    }
}

impl Store {
    /// Records in memory that a grant yielded a token now.
    pub fn record_grant_use(&self, tenant_id: &str, grant_id: &str) {
        let at = self.now();
        let mut waiting = self.grant_uses.waiting();
        if let Some(last) = waiting.get_mut(grant_id) {
            last.at = at;
        } else if waiting.len() < MAX_WAITING {
            let tenant_id = tenant_id.to_owned();
            waiting.insert(grant_id.to_owned(), LastUse { tenant_id, at });
        }
    }

    /// Writes the uses recorded so far. A server calls it before it stops.
    pub async fn write_grant_uses(&self) {
        self.grant_uses.write(&self.db).await;
    }

    /// Reads when these grants of a tenant last yielded a token. Grants that never did are absent.
    pub async fn last_grant_uses(
        &self,
        tenant_id: &TenantId,
        grant_ids: impl Iterator<Item = &str>,
    ) -> Result<HashMap<String, UnixMillis>> {
        let rows = Entity::find()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::GrantId.is_in(grant_ids))
            .all(self.db.read())
            .await?;
        let last_use = |row: Model| (row.grant_id, UnixMillis::from_millis(row.last_used_at));
        Ok(rows.into_iter().map(last_use).collect())
    }
}

async fn upsert(db: &Database, uses: &HashMap<String, LastUse>) -> Result<(), StoreError> {
    if uses.is_empty() {
        return Ok(());
    }
    let tx = db.write().await?;
    // Sorted, so that replicas that write the same rows lock them in the same order.
    let mut uses: Vec<_> = uses.iter().collect();
    uses.sort_unstable_by_key(|(grant_id, last)| (&last.tenant_id, *grant_id));
    let rows = uses.into_iter().map(|(grant_id, last)| ActiveModel {
        tenant_id: Set(last.tenant_id.clone()),
        grant_id: Set(grant_id.clone()),
        last_used_at: Set(last.at.as_millis()),
    });
    // Another replica may have written a later use.
    let is_later =
        Expr::col((Alias::new("excluded"), Column::LastUsedAt)).gt(Expr::col((Entity, Column::LastUsedAt)));
    let keep_latest = OnConflict::columns([Column::TenantId, Column::GrantId])
        .update_column(Column::LastUsedAt)
        .action_and_where(is_later)
        .to_owned();
    for rows in rows.collect::<Vec<_>>().chunks(ROWS) {
        Entity::insert_many(rows.to_vec())
            .on_conflict(keep_latest.clone())
            .exec_without_returning(&tx)
            .await?;
    }
    tx.commit().await
}
