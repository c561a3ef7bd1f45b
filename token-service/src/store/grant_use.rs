//! When each grant last yielded a token. Uses are collected in memory and written together every two seconds, so that
//! issuing a token updates no row.

use std::{
    collections::{BTreeMap, HashMap},
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
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    Store,
    entity::grant_use::{ActiveModel, Column, Entity, Model},
};
use crate::error::Error;

/// How often uses are written.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// The most uses in the queue. A use that finds the queue full is dropped, because the next token of its grant records
/// another.
const MAX_WAITING: usize = 16 * 1024;
/// Rows in one statement, three parameters each.
const ROWS: usize = 1000;

/// Tenant and grant.
type Key = (String, String);

enum Message {
    Used(Key, UnixMillis),
    Write(oneshot::Sender<()>),
}

/// Sends uses to the task that writes them. The task ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct GrantUses(mpsc::Sender<Message>);

impl GrantUses {
    pub(super) fn start(db: Database) -> Self {
        let (sender, messages) = mpsc::channel(MAX_WAITING);
        tokio::spawn(collect(db, messages));
        Self(sender)
    }
}

impl Store {
    /// Records in memory that a grant yielded a token now.
    pub fn note_grant_use(&self, tenant_id: &str, grant_id: &str) {
        let key = (tenant_id.to_owned(), grant_id.to_owned());
        let _ = self.grant_uses.0.try_send(Message::Used(key, self.now()));
    }

    /// Writes the uses recorded so far. A server calls it before it stops.
    pub async fn write_grant_uses(&self) {
        let (done, written) = oneshot::channel();
        if self.grant_uses.0.send(Message::Write(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Reads when these grants of a tenant last yielded a token. Grants that never did are absent.
    pub async fn last_grant_uses(
        &self,
        tenant_id: &TenantId,
        grant_ids: impl Iterator<Item = &str>,
    ) -> Result<HashMap<String, UnixMillis>, Error> {
        let rows = Entity::find()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::GrantId.is_in(grant_ids))
            .all(self.db.read())
            .await?;
        let last_use = |row: Model| (row.grant_id, UnixMillis::from_millis(row.last_used_at));
        Ok(rows.into_iter().map(last_use).collect())
    }
}

async fn collect(db: Database, mut messages: mpsc::Receiver<Message>) {
    // Sorted, so that replicas that write the same rows lock them in the same order.
    let mut uses = BTreeMap::new();
    let mut ticks = interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            message = messages.recv() => match message {
                Some(Message::Used(key, at)) => {
                    uses.insert(key, at);
                    continue;
                }
                Some(Message::Write(written)) => Some(written),
                None => return,
            },
            _ = ticks.tick() => None,
        };
        match write(&db, &uses).await {
            Ok(()) => uses.clear(),
            // They stay for the next time. There is at most one for each grant in use.
            Err(error) => tracing::warn!(%error, "the last uses of grants were not written"),
        }
        if let Some(written) = written {
            let _ = written.send(());
        }
    }
}

async fn write(db: &Database, uses: &BTreeMap<Key, UnixMillis>) -> Result<(), StoreError> {
    if uses.is_empty() {
        return Ok(());
    }
    let tx = db.write().await?;
    let rows = uses.iter().map(|((tenant_id, grant_id), at)| ActiveModel {
        tenant_id: Set(tenant_id.clone()),
        grant_id: Set(grant_id.clone()),
        last_used_at: Set(at.as_millis()),
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
    Ok(tx.commit().await?)
}
