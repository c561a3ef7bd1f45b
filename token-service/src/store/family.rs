//! Refresh families in the database. [`super::batch`] creates and advances them.

use std::sync::Arc;

use accord::{
    clock::UnixMillis,
    keys::Keyring,
    position::{Epoch, Position},
    store::{
        StoreError, Transaction,
        audit::{Event, Origin},
    },
    text::id::{ClientId, FamilyId, GrantId, TenantId},
};
use sea_orm::{UpdateMany, entity::prelude::*};

use super::{
    Store, corrupt,
    entity::family::{Column, Entity, Model},
    revocation::{self, Revocation},
};
use crate::{
    error::Result,
    model::{
        family::{Family, Generations},
        purpose,
        revocation::RevocationKind,
    },
};

impl Store {
    /// Returns the keyring with the key of this family's tokens, or that of new families.
    pub async fn keyring_of(&self, family: Option<&Family>) -> Result<Arc<Keyring>> {
        let keyring = match family {
            Some(family) => {
                let version = family.key_version;
                self.keyring.with_version(purpose::REFRESH, version).await?
            }
            None => self.keyring.get().await?,
        };
        Ok(keyring)
    }

    /// Reads a tenant's family.
    pub async fn find_family(&self, tenant_id: &TenantId, family_id: &FamilyId) -> Result<Option<Family>> {
        let id = (tenant_id.to_string(), family_id.to_string());
        let row = Entity::find_by_id(id).one(self.db.read()).await?;
        row.map(family).transpose()
    }

    /// Ends a family and its access tokens. Changes nothing if it has ended before.
    pub async fn end_family(
        &self,
        origin: &Origin,
        family: &Family,
        reason: &'static str,
        event: Event,
    ) -> Result<()> {
        let tx = self.db.write().await?;
        let now = self.now();
        let ended = end(reason, now)
            .filter(Column::TenantId.eq(family.tenant_id.as_str()))
            .filter(Column::FamilyId.eq(family.family_id.as_str()))
            .exec(&tx)
            .await?;
        if ended.rows_affected == 0 {
            return Ok(());
        }
        self.audit(&tx, origin, event).await;
        let (id, tenant_id) = (family.family_id.as_str(), Some(&family.tenant_id));
        let revocation = Revocation::new(RevocationKind::Family, id, tenant_id, now);
        revocation::publish(&tx, Vec::new(), vec![revocation], now).await?;
        Ok(tx.commit().await?)
    }
}

/// Ends the families of a grant. Their access tokens end with the grant's own revocation.
pub(super) async fn end_of_grant(
    tx: &Transaction,
    tenant_id: &TenantId,
    grant_id: &GrantId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    end("grant_ended", now)
        .filter(Column::TenantId.eq(tenant_id.as_str()))
        .filter(Column::GrantId.eq(grant_id.as_str()))
        .exec(tx)
        .await?;
    Ok(())
}

/// Ends every family, for a database that was restored from a backup.
pub(super) async fn end_all(tx: &Transaction, now: UnixMillis) -> Result<(), StoreError> {
    end("restored", now).exec(tx).await?;
    Ok(())
}

fn end(reason: &'static str, now: UnixMillis) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::EndedAt.is_null())
        .col_expr(Column::EndedAt, now.as_millis().into())
        .col_expr(Column::EndReason, reason.into())
}

fn family(row: Model) -> Result<Family> {
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
