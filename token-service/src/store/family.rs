//! Refresh families in the database. [`super::batch`] creates and advances them.

use std::sync::Arc;

use accord::{
    clock::UnixMillis,
    keys::Keyring,
    position::{Epoch, Position},
    store::{
        StoreError, Transaction,
        audit::{Event, Origin},
        rows::{Authentic, Locked, Lookup, ProtectedRows},
    },
    text::id::{ClientId, FamilyId, GrantId, TenantId},
};
use sea_orm::QueryOrder;

use super::{
    Store, Stored,
    entity::family::{Column, Entity, Model},
    revocation::{self, Revocation},
};
use crate::{
    error::Result,
    model::{
        family::{Family, Generations},
        grant::usage::Reuse,
        purpose,
        revocation::RevocationKind,
    },
};

const CORRUPT: StoreError = StoreError::Corrupt("families");

/// A family with its row.
pub type StoredFamily = Stored<Family, Entity>;

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
    pub async fn find_family(
        &self,
        tenant_id: &TenantId,
        family_id: &FamilyId,
    ) -> Result<Option<StoredFamily>> {
        let row = by_id(tenant_id, family_id).read_one(self.db.read()).await?;
        Ok(row.map(|row| Stored::read(row, family)).transpose()?)
    }

    /// Reads whether a tenant's family ended because something was used a second time, and when. A family that has expired is
    /// forgotten.
    pub async fn find_reuse(
        &self,
        tenant_id: &TenantId,
        family_id: &str,
    ) -> Result<Option<(UnixMillis, Reuse)>> {
        let key = (tenant_id.to_string(), family_id.to_owned());
        let row = Entity::look_up_by_id(key).read_one(self.db.read()).await?;
        let reuse = row.and_then(|row| {
            let reuse = row.end_reason.as_deref()?.parse().ok()?;
            Some((UnixMillis::from_millis(row.ended_at?), reuse))
        });
        Ok(reuse)
    }

    /// Ends a family and its access tokens. Returns whether it did: it changes nothing if the family has ended before.
    pub async fn end_family(
        &self,
        origin: &Origin,
        family: &Family,
        reason: &'static str,
        event: Event,
    ) -> Result<bool> {
        let tx = self.db.write().await?;
        let now = self.now();
        let row = by_id(&family.tenant_id, &family.family_id).lock_one(&tx).await?;
        let Some(row) = row.filter(|row| row.ended_at.is_none()) else {
            return Ok(false);
        };
        end(&tx, row, reason, now).await?;
        self.audit(&tx, origin, event).await;
        let (id, tenant_id) = (family.family_id.as_str(), Some(&family.tenant_id));
        let revocation = Revocation::new(RevocationKind::Family, id, tenant_id, now);
        revocation::publish(&tx, Vec::new(), vec![revocation], now).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Ends the families of a grant. Their access tokens end with the grant's own revocation.
pub(super) async fn end_of_grant(
    tx: &Transaction,
    tenant_id: &TenantId,
    grant_id: &GrantId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let live = Entity::look_up()
        .equal(Column::TenantId, tenant_id.as_str())
        .equal(Column::GrantId, grant_id.as_str())
        .null(Column::EndedAt)
        .order_by_asc(Column::FamilyId);
    for row in live.lock_authentic(tx).await? {
        end(tx, row, "grant_ended", now).await?;
    }
    Ok(())
}

async fn end(
    tx: &Transaction,
    mut row: Locked<Entity>,
    reason: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    row.ended_at = Some(now.as_millis());
    row.end_reason = Some(reason.to_owned());
    row.save(tx).await
}

fn by_id(tenant_id: &TenantId, family_id: &FamilyId) -> Lookup<Entity> {
    Entity::look_up_by_id((tenant_id.to_string(), family_id.to_string()))
}

/// Returns the row of a family that begins, without its MAC.
pub(super) fn new_row(family: &Family, now: UnixMillis) -> Result<Model, StoreError> {
    let stored = |generation: u32| i32::try_from(generation).map_err(|_| CORRUPT);
    Ok(Model {
        tenant_id: family.tenant_id.to_string(),
        family_id: family.family_id.to_string(),
        grant_id: family.grant_id.to_string(),
        client_id: family.client_id.to_string(),
        used_generation: stored(family.generations.used)?,
        current_generation: stored(family.generations.current)?,
        handed_out_at: family.generations.handed_out_at.as_millis(),
        key_version: family.key_version,
        registry_epoch: family.registry.epoch.as_str().to_owned(),
        registry_seq: family.registry.seq,
        created_at: now.as_millis(),
        expires_at: family.expires_at.as_millis(),
        ended_at: None,
        end_reason: None,
        mac: Vec::new(),
    })
}

fn family(row: &Authentic<Entity>) -> Result<Family, StoreError> {
    let unreadable = || CORRUPT;
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
