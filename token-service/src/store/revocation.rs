//! What ended before its time, by its position in the change feed.

use std::sync::LazyLock;

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin},
        batch::json_rows::JsonRows,
        change::Change,
    },
    text::id::TenantId,
};
use sea_orm::{ColumnTrait, Condition, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder};

use super::{
    Store, change_kind,
    entity::revocation::{Column, Entity, Model},
};
use crate::{error::Error, model::revocation::RevocationKind};

/// A revocation to be written.
#[derive(Debug)]
pub(super) struct NewRevocation<'a> {
    /// Its position, of a change that [`change`] made.
    pub(super) seq: i64,
    /// What it names.
    pub(super) kind: RevocationKind,
    /// Which one.
    pub(super) id: &'a str,
    /// The tenant, unless it is a key.
    pub(super) tenant_id: Option<&'a TenantId>,
    /// The time now.
    pub(super) now: UnixMillis,
    /// When the last token that it ends has ended anyway.
    pub(super) expires_at: UnixMillis,
}

/// The change that goes with a revocation.
pub(super) fn change(kind: RevocationKind, id: &str, tenant_id: Option<&TenantId>) -> Change {
    Change {
        kind: change_kind::REVOCATION,
        id: format!("{}:{id}", kind.name()),
        tenant_id: tenant_id.cloned(),
    }
}

static INSERT: LazyLock<JsonRows> = LazyLock::new(|| {
    let columns = [
        ("seq", "bigint"),
        ("kind", "text"),
        ("id", "text"),
        ("tenant_id", "text"),
        ("revoked_at", "bigint"),
        ("expires_at", "bigint"),
    ];
    JsonRows::insert("revocations", &columns)
});

/// Writes a revocation at the position that its change got.
pub(super) async fn insert(
    tx: &DatabaseTransaction,
    revocation: NewRevocation<'_>,
) -> Result<(), StoreError> {
    insert_all(tx, vec![revocation]).await
}

/// Writes revocations at the positions that their changes got.
pub(super) async fn insert_all(
    tx: &DatabaseTransaction,
    revocations: Vec<NewRevocation<'_>>,
) -> Result<(), StoreError> {
    let rows = revocations.into_iter().map(|revocation| Model {
        seq: revocation.seq,
        kind: revocation.kind.name().to_owned(),
        id: revocation.id.to_owned(),
        tenant_id: revocation.tenant_id.map(ToString::to_string),
        revoked_at: revocation.now.as_millis(),
        expires_at: revocation.expires_at.as_millis(),
    });
    let rows: Vec<_> = rows.collect();
    INSERT.execute(tx, &rows, []).await?;
    Ok(())
}

impl Store {
    /// The highest position at which one of these was revoked; `None` if none ever was.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn last_revocation(&self, of: &[(RevocationKind, &str)]) -> Result<Option<i64>, Error> {
        let any = of.iter().fold(Condition::any(), |any, (kind, id)| {
            any.add(
                Condition::all()
                    .add(Column::Kind.eq(kind.name()))
                    .add(Column::Id.eq(*id)),
            )
        });
        let last = Entity::find()
            .filter(any)
            .order_by_desc(Column::Seq)
            .one(self.db.read())
            .await
            .map_err(StoreError::from)?;
        Ok(last.map(|row| row.seq))
    }

    /// Ends one access token, which would have ended at `ends`; no change, and no event, if it was
    /// revoked before.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn revoke_access_token(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        jti: &str,
        ends: UnixMillis,
        event: Event,
    ) -> Result<(), Error> {
        if self
            .last_revocation(&[(RevocationKind::Jti, jti)])
            .await?
            .is_some()
        {
            return Ok(());
        }
        let tx = self.db.write().await?;
        self.audit(&tx, origin, event).await?;
        let seq = self
            .bump(&tx, &[change(RevocationKind::Jti, jti, Some(tenant_id))])
            .await?;
        let new = NewRevocation {
            seq,
            kind: RevocationKind::Jti,
            id: jti,
            tenant_id: Some(tenant_id),
            now: self.now(),
            expires_at: ends,
        };
        insert(&tx, new).await?;
        super::commit(tx).await?;
        Ok(())
    }

    /// Removes what can't matter any more: revocations of tokens that have all ended, and codes, setups,
    /// sessions and families that ended at or before these times.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn clear_away(&self, soon: UnixMillis, late: UnixMillis) -> Result<(), Error> {
        use super::entity::{admin_session, client_assertion, code, family, setup};
        let tx = self.db.write().await?;
        let deletions = [
            Entity::delete_many()
                .filter(Column::ExpiresAt.lte(soon.as_millis()))
                .exec(&tx)
                .await,
            client_assertion::Entity::delete_many()
                .filter(client_assertion::Column::ExpiresAt.lte(soon.as_millis()))
                .exec(&tx)
                .await,
            code::Entity::delete_many()
                .filter(code::Column::ExpiresAt.lte(late.as_millis()))
                .exec(&tx)
                .await,
            setup::Entity::delete_many()
                .filter(setup::Column::ExpiresAt.lte(late.as_millis()))
                .exec(&tx)
                .await,
            admin_session::Entity::delete_many()
                .filter(admin_session::Column::SignedInAt.lte(late.as_millis()))
                .exec(&tx)
                .await,
            family::Entity::delete_many()
                .filter(family::Column::ExpiresAt.lte(late.as_millis()))
                .exec(&tx)
                .await,
        ];
        for deletion in deletions {
            deletion.map_err(StoreError::from)?;
        }
        super::commit(tx).await?;
        Ok(())
    }
}
