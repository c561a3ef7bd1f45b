//! Authorization codes in the database. [`super::batch`] looks them up and redeems them.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin},
    },
    text::id::{ClientId, FamilyId, GrantId, TenantId},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{
    Store,
    entity::code::{Column, Entity, Model},
};
use crate::{error::Error, model::code::Code};

impl Store {
    /// Uses a code up without redeeming it. Returns false if it was used before.
    pub async fn burn_code(&self, origin: &Origin, code: &Code, event: Event) -> Result<bool, Error> {
        let tx = self.db.write().await?;
        let used = Entity::update_many()
            .filter(Column::CodeHash.eq(code.digest.to_vec()))
            .filter(Column::UsedAt.is_null())
            .col_expr(Column::UsedAt, self.now().as_millis().into())
            .exec(&tx)
            .await?;
        if used.rows_affected == 0 {
            return Ok(false);
        }
        self.audit(&tx, origin, event).await?;
        tx.commit().await?;
        Ok(true)
    }
}

pub(super) fn read(row: Model) -> Result<Code, StoreError> {
    let unreadable = || StoreError::Corrupt("codes");
    let family_id = row.family_id.as_deref().map(FamilyId::parse).transpose();
    Ok(Code {
        digest: row.code_hash.try_into().map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        redirect_uri: row.redirect_uri,
        code_challenge: row.code_challenge,
        expires_at: UnixMillis::from_millis(row.expires_at),
        used_at: row.used_at.map(UnixMillis::from_millis),
        family_id: family_id.map_err(|_| unreadable())?,
    })
}
