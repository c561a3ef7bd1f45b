//! Revocations, each at its own position of the change feed, and the removal of expired rows.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin},
        change::{self, Change},
    },
    text::id::TenantId,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    sea_query::ExprTrait,
};

use super::{
    Store, change_kind,
    entity::revocation::{ActiveModel, Column, Entity},
};
use crate::{
    error::Error,
    model::{lifetimes::Lifetimes, revocation::RevocationKind},
};

/// A revocation to publish.
#[derive(Debug)]
pub(super) struct Revocation<'a> {
    kind: RevocationKind,
    id: &'a str,
    /// The tenant, unless it is a key.
    tenant_id: Option<&'a TenantId>,
    /// When the last token that it ends has ended anyway.
    expires_at: UnixMillis,
}

impl<'a> Revocation<'a> {
    /// Ends every token of this kind that was issued up to `now`.
    pub(super) fn new(
        kind: RevocationKind,
        id: &'a str,
        tenant_id: Option<&'a TenantId>,
        now: UnixMillis,
    ) -> Self {
        Self {
            kind,
            id,
            tenant_id,
            expires_at: now.plus(Lifetimes::MAX_ACCESS_TOKEN),
        }
    }
}

/// Publishes changes, then revocations. Comes last in a transaction, because it locks the feed's counter.
pub(super) async fn publish(
    tx: &DatabaseTransaction,
    mut changes: Vec<Change>,
    revocations: Vec<Revocation<'_>>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    changes.extend(revocations.iter().map(|revocation| Change {
        kind: change_kind::REVOCATION,
        id: format!("{}:{}", revocation.kind.name(), revocation.id),
        tenant_id: revocation.tenant_id.cloned(),
    }));
    if changes.is_empty() {
        return Ok(());
    }
    let last = change::publish(tx, &changes, now).await?;
    let first = last + 1 - revocations.len() as i64;
    let rows = (first..).zip(revocations).map(|(seq, revocation)| ActiveModel {
        seq: Set(seq),
        kind: Set(revocation.kind.name().to_owned()),
        id: Set(revocation.id.to_owned()),
        tenant_id: Set(revocation.tenant_id.map(ToString::to_string)),
        revoked_at: Set(now.as_millis()),
        expires_at: Set(revocation.expires_at.as_millis()),
    });
    Entity::insert_many(rows).exec_without_returning(tx).await?;
    Ok(())
}

impl Store {
    /// Returns the highest position at which one of these was revoked.
    pub async fn last_revocation(&self, of: &[(RevocationKind, &str)]) -> Result<Option<i64>, Error> {
        let any = of.iter().fold(Condition::any(), |any, (kind, id)| {
            any.add(Column::Kind.eq(kind.name()).and(Column::Id.eq(*id)))
        });
        let last = Entity::find()
            .filter(any)
            .order_by_desc(Column::Seq)
            .one(self.db.read())
            .await?;
        Ok(last.map(|row| row.seq))
    }

    /// Ends one access token, unless it was revoked before. It would have ended at `expires_at`.
    pub async fn revoke_access_token(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        jti: &str,
        expires_at: UnixMillis,
        event: Event,
    ) -> Result<(), Error> {
        let kind = RevocationKind::Jti;
        if self.last_revocation(&[(kind, jti)]).await?.is_some() {
            return Ok(());
        }
        let tx = self.db.write().await?;
        self.audit(&tx, origin, event).await?;
        let revocation = Revocation {
            kind,
            id: jti,
            tenant_id: Some(tenant_id),
            expires_at,
        };
        publish(&tx, Vec::new(), vec![revocation], self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Removes revocations, assertions and verified secrets that expired by `soon`, and codes, setups, sessions and families that
    /// ended by `late`.
    pub async fn clear_away(&self, soon: UnixMillis, late: UnixMillis) -> Result<(), Error> {
        use super::entity::{admin_session, client_assertion, code, family, setup, verified_secret};
        let (soon, late) = (soon.as_millis(), late.as_millis());
        let tx = self.db.write().await?;
        let expired = Column::ExpiresAt.lte(soon);
        Entity::delete_many().filter(expired).exec(&tx).await?;
        let expired = client_assertion::Column::ExpiresAt.lte(soon);
        client_assertion::Entity::delete_many()
            .filter(expired)
            .exec(&tx)
            .await?;
        let expired = verified_secret::Column::ExpiresAt.lte(soon);
        verified_secret::Entity::delete_many()
            .filter(expired)
            .exec(&tx)
            .await?;
        let expired = code::Column::ExpiresAt.lte(late);
        code::Entity::delete_many().filter(expired).exec(&tx).await?;
        let expired = setup::Column::ExpiresAt.lte(late);
        setup::Entity::delete_many().filter(expired).exec(&tx).await?;
        let expired = admin_session::Column::SignedInAt.lte(late);
        admin_session::Entity::delete_many()
            .filter(expired)
            .exec(&tx)
            .await?;
        let expired = family::Column::ExpiresAt.lte(late);
        family::Entity::delete_many().filter(expired).exec(&tx).await?;
        Ok(tx.commit().await?)
    }
}
