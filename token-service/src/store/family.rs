//! Refresh families in the database.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use accord::{
    clock::UnixMillis,
    position::{Epoch, Position},
    store::{
        StoreError,
        audit::{self, Event, Origin, Record},
        group_commit::Work,
        json_rows::AboutRows,
    },
    text::id::{ClientId, FamilyId, GrantId, TenantId},
};
use sea_orm::{ColumnTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter, sea_query::Expr};
use serde::Serialize;

use super::{
    Shared, Store, column, commit, corrupt,
    entity::family::{Column, Entity, Model},
    grant::GrantKey,
    revocation::{self, NewRevocation},
};
use crate::model::revocation::RevocationKind;
use crate::{
    error::Error,
    model::{family::Family, lifetimes::Lifetimes},
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

    /// Moves a family on by one generation, if it still stands where it was read; whether it did. The
    /// event goes with it. Those who come at the same time share a transaction.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn advance_family(&self, origin: Origin, from: &Family, event: Event) -> Result<bool, Error> {
        let advance = Advance {
            tenant_id: from.tenant_id.to_string(),
            family_id: from.family_id.to_string(),
            generation: stored(from.generation)?,
            record: Arc::new(Record::new(&*self.clock, &*self.random, origin, event)?),
        };
        match self.advances.ask(advance.clone()).await? {
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
            .filter(Column::Generation.eq(advance.generation))
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::Generation, Expr::value(advance.generation + 1))
            .col_expr(Column::AdvancedAt, Expr::value(self.now().as_millis()))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        if advanced.rows_affected == 0 {
            return Ok(false);
        }
        audit::insert(&tx, &[&*advance.record]).await?;
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

/// A family to be moved on from a generation, and the event of it.
#[derive(Clone, Serialize)]
pub(super) struct Advance {
    tenant_id: String,
    family_id: String,
    generation: i32,
    #[serde(skip)]
    record: Arc<Record>,
}

/// Moves on together the families that nobody else holds at that moment: what waits for one while it holds
/// others could be waited for in turn.
pub(super) struct Advances(pub(super) Shared);

static ADVANCE: LazyLock<AboutRows> = LazyLock::new(|| {
    let columns = [
        ("tenant_id", "text"),
        ("family_id", "text"),
        ("generation", "integer"),
    ];
    AboutRows::new(&columns, |dialect| {
        format!(
            "WITH free AS (
                SELECT f.tenant_id, f.family_id FROM {} JOIN families AS f
                ON f.tenant_id = asked.tenant_id AND f.family_id = asked.family_id
                    AND f.generation = asked.generation AND f.ended_at IS NULL
                {}
            )
            UPDATE families SET generation = families.generation + 1, advanced_at = $2 FROM free
            WHERE families.tenant_id = free.tenant_id AND families.family_id = free.family_id
            RETURNING families.family_id AS family_id, families.generation AS generation",
            dialect.asked,
            dialect.lock_free("f"),
        )
    })
});

impl Work for Advances {
    type Item = Advance;
    /// Whether the family was moved on by this very item; `None` if it is elsewhere, or held by somebody.
    type Outcome = Option<bool>;

    async fn run(&self, advances: &[Advance]) -> Result<Vec<Option<bool>>, StoreError> {
        let Self(Shared { db, clock, .. }) = self;
        let tx = db.write().await?;
        let now = clock.now().as_millis();
        let rows = ADVANCE.query(&tx, advances, [now.into()]).await?;
        let moved = rows
            .iter()
            .map(|row| Ok((column(row, "family_id")?, column::<i32>(row, "generation")? - 1)));
        let moved: HashSet<(String, i32)> = moved.collect::<Result<_, StoreError>>()?;
        // Of several who would move a family on it is the first.
        let mut left = moved.clone();
        let mut records = Vec::with_capacity(moved.len());
        let outcomes = advances.iter().map(|advance| {
            let from = (advance.family_id.clone(), advance.generation);
            let is_first = left.remove(&from);
            if is_first {
                records.push(&*advance.record);
            }
            // On SQLite nobody else holds anything.
            let is_known = moved.contains(&from) || db.backend() != DatabaseBackend::Postgres;
            is_known.then_some(is_first)
        });
        let outcomes = outcomes.collect();
        audit::insert(&tx, &records).await?;
        commit(tx).await?;
        Ok(outcomes)
    }
}

/// Families to be added, at their first generation.
static INSERT: LazyLock<AboutRows> = LazyLock::new(|| {
    let columns = [
        ("tenant_id", "text"),
        ("family_id", "text"),
        ("grant_id", "text"),
        ("client_id", "text"),
        ("generation", "integer"),
        ("advanced_at", "bigint"),
        ("key_version", "integer"),
        ("registry_epoch", "text"),
        ("registry_seq", "bigint"),
        ("created_at", "bigint"),
        ("expires_at", "bigint"),
    ];
    AboutRows::insert("families", &columns)
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
            "generation": family.generation,
            "advanced_at": family.advanced_at.as_millis(),
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
static END_OF_GRANTS: LazyLock<AboutRows> = LazyLock::new(|| {
    let columns = [("tenant_id", "text"), ("grant_id", "text")];
    AboutRows::new(&columns, |dialect| {
        format!(
            "UPDATE families SET ended_at = $2, end_reason = $3 FROM {}
            WHERE families.tenant_id = asked.tenant_id AND families.grant_id = asked.grant_id
                AND families.ended_at IS NULL",
            dialect.asked
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

fn stored(generation: u32) -> Result<i32, Error> {
    i32::try_from(generation).map_err(|_| corrupt("families"))
}

fn family(row: Model) -> Result<Family, Error> {
    let unreadable = || corrupt("families");
    Ok(Family {
        family_id: FamilyId::parse(&row.family_id).map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        generation: u32::try_from(row.generation).map_err(|_| unreadable())?,
        advanced_at: UnixMillis::from_millis(row.advanced_at),
        key_version: row.key_version,
        registry: Position {
            epoch: Epoch::parse(&row.registry_epoch).map_err(|_| unreadable())?,
            seq: row.registry_seq,
        },
        expires_at: UnixMillis::from_millis(row.expires_at),
        ended_at: row.ended_at.map(UnixMillis::from_millis),
    })
}
