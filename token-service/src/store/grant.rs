//! Grants in the database.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError,
        audit::{Event, Origin},
        change::Change,
    },
    text::{
        id::{ClientId, GrantId, ScopeName, TenantId, UserId},
        page::{Page, PageRequest},
    },
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, sea_query::Expr,
};
use serde::Serialize;

use super::{
    Store,
    admin_session::require_open,
    change_kind, corrupt,
    entity::grant::{Column, Entity, Model},
    family,
    revocation::{self, Revocation},
};
use crate::{
    error::Error,
    model::{
        admin_session::AdminSession,
        code::Code,
        grant::{Grant, GrantFilter, GrantState, StoredState},
        revocation::RevocationKind,
    },
};

impl Store {
    /// Reads a tenant's grant.
    pub async fn find_grant(&self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<Option<Grant>, Error> {
        find(self.db.read(), tenant_id, grant_id).await
    }

    /// Reads the one grant of a tenant to a client whose stored state is active, if there is one.
    pub async fn find_current_grant(
        &self,
        tenant_id: &TenantId,
        client_id: &ClientId,
    ) -> Result<Option<Grant>, Error> {
        let row = Entity::find()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::ClientId.eq(client_id.as_str()))
            .filter(Column::State.eq(StoredState::Active.name()))
            .one(self.db.read())
            .await?;
        Ok(row.map(grant).transpose()?)
    }

    /// Lists a tenant's grants, newest first: those of the filter's client whose stored state the
    /// filter's state can have. Expiry and suspension are for the reader to tell apart.
    pub async fn list_grants(
        &self,
        tenant_id: &TenantId,
        filter: &GrantFilter,
        page: &PageRequest,
    ) -> Result<Page<Grant>, Error> {
        let mut query = Entity::find()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .order_by_desc(Column::GrantId)
            .limit(page.fetch());
        if let Some(client_id) = &filter.client_id {
            query = query.filter(Column::ClientId.eq(client_id.as_str()));
        }
        if let Some(state) = filter.state {
            let names = state.stored().iter().map(|state| state.name());
            query = query.filter(Column::State.is_in(names));
        }
        if let Some(after) = page.after() {
            query = query.filter(Column::GrantId.lt(after));
        }
        let rows = query.all(self.db.read()).await?;
        let grants = rows.into_iter().map(grant).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(grants, |grant| grant.grant_id.to_string()))
    }

    /// Ends a grant for good, its refresh families and access tokens with it; no change, and no event,
    /// when it is revoked already. `session` is that of a Tenant Admin who decides.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`] when the session has ended; [`Error::NotFound`];
    /// [`Error::WrongState`] when it was superseded or has expired.
    pub async fn revoke_grant(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        grant_id: &GrantId,
        reason: &str,
        session: Option<&AdminSession>,
    ) -> Result<Grant, Error> {
        let tx = self.db.write().await?;
        let now = self.now();
        if let Some(session) = session {
            require_open(&tx, session, now).await?;
        }
        let in_time = Condition::any()
            .add(Column::State.eq(StoredState::Active.name()))
            .add(Column::RedeemUntil.gt(now.as_millis()));
        let ended = Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::GrantId.eq(grant_id.as_str()))
            .filter(Column::State.is_in([StoredState::Pending.name(), StoredState::Active.name()]))
            .filter(in_time)
            .filter(not_past_end(now))
            .col_expr(Column::State, Expr::value(StoredState::Revoked.name()))
            .col_expr(Column::EndedAt, Expr::value(now.as_millis()))
            .exec(&tx)
            .await?;
        let grant = find(&tx, tenant_id, grant_id)
            .await?
            .ok_or(Error::NotFound("consent"))?;
        if ended.rows_affected == 0 {
            return match grant.state_at(now, true) {
                GrantState::Revoked => Ok(grant),
                state => Err(state.refusal()),
            };
        }
        family::end_of_grant(&tx, tenant_id, grant_id, now).await?;
        let mut event = Event::new("consent.revoke")
            .tenant(tenant_id)
            .client(&grant.client_id)
            .subject(grant_id.as_str())
            .detail("reason", reason);
        if let Some(session) = session {
            event = event.detail("workload", session.workload.as_str());
        }
        self.audit(&tx, origin, event).await?;
        self.end_access_tokens(&tx, &grant, now).await?;
        tx.commit().await?;
        Ok(grant)
    }

    /// Lets API transactions under an active grant run as `user_id`, and ends its access tokens; no
    /// change, and no event, when they do already.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`] when the session has ended; [`Error::NotFound`];
    /// [`Error::WrongState`] when the grant is not active, or past its end.
    pub async fn change_designated_user(
        &self,
        origin: &Origin,
        by: &AdminSession,
        grant: &Grant,
        user_id: &UserId,
    ) -> Result<Grant, Error> {
        let (tenant_id, grant_id) = (&grant.tenant_id, &grant.grant_id);
        let tx = self.db.write().await?;
        let now = self.now();
        require_open(&tx, by, now).await?;
        let before = find_locked(&tx, tenant_id, grant_id)
            .await?
            .ok_or(Error::NotFound("consent"))?;
        match before.state_at(now, true) {
            GrantState::Active if before.designated_user_id == *user_id => return Ok(before),
            GrantState::Active => {}
            state => return Err(state.refusal()),
        }
        let changed = Entity::update_many()
            .filter(Column::TenantId.eq(tenant_id.as_str()))
            .filter(Column::GrantId.eq(grant_id.as_str()))
            .filter(Column::State.eq(StoredState::Active.name()))
            .col_expr(Column::DesignatedUserId, Expr::value(user_id.as_str()))
            .exec(&tx)
            .await?;
        if changed.rows_affected == 0 {
            return Err(corrupt("grants"));
        }
        let event = Event::new("consent.change_designated_user")
            .tenant(tenant_id)
            .client(&before.client_id)
            .subject(grant_id.as_str())
            .detail("old_user_id", before.designated_user_id.as_str())
            .detail("new_user_id", user_id.as_str())
            .detail("workload", by.workload.as_str());
        self.audit(&tx, origin, event).await?;
        self.end_access_tokens(&tx, &before, now).await?;
        let grant = Grant {
            designated_user_id: user_id.clone(),
            ..before
        };
        tx.commit().await?;
        Ok(grant)
    }

    /// Publishes that a grant changed and that its access tokens have ended. Comes last in a transaction.
    async fn end_access_tokens(
        &self,
        tx: &DatabaseTransaction,
        grant: &Grant,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        let (id, tenant_id) = (grant.grant_id.as_str(), Some(&grant.tenant_id));
        let changed = Change {
            kind: change_kind::GRANT,
            id: id.to_owned(),
            tenant_id: tenant_id.cloned(),
        };
        let revocation = Revocation::new(RevocationKind::Grant, id, tenant_id, now);
        revocation::publish(tx, vec![changed], vec![revocation], now).await
    }
}

/// No end by itself, or one that is still to come.
fn not_past_end(now: UnixMillis) -> Condition {
    Condition::any()
        .add(Column::ExpiresAt.is_null())
        .add(Column::ExpiresAt.gt(now.as_millis()))
}

/// The grant, locked until the transaction ends. SQLite lets one transaction write at a time anyway.
async fn find_locked(
    tx: &DatabaseTransaction,
    tenant_id: &TenantId,
    grant_id: &GrantId,
) -> Result<Option<Grant>, Error> {
    let mut query = Entity::find_by_id((tenant_id.to_string(), grant_id.to_string()));
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        query = query.lock_exclusive();
    }
    let row = query.one(tx).await?;
    Ok(row.map(grant).transpose()?)
}

async fn find(
    conn: &impl ConnectionTrait,
    tenant_id: &TenantId,
    grant_id: &GrantId,
) -> Result<Option<Grant>, Error> {
    let row = Entity::find_by_id((tenant_id.to_string(), grant_id.to_string()))
        .one(conn)
        .await?;
    Ok(row.map(grant).transpose()?)
}

/// A tenant's grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub(super) struct GrantKey {
    pub(super) tenant_id: String,
    pub(super) grant_id: String,
}

impl GrantKey {
    pub(super) fn new(tenant_id: &TenantId, grant_id: &GrantId) -> Self {
        Self {
            tenant_id: tenant_id.to_string(),
            grant_id: grant_id.to_string(),
        }
    }

    /// The grant that the code's redemption activates.
    pub(super) fn of_code(code: &Code) -> Self {
        Self::new(&code.tenant_id, &code.grant_id)
    }
}

/// Reads a row.
pub(super) fn grant(row: Model) -> Result<Grant, StoreError> {
    let unreadable = || StoreError::Corrupt("grants");
    let scopes: Vec<ScopeName> = serde_json::from_value(row.scopes).map_err(|_| unreadable())?;
    Ok(Grant {
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        profile: serde_json::from_value(row.profile).map_err(|_| unreadable())?,
        scopes,
        designated_user_id: UserId::parse(&row.designated_user_id).map_err(|_| unreadable())?,
        granted_by: UserId::parse(&row.granted_by_user_id).map_err(|_| unreadable())?,
        state: StoredState::from_name(&row.state).ok_or_else(unreadable)?,
        created_at: UnixMillis::from_millis(row.created_at),
        redeem_until: UnixMillis::from_millis(row.redeem_until),
        activated_at: row.activated_at.map(UnixMillis::from_millis),
        expires_at: row.expires_at.map(UnixMillis::from_millis),
        ended_at: row.ended_at.map(UnixMillis::from_millis),
    })
}

#[cfg(test)]
#[path = "tests/grant.rs"]
mod tests;
