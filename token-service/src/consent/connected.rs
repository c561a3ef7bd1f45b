//! Connected integrations: the consents of a tenant, for its Tenant Admins and, to read and revoke, for
//! operators.

use accord::{
    rpc::auth::{Caller, Principal},
    store::audit::Origin,
    text::{
        id::{ClientId, GrantId, TenantId},
        page::{Page, PageRequest},
    },
};

use super::{
    Consents, Facts,
    admin_session::{self, admin_origin},
};
use crate::{
    error::Error,
    model::{
        admin_session::AdminSession,
        grant::{Consent, GrantFilter, GrantState},
        watermark::ATTEMPTS,
    },
};

/// A call about the consents of a tenant.
#[derive(Clone, Copy)]
pub struct Access<'a> {
    /// The caller on the channel.
    principal: &'a Principal,
    /// The token of a Tenant Admin's session; empty for operators.
    pub admin_session: &'a str,
    tenant_id: &'a TenantId,
}

impl<'a> Access<'a> {
    /// The access of a call with these credentials.
    pub fn new(principal: &'a Principal, admin_session: &'a str, tenant_id: &'a TenantId) -> Self {
        Self {
            principal,
            admin_session,
            tenant_id,
        }
    }
}

/// Reads a consent.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::PermissionDenied`] for an operator that brings a session,
/// [`Error::NotFound`], also for another tenant's.
pub async fn get(
    consents: &Consents,
    facts: &mut Facts,
    access: Access<'_>,
    grant_id: &GrantId,
) -> Result<Consent, Error> {
    authority(consents, facts, access, "consent").await?;
    let grant = consents.store.find_grant(access.tenant_id, grant_id).await?;
    let grant = grant.ok_or(Error::NotFound("consent"))?;
    facts.consent(&consents.store, grant).await
}

/// Lists a tenant's consents, newest first. A page may hold fewer than requested while more follow.
///
/// # Errors
/// Those of [`get`]; [`Error::NotFound`] for a tenant that is unknown or not the session's.
pub async fn list(
    consents: &Consents,
    facts: &mut Facts,
    access: Access<'_>,
    filter: &GrantFilter,
    page: &PageRequest,
) -> Result<Page<Consent>, Error> {
    authority(consents, facts, access, "tenant").await?;
    if facts.tenant(access.tenant_id).await?.is_none() {
        return Err(Error::NotFound("tenant"));
    }
    let grants = consents.store.list_grants(access.tenant_id, filter, page).await?;
    let mut items = facts.consents(&consents.store, grants.items).await?;
    items.retain(|consent| filter.state.is_none_or(|state| state == consent.state));
    Ok(Page {
        items,
        next_page_token: grants.next_page_token,
    })
}

/// The consent that a client has now, active or suspended.
///
/// # Errors
/// Those of [`get`].
pub async fn current(
    consents: &Consents,
    facts: &mut Facts,
    access: Access<'_>,
    client_id: &ClientId,
) -> Result<Option<Consent>, Error> {
    authority(consents, facts, access, "tenant").await?;
    let grant = consents
        .store
        .find_current_grant(access.tenant_id, client_id)
        .await?;
    let Some(grant) = grant else { return Ok(None) };
    let consent = facts.consent(&consents.store, grant).await?;
    let is_current = matches!(consent.state, GrantState::Active | GrantState::Suspended);
    Ok(is_current.then_some(consent))
}

/// Ends a consent for good, with its refresh families and access tokens. Changes nothing when it is revoked
/// already.
///
/// # Errors
/// Those of [`get`]; [`Error::WrongState`] when it was superseded or has expired.
pub async fn revoke(
    consents: &Consents,
    facts: &mut Facts,
    access: Access<'_>,
    grant_id: &GrantId,
    reason: &str,
) -> Result<Consent, Error> {
    let (origin, session) = authority(consents, facts, access, "consent").await?;
    let grant = consents
        .store
        .revoke_grant(&origin, access.tenant_id, grant_id, reason, session.as_ref())
        .await?;
    consents.cache.learn().await;
    facts.consent(&consents.store, grant).await
}

/// Lets API transactions run as another user: access tokens end, refresh families continue. Changes nothing
/// for the same user. Reads the facts again when they are too old by the time of the commit.
///
/// # Errors
/// [`Error::AdminSessionInvalid`], [`Error::SignInTooOld`], [`Error::PermissionDenied`] for an operator,
/// [`Error::NotFound`] (consent, or user), [`Error::WrongState`] unless it is active or suspended,
/// [`Error::Unavailable`] when the registry keeps answering too late.
pub async fn change_designated_user(
    consents: &Consents,
    facts: &mut Facts,
    access: Access<'_>,
    grant_id: &GrantId,
    account_name: &str,
) -> Result<Consent, Error> {
    for _ in 0..ATTEMPTS {
        let (origin, session) = authority(consents, facts, access, "consent").await?;
        let session = session.ok_or(Error::PermissionDenied)?;
        session.require_fresh(consents.store.now())?;
        let grant = consents.store.find_grant(access.tenant_id, grant_id).await?;
        let grant = grant.ok_or(Error::NotFound("consent"))?;
        // A suspended consent may change too, so its parties don't matter.
        match grant.state_at(consents.store.now(), true) {
            GrantState::Active => {}
            state => return Err(state.refusal()),
        }
        let user = facts.designated_user(access.tenant_id, account_name).await?;
        if !facts.are_fresh() {
            facts.forget();
            continue;
        }
        let grant = consents
            .store
            .change_designated_user(&origin, &session, &grant, &user.value.user_id)
            .await?;
        consents.cache.learn().await;
        return facts.consent(&consents.store, grant).await;
    }
    Err(Error::Unavailable)
}

/// The authority of a call: the origin of its audit events, and the session of a Tenant Admin. For a session
/// of another tenant there is no such `resource`.
async fn authority(
    consents: &Consents,
    facts: &mut Facts,
    access: Access<'_>,
    resource: &'static str,
) -> Result<(Origin, Option<AdminSession>), Error> {
    let origin = access.principal.origin();
    match access.principal {
        Principal::Anonymous => Err(Error::Unauthenticated),
        Principal::Caller(Caller::Operator { .. }) if access.admin_session.is_empty() => Ok((origin, None)),
        Principal::Caller(Caller::Operator { .. }) => Err(Error::PermissionDenied),
        Principal::Caller(Caller::Workload { .. }) => {
            let session = admin_session::require(consents, facts, &origin, access.admin_session).await?;
            if session.tenant_id == *access.tenant_id {
                Ok((admin_origin(&session, &origin), Some(session)))
            } else {
                Err(Error::NotFound(resource))
            }
        }
    }
}
