//! When each grant last yielded a token. Uses are collected in memory and written together every few
//! seconds, so that issuing a token updates no row of its grant.

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
    ColumnTrait, EntityTrait, QueryFilter,
    sea_query::{Alias, Expr, ExprTrait, OnConflict},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    Store,
    entity::grant_use::{ActiveModel, Column, Entity},
};
use crate::error::Error;

/// How often uses are written.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// The most uses that wait to be collected. One that finds no room is dropped: the next token of its grant
/// brings another.
const MAX_WAITING: usize = 16 * 1024;
/// Rows in one statement: three parameters each.
const ROWS: usize = 1000;

/// Tenant and grant.
type Key = (String, String);

enum Message {
    Used(Key, UnixMillis),
    Write(oneshot::Sender<()>),
}

/// Hands uses to the task that writes them. Cheap to clone; the task ends with the last clone.
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
    /// Notes that a grant yielded a token now.
    pub fn note_grant_use(&self, tenant_id: &str, grant_id: &str) {
        let key = (tenant_id.to_owned(), grant_id.to_owned());
        let _ = self.grant_uses.0.try_send(Message::Used(key, self.now()));
    }

    /// Writes the uses noted so far. A server calls it before it stops.
    pub async fn write_grant_uses(&self) {
        let (done, written) = oneshot::channel();
        if self.grant_uses.0.send(Message::Write(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    /// When these grants of a tenant last yielded a token; grants that never did are absent.
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
        let uses = rows
            .into_iter()
            .map(|row| (row.grant_id, UnixMillis::from_millis(row.last_used_at)));
        Ok(uses.collect())
    }
}

async fn collect(db: Database, mut messages: mpsc::Receiver<Message>) {
    // In the order of the key: replicas that write the same rows lock them in the same order.
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
            // They stay for the next time; their number is that of the grants in use.
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
    let rows: Vec<_> = uses
        .iter()
        .map(|((tenant_id, grant_id), at)| ActiveModel {
            tenant_id: Set(tenant_id.clone()),
            grant_id: Set(grant_id.clone()),
            last_used_at: Set(at.as_millis()),
        })
        .collect();
    for rows in rows.chunks(ROWS) {
        // Another replica may have written a later use.
        let newer = Expr::col((Alias::new("excluded"), Column::LastUsedAt))
            .gt(Expr::col((Entity, Column::LastUsedAt)));
        let conflict = OnConflict::columns([Column::TenantId, Column::GrantId])
            .update_column(Column::LastUsedAt)
            .action_and_where(newer)
            .to_owned();
        Entity::insert_many(rows.to_vec())
            .on_conflict(conflict)
            .exec_without_returning(&tx)
            .await?;
    }
    Ok(tx.commit().await?)
}
