//! Grants in the database.

use accord::{
    clock::UnixMillis,
    store::{
        StoreError, Transaction,
        audit::{Event, Origin, action},
        change::Change,
        rows::{self, Checked, Locked, Lookup, ProtectedRows},
    },
    text::{
        id::{ClientId, FamilyId, GrantId, TenantId, UserId},
        page::{Page, PageRequest},
    },
};
use sea_orm::{QueryOrder, QuerySelect, QueryTrait, entity::prelude::*};
use serde::Deserialize;

use super::{
    Store, Stored,
    admin_session::require_open,
    change_kind,
    entity::grant::{Column, Entity},
    family,
    revocation::{self, Revocation},
};
use crate::{
    error::{Error, Result},
    model::{
        admin_session::AdminSession,
        grant::{Grant, GrantChange, GrantFilter, GrantState, StoredState},
        revocation::RevocationKind,
    },
};

pub(super) mod receipt;

/// A grant with its row.
pub type StoredGrant = Stored<Grant, Entity>;

impl Store {
    /// Reads a tenant's grant.
    pub async fn find_grant(&self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<Option<Grant>> {
        let row = by_id(tenant_id, grant_id).read_one(self.db.read()).await?;
        Ok(row.as_ref().map(grant).transpose()?)
    }

    /// Lists a tenant's grants, newest first: those of the filter's client whose stored state a grant in the filter's
    /// state can have. The caller tells expiry and suspension apart.
    pub async fn list_grants(
        &self,
        tenant_id: &TenantId,
        filter: &GrantFilter,
        page: &PageRequest,
    ) -> Result<Page<Grant>> {
        let states = filter
            .state
            .map(|state| state.stored().iter().map(StoredState::as_ref));
        let rows = Entity::look_up()
            .equal(Column::TenantId, tenant_id.as_str())
            .apply_if(filter.client_id.as_ref(), |query, id| {
                query.equal(Column::ClientId, id.as_str())
            })
            .apply_if(states, |query, states| query.one_of(Column::State, states))
            .apply_if(page.after(), |query, after| {
                query.behind(Column::GrantId.lt(after))
            })
            .order_by_desc(Column::GrantId)
            .limit(page.fetch())
            .read_all(self.db.read())
            .await?;
        let grants = rows.iter().map(grant).collect::<Result<Vec<_>, _>>()?;
        Ok(page.finish(grants, |grant| grant.grant_id.to_string()))
    }

    /// Revokes a grant and ends its refresh families and access tokens. Only publishes that again if it is revoked already.
    /// `session` is that of the Tenant Admin who decides.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`] if the session has ended; [`Error::NotFound`]; [`Error::WrongState`] if the grant
    /// was superseded or has expired; [`StoreError::Altered`], after the revocation was recorded and published.
    pub async fn revoke_grant(
        &self,
        origin: &Origin,
        tenant_id: &TenantId,
        grant_id: &GrantId,
        reason: &str,
        session: Option<&AdminSession>,
    ) -> Result<Grant> {
        let tx = self.db.write().await?;
        let now = self.now();
        if let Some(session) = session {
            require_open(&tx, session, now).await?;
        }
        let event = Event::new(action::CONSENT_REVOKE)
            .tenant(tenant_id)
            .subject(grant_id.as_str())
            .detail("reason", reason)
            .detail_if("workload", session.map(|session| session.workload.as_str()));
        let key = [tenant_id.as_str(), grant_id.as_str()];
        let mut row = match rows::lock_to_end::<Entity>(&tx, &key).await {
            // The row stays, and every read rejects it. Nobody may go on with what memory holds.
            Err(error @ StoreError::Altered(table)) => {
                family::end_of_grant(&tx, tenant_id, grant_id, now).await?;
                self.audit(&tx, origin, event.altered(table)).await;
                end_access_tokens(&tx, tenant_id, grant_id, now).await?;
                tx.commit().await?;
                return Err(error.into());
            }
            row => row?.ok_or(Error::NotFound("consent"))?,
        };
        let before = grant(&row)?;
        match before.state_at(now, true) {
            GrantState::Pending | GrantState::Active => {}
            // Somebody may have put back the row from before for a moment, in which memory has read it.
            GrantState::Revoked => {
                end_access_tokens(&tx, tenant_id, grant_id, now).await?;
                tx.commit().await?;
                return Ok(before);
            }
            state => return Err(state.wrong_state()),
        }
        row.state = StoredState::Revoked.as_ref().to_owned();
        row.ended_at = Some(now.as_millis());
        row.save(&tx).await?;
        family::end_of_grant(&tx, tenant_id, grant_id, now).await?;
        self.audit(&tx, origin, event.client(&before.client_id)).await;
        end_access_tokens(&tx, tenant_id, grant_id, now).await?;
        tx.commit().await?;
        Ok(grant(&row)?)
    }

    /// Changes an active grant. Another designated user ends its access tokens. Other networks end none: a token that was
    /// issued before came from where it was allowed. Changes nothing if the grant is like that already.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`] if the session has ended; [`Error::NotFound`]; [`Error::WrongState`] if the grant
    /// is not active or has expired.
    pub async fn change_grant(
        &self,
        origin: &Origin,
        by: &AdminSession,
        found: &Grant,
        change: &GrantChange,
    ) -> Result<Grant> {
        let (tenant_id, grant_id) = (&found.tenant_id, &found.grant_id);
        let tx = self.db.write().await?;
        let now = self.now();
        require_open(&tx, by, now).await?;
        // Locked, so that it can't change between checks and update.
        let row = by_id(tenant_id, grant_id).lock_one(&tx).await?;
        let mut row = row.ok_or(Error::NotFound("consent"))?;
        let before = grant(&row)?;
        match before.state_at(now, true) {
            GrantState::Active if change.is_made(&before) => return Ok(before),
            GrantState::Active => {}
            state => return Err(state.wrong_state()),
        }
        let event = apply(change, &before, &mut row)?;
        row.save(&tx).await?;
        receipt::add_change(&tx, &before, (now, &by.user_id), change).await?;
        let event = event.detail("workload", by.workload.as_str());
        self.audit(&tx, origin, event).await;
        match change {
            GrantChange::DesignatedUser(_) => end_access_tokens(&tx, tenant_id, grant_id, now).await?,
            GrantChange::AllowedNetworks(_) => {
                revocation::publish(&tx, vec![changed(tenant_id, grant_id)], Vec::new(), now).await?;
            }
        }
        tx.commit().await?;
        Ok(grant(&row)?)
    }
}

/// Makes a change in the row of a grant. Returns its event, without who made it.
fn apply(change: &GrantChange, before: &Grant, row: &mut Locked<Entity>) -> Result<Event> {
    let event = |action| {
        Event::new(action)
            .tenant(&before.tenant_id)
            .client(&before.client_id)
            .subject(before.grant_id.as_str())
    };
    match change {
        GrantChange::DesignatedUser(user_id) => {
            row.designated_user_id = user_id.to_string();
            Ok(event(action::CONSENT_CHANGE_DESIGNATED_USER)
                .detail("old_user_id", before.designated_user_id.as_str())
                .detail("new_user_id", user_id.as_str()))
        }
        GrantChange::AllowedNetworks(networks) => {
            row.allowed_networks =
                serde_json::to_value(networks).map_err(|_| StoreError::Corrupt("grants"))?;
            Ok(event(action::CONSENT_CHANGE_ALLOWED_NETWORKS)
                .detail("old_networks", before.allowed_networks.to_texts().join(" "))
                .detail("new_networks", networks.to_texts().join(" ")))
        }
    }
}

/// Returns that a grant changed, so that every replica reads it again.
fn changed(tenant_id: &TenantId, grant_id: &GrantId) -> Change {
    Change {
        kind: change_kind::GRANT,
        id: grant_id.to_string(),
        tenant_id: Some(tenant_id.clone()),
    }
}

/// Publishes that a grant changed and that its access tokens have ended. Comes last in a transaction.
async fn end_access_tokens(
    tx: &Transaction,
    tenant_id: &TenantId,
    grant_id: &GrantId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let changed = changed(tenant_id, grant_id);
    let revocation = Revocation::new(RevocationKind::Grant, grant_id.as_str(), Some(tenant_id), now);
    revocation::publish(tx, vec![changed], vec![revocation], now).await
}

fn by_id(tenant_id: &TenantId, grant_id: &GrantId) -> Lookup<Entity> {
    Entity::look_up_by_id((tenant_id.to_string(), grant_id.to_string()))
}

/// Reads a row.
pub(super) fn grant(row: &impl Checked<Entity>) -> Result<Grant, StoreError> {
    let unreadable = || StoreError::Corrupt("grants");
    let family_id = row.family_id.as_deref().map(FamilyId::parse).transpose();
    Ok(Grant {
        grant_id: GrantId::parse(&row.grant_id).map_err(|_| unreadable())?,
        tenant_id: TenantId::parse(&row.tenant_id).map_err(|_| unreadable())?,
        client_id: ClientId::parse(&row.client_id).map_err(|_| unreadable())?,
        display: Deserialize::deserialize(&row.profile).map_err(|_| unreadable())?,
        scopes: Deserialize::deserialize(&row.scopes).map_err(|_| unreadable())?,
        designated_user_id: UserId::parse(&row.designated_user_id).map_err(|_| unreadable())?,
        granted_by: UserId::parse(&row.granted_by_user_id).map_err(|_| unreadable())?,
        state: row.state.parse().map_err(|_| unreadable())?,
        client_version: row.client_version,
        created_at: UnixMillis::from_millis(row.created_at),
        family_id: family_id.map_err(|_| unreadable())?,
        redeem_until: UnixMillis::from_millis(row.redeem_until),
        activated_at: row.activated_at.map(UnixMillis::from_millis),
        expires_at: row.expires_at.map(UnixMillis::from_millis),
        ended_at: row.ended_at.map(UnixMillis::from_millis),
        allowed_networks: Deserialize::deserialize(&row.allowed_networks).map_err(|_| unreadable())?,
    })
}
