//! Moves refresh families to their next generations: one update and one insert of events a group (decision 21;
//! benchmark case `refresh`).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use accord::store::{
    Database, StoreError,
    audit::{Event, GroupWriter, Origin, Record, Renewal},
    batch::{group_commit::Work, json_rows::JsonRows},
    rows,
};
use sea_orm::{DatabaseBackend, entity::prelude::*};
use serde::Serialize;

use super::super::{
    Store, column, corrupt,
    entity::family::{Column, Entity},
    family::StoredFamily,
};
use crate::{error::Result, model::family::Generations};

impl Store {
    /// Moves a family to its next generations, with the event, unless it has moved or ended since it was read. Returns
    /// whether it moved.
    pub async fn advance_family(
        &self,
        origin: Origin,
        from: &StoredFamily,
        to: Generations,
        mut event: Event,
    ) -> Result<bool> {
        let stored = |generation: u32| i32::try_from(generation).map_err(|_| corrupt("families"));
        let mut row = from.row().clone();
        row.used_generation = stored(to.used)?;
        row.current_generation = stored(to.current)?;
        row.handed_out_at = to.handed_out_at.as_millis();
        // Otherwise the client keeps its refresh token.
        let is_new = to.current > from.generations.current;
        event.renewal = is_new.then(|| Renewal {
            family_id: from.family_id.clone(),
            generation: to.current,
        });
        rows::protect::<Entity>(&rows::current(self.db.read())?, &mut row)?;
        let advance = Advance {
            mac: hex::encode(&from.row().mac),
            next_mac: hex::encode(&row.mac),
            tenant_id: row.tenant_id,
            family_id: row.family_id,
            next_used: row.used_generation,
            next_current: row.current_generation,
            handed_out_at: row.handed_out_at,
            record: Arc::new(Record::new(&*self.clock, &*self.random, origin, event)),
        };
        match self.advances.submit(advance.clone()).await? {
            Some(advanced) => Ok(advanced),
            None => self.advance_alone(advance).await,
        }
    }

    /// Does the same in a transaction of its own, which waits for the family's row.
    async fn advance_alone(&self, advance: Advance) -> Result<bool> {
        let bytes = |mac: &str| hex::decode(mac).map_err(|_| corrupt("families"));
        let tx = self.db.write().await?;
        let advanced = Entity::update_many()
            .filter(Column::TenantId.eq(advance.tenant_id))
            .filter(Column::FamilyId.eq(advance.family_id))
            .filter(Column::Mac.eq(bytes(&advance.mac)?))
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::UsedGeneration, advance.next_used.into())
            .col_expr(Column::CurrentGeneration, advance.next_current.into())
            .col_expr(Column::HandedOutAt, advance.handed_out_at.into())
            .col_expr(Column::Mac, bytes(&advance.next_mac)?.into())
            .exec(&tx)
            .await?;
        if advanced.rows_affected == 0 {
            return Ok(false);
        }
        tx.record(Arc::unwrap_or_clone(advance.record)).await;
        tx.commit().await?;
        Ok(true)
    }
}

#[derive(Clone, Serialize)]
pub(in crate::store) struct Advance {
    tenant_id: String,
    family_id: String,
    /// Of the row that was read.
    mac: String,
    next_mac: String,
    next_used: i32,
    next_current: i32,
    handed_out_at: i64,
    #[serde(skip)]
    record: Arc<Record>,
}

/// Skips rows that another transaction has locked: waiting for one while holding others could deadlock.
pub(in crate::store) struct Advances {
    pub(in crate::store) db: Database,
    pub(in crate::store) writer: GroupWriter,
}

static ADVANCE: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("tenant_id", "text"),
        ("family_id", "text"),
        ("mac", "text"),
        ("next_mac", "text"),
        ("next_used", "integer"),
        ("next_current", "integer"),
        ("handed_out_at", "bigint"),
    ];
    JsonRows::new(&columns, |dialect| {
        format!(
            "WITH free AS (
                SELECT input.* FROM {} JOIN families AS f
                ON f.tenant_id = input.tenant_id AND f.family_id = input.family_id
                    AND f.mac = {} AND f.ended_at IS NULL
                {}
            )
            UPDATE families SET used_generation = free.next_used,
                current_generation = free.next_current, handed_out_at = free.handed_out_at, mac = {}
            FROM free
            WHERE families.tenant_id = free.tenant_id AND families.family_id = free.family_id
            RETURNING families.family_id AS family_id, families.used_generation AS used,
                families.current_generation AS current",
            dialect.input,
            dialect.unhex("input.mac"),
            dialect.lock_free("f"),
            dialect.unhex("free.next_mac"),
        )
    })
});

impl Work for Advances {
    type Item = Advance;
    /// Whether this item moved the family; `None` if the family has moved, has ended or is locked.
    type Outcome = Option<bool>;

    const NAME: &'static str = "renewals";

    async fn run(&self, advances: &[Advance]) -> Result<Vec<Option<bool>>, StoreError> {
        let tx = self.db.write().await?;
        let mut moved: HashMap<String, (i32, i32)> = HashMap::new();
        for row in ADVANCE.query(&tx, advances, []).await? {
            let next = (column(&row, "used")?, column(&row, "current")?);
            moved.insert(column(&row, "family_id")?, next);
        }
        // SQLite has one writer, so no row is locked by another.
        let locks = self.db.backend() == DatabaseBackend::Postgres;
        let mut winners = HashSet::new();
        let mut records = Vec::with_capacity(moved.len());
        let outcomes = advances.iter().map(|advance| {
            let generations = moved.get(&advance.family_id);
            // Items that move a family to the same generations present the same token: the first one wins.
            let wins = generations == Some(&(advance.next_used, advance.next_current))
                && winners.insert(&advance.family_id);
            if wins {
                records.push(&*advance.record);
            }
            (!locks || generations.is_some()).then_some(wins)
        });
        let outcomes = outcomes.collect();
        let appended = self.writer.append(&tx, &records).await?;
        tx.commit().await?;
        if let Some(appended) = appended {
            appended.committed();
        }
        Ok(outcomes)
    }
}
