//! Refresh families in the database.

use accord::{
    clock::UnixMillis,
    id::{ClientId, FamilyId, GrantId, TenantId},
    store::{
        StoreError,
        audit::{Event, Origin},
        change::Position,
    },
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    sea_query::Expr,
};

use super::{
    Store, commit, corrupt,
    entity::family::{ActiveModel, Column, Entity, Model},
    revocation::{self, NewRevocation, RevocationKind},
};
use crate::{error::Error, family::Family, service::Lifetimes};

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
    /// event goes with it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn advance_family(&self, origin: &Origin, from: &Family, event: Event) -> Result<bool, Error> {
        let tx = self.db.write().await?;
        let advanced = Entity::update_many()
            .filter(Column::TenantId.eq(from.tenant_id.as_str()))
            .filter(Column::FamilyId.eq(from.family_id.as_str()))
            .filter(Column::Generation.eq(stored(from.generation)?))
            .filter(Column::EndedAt.is_null())
            .col_expr(Column::Generation, Expr::value(stored(from.generation + 1)?))
            .col_expr(Column::AdvancedAt, Expr::value(self.now().as_millis()))
            .exec(&tx)
            .await
            .map_err(StoreError::from)?;
        if advanced.rows_affected == 0 {
            return Ok(false);
        }
        self.audit(&tx, origin, event).await?;
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

/// Adds a family, at its first generation.
pub(super) async fn insert(tx: &DatabaseTransaction, family: &Family, now: UnixMillis) -> Result<(), Error> {
    let row = ActiveModel {
        tenant_id: Set(family.tenant_id.to_string()),
        family_id: Set(family.family_id.to_string()),
        grant_id: Set(family.grant_id.to_string()),
        client_id: Set(family.client_id.to_string()),
        generation: Set(stored(family.generation)?),
        advanced_at: Set(family.advanced_at.as_millis()),
        key_version: Set(family.key_version),
        registry_epoch: Set(family.registry.epoch.clone()),
        registry_seq: Set(family.registry.seq),
        created_at: Set(now.as_millis()),
        expires_at: Set(family.expires_at.as_millis()),
        ended_at: Set(None),
        end_reason: Set(None),
    };
    row.insert(tx).await.map_err(StoreError::from)?;
    Ok(())
}

/// Ends a grant's families. Their access tokens end with the grant's own revocation.
pub(super) async fn end_families_of_grant(
    tx: &DatabaseTransaction,
    tenant_id: &TenantId,
    grant_id: &GrantId,
    reason: &'static str,
    now: UnixMillis,
) -> Result<u64, StoreError> {
    let ended = Entity::update_many()
        .filter(Column::TenantId.eq(tenant_id.as_str()))
        .filter(Column::GrantId.eq(grant_id.as_str()))
        .filter(Column::EndedAt.is_null())
        .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
        .col_expr(Column::EndReason, Expr::value(reason))
        .exec(tx)
        .await?;
    Ok(ended.rows_affected)
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
            epoch: row.registry_epoch,
            seq: row.registry_seq,
        },
        expires_at: UnixMillis::from_millis(row.expires_at),
        ended_at: row.ended_at.map(UnixMillis::from_millis),
    })
}
