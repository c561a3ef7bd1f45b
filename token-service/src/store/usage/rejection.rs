//! Requests for tokens that were rejected after the client was authenticated. They are no events. They are counted in
//! memory, by grant, day and reason, and written every second, so that a rejected call writes nothing.
//!
//! A killed process loses the counts of the last second. No request is counted twice: what a failed commit was to write is
//! dropped.

use std::{collections::HashMap, sync::Arc, time::Duration};

use accord::{
    error::v1::ErrorReason,
    lock::Lock,
    rpc::status::reason_name,
    store::{Database, StoreError, Transaction},
    text::id::{GrantId, TenantId},
};
use sea_orm::{
    ActiveValue::Set,
    entity::prelude::*,
    sea_query::{Alias, Expr, ExprTrait, OnConflict},
};
use tokio::time::{MissedTickBehavior, interval};

use super::super::{
    Store,
    entity::grant_rejection::{ActiveModel, Column, Entity},
};
use crate::model::grant::usage::Day;

/// How often counts are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// The most counts that wait to be written. A rejection that would need a further one is not counted.
const MAX_WAITING: usize = 16 * 1024;
/// Rows in one statement, five parameters each.
const ROWS: usize = 1_000;

/// Tenant, grant, day and reason. In this order rows are locked.
type Key = (TenantId, GrantId, Day, &'static str);

/// The counts that are not written yet.
#[derive(Debug, Default)]
pub(in crate::store) struct Rejections {
    waiting: Lock<HashMap<Key, i64>>,
    /// Held during a write, so that the last write before the end waits for one that runs.
    writing: tokio::sync::Mutex<()>,
}

impl Rejections {
    /// Starts the task that writes counts to `db`, which ends with the last clone of the answer.
    pub(in crate::store) fn start(db: Database) -> Arc<Self> {
        let rejections = Arc::new(Self::default());
        let weak = Arc::downgrade(&rejections);
        tokio::spawn(async move {
            let mut ticks = interval(WRITE_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(rejections) = weak.upgrade() else { return };
                rejections.write(&db).await;
            }
        });
        rejections
    }

    async fn write(&self, db: &Database) {
        let _writing = self.writing.lock().await;
        let counts = std::mem::take(&mut *self.waiting.lock());
        if counts.is_empty() {
            return;
        }
        let written = async {
            let tx = db.write().await?;
            add(&tx, &counts).await?;
            Ok::<_, StoreError>(tx)
        };
        match written.await {
            Ok(tx) => {
                // It may be committed although the answer says otherwise.
                if let Err(error) = tx.commit().await {
                    tracing::warn!(%error, "counts of rejected requests may be lost");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "counts of rejected requests were not written");
                let mut waiting = self.waiting.lock();
                for (key, count) in counts {
                    count_in(&mut waiting, key, count);
                }
            }
        }
    }
}

fn count_in(waiting: &mut HashMap<Key, i64>, key: Key, count: i64) {
    if let Some(counted) = waiting.get_mut(&key) {
        *counted += count;
    } else if waiting.len() < MAX_WAITING {
        waiting.insert(key, count);
    }
}

impl Store {
    /// Counts in memory that a request for a token under a grant was rejected now.
    pub fn count_rejection(&self, tenant_id: &TenantId, grant_id: &GrantId, reason: ErrorReason) {
        let day = Day::of(self.now());
        let key = (tenant_id.clone(), grant_id.clone(), day, reason_name(reason));
        count_in(&mut self.rejections.waiting.lock(), key, 1);
    }

    /// Writes the counts of rejected requests so far. A server calls it before it stops.
    pub async fn write_rejections(&self) {
        self.rejections.write(&self.db).await;
    }
}

/// Adds counts to those that are there, whichever replica wrote them.
async fn add(tx: &Transaction, counts: &HashMap<Key, i64>) -> Result<(), StoreError> {
    // Sorted, so that replicas that write the same rows lock them in the same order.
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_unstable();
    let rows = counts
        .into_iter()
        .map(|((tenant_id, grant_id, day, reason), count)| ActiveModel {
            tenant_id: Set(tenant_id.to_string()),
            grant_id: Set(grant_id.to_string()),
            day: Set(day.0),
            reason: Set((*reason).to_owned()),
            rejected: Set(*count),
        });
    let sum =
        Expr::col((Entity, Column::Rejected)).add(Expr::col((Alias::new("excluded"), Column::Rejected)));
    let add = OnConflict::columns([Column::TenantId, Column::GrantId, Column::Day, Column::Reason])
        .value(Column::Rejected, sum)
        .to_owned();
    for rows in rows.collect::<Vec<_>>().chunks(ROWS) {
        Entity::insert_many(rows.to_vec())
            .on_conflict(add.clone())
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}
