//! Revocations, each at its own position of the change feed, and the removal of expired rows.

use std::{collections::BTreeMap, time::Duration};

use accord::{
    clock::UnixMillis,
    store::{
        Keyed, Pool, StoreError, Transaction,
        audit::{Event, Origin},
        change::{self, ChangeRow},
        removal::delete_where,
        rows::{self, Authentic, Lookup, ProtectedRows, all_written, delete_ended},
    },
    text::id::TenantId,
};
use sea_orm::{Condition, IntoActiveModel, QueryOrder, entity::prelude::*, sea_query::ExprTrait};

use super::{
    Store, change_kind,
    entity::{
        admin_session, client_assertion, code, family, pushed_request,
        revocation::{Column, Entity, Model},
        setup, verified_secret,
    },
};
use crate::{
    error::Result,
    model::{
        change::Change,
        lifetimes::Lifetimes,
        revocation::{self as model, RevocationKind},
    },
};

/// How long a revocation is there for certain: it is deleted an hour after the last token that it ends has expired.
const KEPT: Duration = Duration::from_secs(50 * 60);
/// How many changes are compared at a time.
const PAGE: u64 = 1_000;

/// A revocation to publish.
#[derive(Debug)]
pub(super) struct Revocation<'a> {
    kind: RevocationKind,
    id: &'a str,
    /// The tenant; none for a signing key.
    tenant_id: Option<&'a TenantId>,
    /// When the last token that it ends has expired.
    expires_at: UnixMillis,
}

impl<'a> Revocation<'a> {
    /// Describes the end of every token of this kind and id that was issued up to `now`.
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

/// Publishes changes, then revocations. Call it last in a transaction, because it locks the feed's counter.
pub(super) async fn publish(
    tx: &Transaction,
    mut changes: Vec<change::Change>,
    revocations: Vec<Revocation<'_>>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    changes.extend(revocations.iter().map(|revocation| change::Change {
        kind: change_kind::REVOCATION,
        id: format!("{}:{}", revocation.kind.as_ref(), revocation.id),
        tenant_id: revocation.tenant_id.cloned(),
    }));
    if changes.is_empty() {
        return Ok(());
    }
    let last = change::publish(tx, &changes, now).await?;
    if revocations.is_empty() {
        return Ok(());
    }
    let first = last + 1 - revocations.len() as i64;
    rows::remove_beyond::<Entity>(tx, Column::Seq, (first - 1, last), now).await?;
    let key = rows::current(tx)?;
    let rows = (first..).zip(revocations).map(|(seq, revocation)| {
        let mut row = Model {
            seq,
            kind: revocation.kind.as_ref().to_owned(),
            id: revocation.id.to_owned(),
            tenant_id: revocation.tenant_id.map(ToString::to_string),
            revoked_at: now.as_millis(),
            expires_at: revocation.expires_at.as_millis(),
            mac: Vec::new(),
        };
        rows::protect::<Entity>(&key, &mut row)?;
        Ok(row.into_active_model().reset_all())
    });
    let rows = rows.collect::<Result<Vec<_>, StoreError>>()?;
    let count = rows.len();
    let insert = Entity::insert_many(rows);
    all_written("revocations", insert.exec_without_returning(tx).await?, count)
}

/// Looks up the revocations at the positions after `after`, up to `through`.
fn between(after: i64, through: i64) -> Lookup<Entity> {
    Entity::look_up()
        .filter(Column::Seq.gt(after), move |row| row.seq > after)
        .filter(Column::Seq.lte(through), move |row| row.seq <= through)
}

/// Names the revocations that somebody has removed or edited, by their changes in the feed, which have MACs of their own. Without
/// keys it names none.
pub(super) async fn gone(conn: &Pool, now: UnixMillis) -> Result<Vec<String>, StoreError> {
    let (mut gone, since) = (Vec::new(), now.minus(KEPT));
    if conn.keys().is_none() {
        return Ok(gone);
    }
    let mut after = change::seq_before(conn, since).await?;
    loop {
        let changes = change::list_after(conn, after, PAGE).await?;
        let last = changes.last().map(|change| change.seq);
        let Some(last) = last else { return Ok(gone) };
        let there = between(after, last).read_authentic(conn).await?;
        let is_recent =
            |change: &ChangeRow| change.kind == change_kind::REVOCATION && change.changed_at >= since;
        for ChangeRow { seq, id, .. } in changes.into_iter().filter(is_recent) {
            if !there.iter().any(|row| row.seq == seq) {
                let why = "is gone or was changed by somebody without the keys";
                gone.push(format!("the row revocations/{seq}, which ends {id}, {why}"));
            }
        }
        after = last;
    }
}

impl Store {
    /// Returns the highest position at which one of these was revoked.
    pub async fn last_revocation(&self, of: &[(RevocationKind, &str)]) -> Result<Option<i64>> {
        let any = of.iter().fold(Condition::any(), |any, (kind, id)| {
            any.add(Column::Kind.eq(kind.as_ref()).and(Column::Id.eq(*id)))
        });
        let of: Vec<_> = of
            .iter()
            .map(|(kind, id)| (kind.as_ref().to_owned(), (*id).to_owned()))
            .collect();
        let is_one = move |row: &Model| of.iter().any(|(kind, id)| *kind == row.kind && *id == row.id);
        let last = Entity::look_up()
            .filter(any, is_one)
            .order_by_desc(Column::Seq)
            .read_one(self.db.read())
            .await?;
        Ok(last.map(|row| row.seq))
    }

    /// Reads the revocations at the positions after `after`, up to `through`, by their positions.
    pub async fn revocations_between(&self, after: i64, through: i64) -> Result<BTreeMap<i64, Change>> {
        let rows = between(after, through).read_all(self.db.read()).await?;
        Ok(rows.iter().map(|row| (row.seq, change_of(row))).collect())
    }

    /// Revokes an access token that expires at `expires_at`. Changes nothing if it was revoked before.
    pub async fn revoke_access_token(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        jti: &str,
        expires_at: UnixMillis,
        event: Event,
    ) -> Result<()> {
        let kind = RevocationKind::Jti;
        if self.last_revocation(&[(kind, jti)]).await?.is_some() {
            return Ok(());
        }
        let tx = self.db.write().await?;
        self.audit(&tx, origin, event).await;
        let revocation = Revocation {
            kind,
            id: jti,
            tenant_id: Some(tenant_id),
            expires_at,
        };
        publish(&tx, Vec::new(), vec![revocation], self.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Removes revocations, assertions, pushed requests and verified secrets that expired by `soon`, and codes, setups,
    /// sessions and families that ended by `late`.
    pub async fn delete_ended_rows(&self, soon: UnixMillis, late: UnixMillis) -> Result<()> {
        let db = &self.db;
        let (soon, late) = (soon.as_millis(), late.as_millis());
        delete_where::<Entity>(db, Column::ExpiresAt.lte(soon)).await?;
        delete_where::<client_assertion::Entity>(db, client_assertion::Column::ExpiresAt.lte(soon)).await?;
        delete_where::<pushed_request::Entity>(db, pushed_request::Column::ExpiresAt.lte(soon)).await?;
        delete_where::<verified_secret::Entity>(db, verified_secret::Column::ExpiresAt.lte(soon)).await?;
        delete_ended::<code::Entity>(db, code::Column::ExpiresAt.lte(late)).await?;
        delete_ended::<setup::Entity>(db, setup::Column::ExpiresAt.lte(late)).await?;
        delete_ended::<admin_session::Entity>(db, admin_session::Column::SignedInAt.lte(late)).await?;
        Ok(delete_ended::<family::Entity>(db, family::Column::ExpiresAt.lte(late)).await?)
    }
}

/// Returns what a reader of the feed learns from a row.
fn change_of(row: &Authentic<Entity>) -> Change {
    match row.kind.parse() {
        Ok(kind) => Change::Revocation(model::Revocation {
            kind,
            id: row.id.clone(),
            seq: row.seq,
        }),
        Err(_) => Change::UnknownRevocation,
    }
}

#[cfg(test)]
#[path = "tests/removal.rs"]
mod tests;
