//! Authorization codes in the database. Which caller redeems a code is decided by one conditional
//! update.

use accord::{
    clock::UnixMillis,
    id::{ClientId, FamilyId, GrantId, TenantId},
    opaque::OpaqueToken,
    store::{
        StoreError,
        audit::{Event, Origin},
    },
};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, QueryFilter, sea_query::Expr};

use super::{
    Store, commit, corrupt,
    entity::{
        code::{Column, Entity, Model},
        grant,
    },
    family::{self, end_families_of_grant},
    revocation::{self, NewRevocation, RevocationKind},
};
use crate::{code::Code, consent::StoredState, error::Error, family::Family, service::Lifetimes};

/// What became of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// The code is redeemed and its grant active; whether it superseded an older one.
    Now {
        /// An older grant ended with it.
        superseding: bool,
    },
    /// Another call was first.
    Before,
    /// The grant ended in between.
    GrantEnded,
}

impl Store {
    /// Reads a tenant's code.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_code(&self, tenant_id: &TenantId, code: &OpaqueToken) -> Result<Option<Code>, Error> {
        let row = Entity::find_by_id(code.digest().to_vec())
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .one(self.db.read())
            .await
            .map_err(StoreError::from)?;
        row.map(read).transpose()
    }

    /// Uses a code up without redeeming it; whether it was unused. The event goes with it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn burn_code(&self, origin: &Origin, code: &Code, event: Event) -> Result<bool, Error> {
        let tx = self.db.write().await?;
        if !use_up(&tx, code, None, self.now()).await? {
            return Ok(false);
        }
        self.audit(&tx, origin, event).await?;
        commit(tx).await?;
        Ok(true)
    }

    /// Redeems a code: its grant becomes active and supersedes the client's older one at the tenant,
    /// whose tokens end; the family begins. All of it, and the events, in one transaction.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn redeem_code(
        &self,
        origin: &Origin,
        code: &Code,
        new_family: &Family,
        issued: Event,
    ) -> Result<Redeemed, Error> {
        let tx = self.db.write().await?;
        let now = self.now();
        if !use_up(&tx, code, Some(new_family), now).await? {
            return Ok(Redeemed::Before);
        }
        let superseded = supersede(&tx, code, now).await?;
        let activated = grant::Entity::update_many()
            .filter(grant::Column::TenantId.eq(code.tenant_id.as_str()))
            .filter(grant::Column::GrantId.eq(code.grant_id.as_str()))
            .filter(grant::Column::State.eq(StoredState::Pending.name()))
            .filter(grant::Column::RedeemUntil.gt(now.as_millis()))
            .col_expr(grant::Column::State, Expr::value(StoredState::Active.name()))
            .col_expr(grant::Column::ActivatedAt, Expr::value(now.as_millis()))
            .exec(&tx)
            .await
            .map_err(|error| match StoreError::from(error) {
                // Another code of the same client was redeemed at this moment: trying again helps.
                StoreError::Conflict => StoreError::Unavailable,
                other => other,
            })?;
        if activated.rows_affected == 0 {
            return Ok(Redeemed::GrantEnded);
        }
        family::insert(&tx, new_family, now).await?;
        let about = |event: Event| event.tenant(&code.tenant_id).client(&code.client_id);
        for grant_id in &superseded {
            let event = about(Event::new("consent.supersede")).subject(grant_id.as_str());
            self.audit(&tx, origin, event.detail("by", code.grant_id.as_str()))
                .await?;
        }
        let activation = about(Event::new("consent.activate")).subject(code.grant_id.as_str());
        self.audit(&tx, origin, activation).await?;
        self.audit(&tx, origin, issued).await?;
        self.publish(&tx, code, &superseded, now).await?;
        commit(tx).await?;
        Ok(Redeemed::Now {
            superseding: !superseded.is_empty(),
        })
    }

    /// Ends the access tokens of what was superseded. The activation itself is published to nobody: nobody
    /// remembers that a grant is not there, and so a first consent waits for no other.
    async fn publish(
        &self,
        tx: &DatabaseTransaction,
        code: &Code,
        superseded: &[GrantId],
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if superseded.is_empty() {
            return Ok(());
        }
        let tenant_id = Some(&code.tenant_id);
        let ended = superseded
            .iter()
            .map(|id| revocation::change(RevocationKind::Grant, id.as_str(), tenant_id));
        let ended: Vec<_> = ended.collect();
        let last = self.bump(tx, &ended).await?;
        for (seq, grant_id) in (last - superseded.len() as i64 + 1..).zip(superseded) {
            let new = NewRevocation {
                seq,
                kind: RevocationKind::Grant,
                id: grant_id.as_str(),
                tenant_id,
                now,
                expires_at: now.plus(Lifetimes::MAX_ACCESS_TOKEN),
            };
            revocation::insert(tx, new).await?;
        }
        Ok(())
    }
}

/// Marks a code as used; whether it was unused. One that began a family lasts as long as the family, since
/// a second use must end it.
async fn use_up(
    tx: &DatabaseTransaction,
    code: &Code,
    family: Option<&Family>,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let family_id = family.map(|family| family.family_id.to_string());
    let expires_at = family.map_or(code.expires_at, |family| family.expires_at);
    let used = Entity::update_many()
        .filter(Column::CodeHash.eq(code.digest.to_vec()))
        .filter(Column::UsedAt.is_null())
        .col_expr(Column::UsedAt, Expr::value(now.as_millis()))
        .col_expr(Column::FamilyId, Expr::value(family_id))
        .col_expr(Column::ExpiresAt, Expr::value(expires_at.as_millis()))
        .exec(tx)
        .await?;
    Ok(used.rows_affected == 1)
}

/// Ends the client's active grant at the tenant; there is at most one.
async fn supersede(tx: &DatabaseTransaction, code: &Code, now: UnixMillis) -> Result<Vec<GrantId>, Error> {
    let active = grant::Entity::find()
        .filter(grant::Column::TenantId.eq(code.tenant_id.as_str()))
        .filter(grant::Column::ClientId.eq(code.client_id.as_str()))
        .filter(grant::Column::State.eq(StoredState::Active.name()))
        .all(tx)
        .await
        .map_err(StoreError::from)?;
    let mut superseded = Vec::new();
    for row in active {
        let ended = grant::Entity::update_many()
            .filter(grant::Column::TenantId.eq(row.tenant_id.as_str()))
            .filter(grant::Column::GrantId.eq(row.grant_id.as_str()))
            .filter(grant::Column::State.eq(StoredState::Active.name()))
            .col_expr(grant::Column::State, Expr::value(StoredState::Superseded.name()))
            .col_expr(grant::Column::EndedAt, Expr::value(now.as_millis()))
            .exec(tx)
            .await
            .map_err(StoreError::from)?;
        if ended.rows_affected == 1 {
            let grant_id = GrantId::parse(&row.grant_id).map_err(|_| corrupt("grants"))?;
            end_families_of_grant(tx, &code.tenant_id, &grant_id, "grant_ended", now).await?;
            superseded.push(grant_id);
        }
    }
    Ok(superseded)
}

fn read(row: Model) -> Result<Code, Error> {
    let unreadable = || corrupt("codes");
    Ok(Code {
        digest: row.code_hash.try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri,
        code_challenge: row.code_challenge,
        expires_at: UnixMillis::from_millis(row.expires_at),
        used_at: row.used_at.map(UnixMillis::from_millis),
        family_id: match row.family_id {
            Some(id) => Some(FamilyId::parse(&id).map_err(|_| unreadable())?),
            None => None,
        },
    })
}
