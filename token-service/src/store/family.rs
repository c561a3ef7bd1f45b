//! Refresh families in the database.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use accord::{
    clock::UnixMillis,
    position::{Epoch, Position},
    store::{
        Database, StoreError,
        audit::{Event, Origin, Record},
        batch::{self, group_commit::Work, json_rows::JsonRows},
    },
    text::id::{ClientId, FamilyId, GrantId, TenantId},
};
use sea_orm::{ColumnTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter, sea_query::Expr};
use serde::Serialize;

use super::{
    Store, column, commit, corrupt,
    entity::family::{Column, Entity, Model},
    grant::GrantKey,
    revocation::{self, NewRevocation},
};
use crate::{
    error::Error,
    model::{
        family::{Family, Generations},
        lifetimes::Lifetimes,
        revocation::RevocationKind,
    },
};

impl Store {
    /// Reads a tenant's family.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_family(
        &self,
        tenant_id: &TenantId,
        family_id: &FamilyId,
    ) -> Result<Option<Family>, Error> {
        let row = Entity::find_by_id((tenant_id.to_string(), family_id.to_string()))
            .one(self.db.read())
            .await
            .map_err(StoreError::from)?;
        row.map(family).transpose()
    }

    /// Moves a family to its next generations, unless it has moved or ended since it was read. Returns
    /// whether it moved. The event is committed with it; callers at the same time share a transaction.
    pub async fn advance_family(
        &self,
        origin: Origin,
        from: &Family,
        to: Generations,
        event: Event,
    ) -> Result<bool, Error> {
        let stored = |generation: u32| i32::try_from(generation).map_err(|_| corrupt("families"));
        let advance = Advance {
            tenant_id: from.tenant_id.to_string(),
            family_id: from.family_id.to_string(),
            used: stored(from.generations.used)?,
            current: stored(from.generations.current)?,
            next_used: stored(to.used)?,
            next_current: stored(to.current)?,
            handed_out_at: to.handed_out_at.as_millis(),
            record: Arc::new(Record::new(&*self.clock, &*self.random, origin, event)?),
        };
        match self.advances.submit(advance.clone()).await? {
            Some(advanced) => Ok(advanced),
            None => self.advance_alone(advance).await,
        }
    }

    /// The same in a transaction of its own, which waits for whoever holds the family.
    async fn advance_alone(&self, advance: Advance) -> Result<bool, Error> {
        let tx = self.db.write().await?;
        let advanced = Entity::update_many()
            .filter(Column::TenantId.eq(advance.tenant_id))
            .filter(Column::FamilyId.eq(advance.family_id))
            .filter(Column::UsedGeneration.eq(advance.used))
            .filter(Column::CurrentGeneration.eq(advance.current))
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::UsedGeneration, Expr::value(advance.next_used))
            .col_expr(Column::CurrentGeneration, Expr::value(advance.next_current))
            .col_expr(Column::HandedOutAt, Expr::value(advance.handed_out_at))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        if advanced.rows_affected == 0 {
            return Ok(false);
        }
        batch::audit::insert(&tx, &[&*advance.record]).await?;
        commit(tx).await?;
        Ok(true)
    }

    /// Ends a family and its access tokens; no change, and no event, if it has ended before.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn end_family(
        &self,
        origin: &Origin,
        family: &Family,
        reason: &'static str,
        event: Event,
    ) -> Result<(), Error> {
        let tx = self.db.write().await?;
        let now = self.now();
        let ended = Entity::update_many()
            .filter(Column::TenantId.eq(family.tenant_id.as_str()))
            .filter(Column::FamilyId.eq(family.family_id.as_str()))
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
            .col_expr(Column::EndReason, Expr::value(reason))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        if ended.rows_affected == 0 {
            return Ok(());
        }
        self.audit(&tx, origin, event).await?;
        let id = family.family_id.as_str();
        let change = revocation::change(RevocationKind::Family, id, Some(&family.tenant_id));
        let seq = self.bump(&tx, &[change]).await?;
        let new = NewRevocation {
            seq,
            kind: RevocationKind::Family,
            id,
            tenant_id: Some(&family.tenant_id),
            now,
            expires_at: now.plus(Lifetimes::MAX_ACCESS_TOKEN),
        };
        revocation::insert(&tx, new).await?;
        commit(tx).await?;
        Ok(())
    }
}

/// A family that moves from two generations to the next two, and the event of it.
#[derive(Clone, Serialize)]
pub(super) struct Advance {
    tenant_id: String,
    family_id: String,
    used: i32,
    current: i32,
    next_used: i32,
    next_current: i32,
    handed_out_at: i64,
    #[serde(skip)]
    record: Arc<Record>,
}

/// Moves families in one transaction. It skips rows that another transaction has locked: waiting for one
/// while holding others could deadlock.
pub(super) struct Advances(pub(super) Database);

static ADVANCE: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("tenant_id", "text"),
        ("family_id", "text"),
        ("used", "integer"),
        ("current", "integer"),
        ("next_used", "integer"),
        ("next_current", "integer"),
        ("handed_out_at", "bigint"),
    ];
    JsonRows::new(&columns, |dialect| {
        format!(
            "WITH free AS (
                SELECT input.* FROM {} JOIN families AS f
                ON f.tenant_id = input.tenant_id AND f.family_id = input.family_id
                    AND f.used_generation = input.used AND f.current_generation = input.current
                    AND f.ended_at IS NULL
                {}
            )
            UPDATE families SET used_generation = free.next_used,
                current_generation = free.next_current, handed_out_at = free.handed_out_at
            FROM free
            WHERE families.tenant_id = free.tenant_id AND families.family_id = free.family_id
            RETURNING families.family_id AS family_id, families.used_generation AS used,
                families.current_generation AS current",
            dialect.input,
            dialect.lock_free("f"),
        )
    })
});

impl Work for Advances {
    type Item = Advance;
    /// Whether this item moved the family; `None` if the family has moved, has ended or is locked.
    type Outcome = Option<bool>;

    async fn run(&self, advances: &[Advance]) -> Result<Vec<Option<bool>>, StoreError> {
        let Self(db) = self;
        let tx = db.write().await?;
        let rows = ADVANCE.query(&tx, advances, []).await?;
        let moved = rows.iter().map(|row| {
            Ok((
                column(row, "family_id")?,
                (column(row, "used")?, column(row, "current")?),
            ))
        });
        let moved: HashMap<String, (i32, i32)> = moved.collect::<Result<_, StoreError>>()?;
        // Items that move a family to the same generations present the same token: the first one wins.
        let mut left = moved.clone();
        let mut records = Vec::with_capacity(moved.len());
        let outcomes = advances.iter().map(|advance| {
            let next = (advance.next_used, advance.next_current);
            let is_first = left.get(&advance.family_id) == Some(&next);
            if is_first {
                left.remove(&advance.family_id);
                records.push(&*advance.record);
            }
            // SQLite has one writer, so no row is locked by somebody else.
            let is_known =
                moved.contains_key(&advance.family_id) || db.backend() != DatabaseBackend::Postgres;
            is_known.then_some(is_first)
        });
        let outcomes = outcomes.collect();
        batch::audit::insert(&tx, &records).await?;
        commit(tx).await?;
        Ok(outcomes)
    }
}

/// Families to be added, at their first generation.
static INSERT: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("tenant_id", "text"),
        ("family_id", "text"),
        ("grant_id", "text"),
        ("client_id", "text"),
        ("used_generation", "integer"),
        ("current_generation", "integer"),
        ("handed_out_at", "bigint"),
        ("key_version", "integer"),
        ("registry_epoch", "text"),
        ("registry_seq", "bigint"),
        ("created_at", "bigint"),
        ("expires_at", "bigint"),
    ];
    JsonRows::insert("families", &columns)
});

/// Adds families.
pub(super) async fn insert(
    tx: &DatabaseTransaction,
    families: impl Iterator<Item = &Family>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let rows = families.map(|family| {
        serde_json::json!({
            "tenant_id": family.tenant_id.as_str(),
            "family_id": family.family_id.as_str(),
            "grant_id": family.grant_id.as_str(),
            "client_id": family.client_id.as_str(),
            "used_generation": family.generations.used,
            "current_generation": family.generations.current,
            "handed_out_at": family.generations.handed_out_at.as_millis(),
            "key_version": family.key_version,
            "registry_epoch": family.registry.epoch,
            "registry_seq": family.registry.seq,
            "created_at": now.as_millis(),
            "expires_at": family.expires_at.as_millis(),
        })
    });
    let rows: Vec<_> = rows.collect();
    INSERT.execute(tx, &rows, []).await?;
    Ok(())
}

/// Ends families of several grants.
static END_OF_GRANTS: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [("tenant_id", "text"), ("grant_id", "text")];
    JsonRows::new(&columns, |dialect| {
        format!(
            "UPDATE families SET ended_at = $2, end_reason = $3 FROM {}
            WHERE families.tenant_id = input.tenant_id AND families.grant_id = input.grant_id
                AND families.ended_at IS NULL",
            dialect.input
        )
    })
});

/// Ends the families of these grants. Their access tokens end with the grants' own revocations.
pub(super) async fn end_families_of_grants(
    tx: &DatabaseTransaction,
    grants: &[GrantKey],
    reason: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let others = [now.as_millis().into(), reason.into()];
    END_OF_GRANTS.execute(tx, grants, others).await?;
    Ok(())
}

/// Ends every family there is.
pub(super) async fn end_all(
    tx: &DatabaseTransaction,
    reason: &'static str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    Entity::update_many()
        .filter(Column::EndedAt.is_null())
        .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
        .col_expr(Column::EndReason, Expr::value(reason))
        .exec(tx)
        .await?;
    Ok(())
}

fn family(row: Model) -> Result<Family, Error> {
    let unreadable = || corrupt("families");
    Ok(Family {
        family_id: FamilyId::parse(&row.family_id).map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        generations: Generations {
            used: u32::try_from(row.used_generation).map_err(|_| unreadable())?,
            current: u32::try_from(row.current_generation).map_err(|_| unreadable())?,
            handed_out_at: UnixMillis::from_millis(row.handed_out_at),
        },
        key_version: row.key_version,
        registry: Position {
            epoch: Epoch::parse(&row.registry_epoch).map_err(|_| unreadable())?,
            seq: row.registry_seq,
        },
        expires_at: UnixMillis::from_millis(row.expires_at),
        ended_at: row.ended_at.map(UnixMillis::from_millis),
    })
}
