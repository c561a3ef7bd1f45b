//! Connected integrations: the consents of a tenant, for its Tenant Admins and, to read and revoke, for
//! operators.

use accord::{
    rpc::auth::{Caller, Principal},
    store::audit::Origin,
    text::{
        id::{ClientId, GrantId, TenantId},
        network::AllowedNetworks,
        page::{Page, PageRequest},
    },
};

use super::{ConsentCall, admin_session::admin_origin};
use crate::{
    error::{Error, Result},
    model::{
        admin_session::AdminSession,
        grant::{Consent, Grant, GrantChange, GrantFilter, GrantState, usage::UsageReport},
        watermark::ATTEMPTS,
    },
};

/// What a Tenant Admin changes of a consent. No `Debug`: it must not show an account name.
#[derive(Clone, Copy)]
pub enum ConsentChange<'a> {
    /// API transactions run as the user with this account name.
    DesignatedUser(&'a str),
    /// Tokens may be requested from these networks.
    AllowedNetworks(&'a AllowedNetworks),
}

impl ConsentCall {
    /// Reads a consent.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`], [`Error::PermissionDenied`] for an operator with a session,
    /// [`Error::NotFound`], also for another tenant's.
    pub async fn get_consent(&mut self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<Consent> {
        self.authority(tenant_id, "consent").await?;
        let grant = self.grant(tenant_id, grant_id).await?;
        self.consent_of(grant).await
    }

    /// Lists a tenant's consents, newest first. A page may hold fewer than requested while more follow.
    ///
    /// # Errors
    /// Those of [`Self::get_consent`]; [`Error::NotFound`] for a tenant that is unknown or not the session's.
    pub async fn list_consents(
        &mut self,
        tenant_id: &TenantId,
        filter: &GrantFilter,
        page: &PageRequest,
    ) -> Result<Page<Consent>> {
        self.authority(tenant_id, "tenant").await?;
        self.tenant(tenant_id).await?;
        let grants = self.consents.store.list_grants(tenant_id, filter, page).await?;
        let mut consents = grants
            .try_map(async |grants| self.consents_of(grants).await)
            .await?;
        consents.retain(|consent| filter.state.is_none_or(|state| state == consent.state));
        Ok(consents)
    }

    /// Reads how a consent was used, and whether something of it was used a second time.
    ///
    /// # Errors
    /// Those of [`Self::get_consent`].
    pub async fn grant_usage(&mut self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<UsageReport> {
        self.authority(tenant_id, "consent").await?;
        let grant = self.grant(tenant_id, grant_id).await?;
        self.usage_of(&grant).await
    }

    /// Reads a consent with its usage.
    ///
    /// # Errors
    /// Those of [`Self::get_consent`].
    pub async fn consent_with_usage(
        &mut self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<(Consent, UsageReport)> {
        self.authority(tenant_id, "consent").await?;
        let grant = self.grant(tenant_id, grant_id).await?;
        let usage = self.usage_of(&grant).await?;
        Ok((self.consent_of(grant).await?, usage))
    }

    async fn usage_of(&self, grant: &Grant) -> Result<UsageReport> {
        let (store, tenant_id) = (&self.consents.store, &grant.tenant_id);
        let reuse = match &grant.family_id {
            Some(family_id) => store.find_reuse(tenant_id, family_id.as_str()).await?,
            None => None,
        };
        let days = store.grant_usage(tenant_id, &grant.grant_id).await?;
        Ok(UsageReport { days, reuse })
    }

    /// Returns the consent that a client has now, active or suspended.
    ///
    /// # Errors
    /// Those of [`Self::get_consent`].
    pub async fn current_consent(
        &mut self,
        tenant_id: &TenantId,
        client_id: &ClientId,
    ) -> Result<Option<Consent>> {
        self.authority(tenant_id, "tenant").await?;
        let store = &self.consents.store;
        let Some(grant) = store.find_current_grant(tenant_id, client_id).await?.value else {
            return Ok(None);
        };
        let consent = self.consent_of(grant).await?;
        let is_current = matches!(consent.state, GrantState::Active | GrantState::Suspended);
        Ok(is_current.then_some(consent))
    }

    /// Ends a consent for good, with its refresh families and access tokens. Only publishes that again when it is
    /// revoked already.
    ///
    /// # Errors
    /// Those of [`Self::get_consent`]; [`Error::WrongState`] when it was superseded or has expired.
    pub async fn revoke_consent(
        &mut self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
        reason: &str,
    ) -> Result<Consent> {
        let (origin, session) = self.authority(tenant_id, "consent").await?;
        let store = &self.consents.store;
        let revoked = store.revoke_grant(&origin, tenant_id, grant_id, reason, session.as_ref());
        let grant = revoked.await;
        // Also after an error: the revocation of an altered grant is published.
        self.consents.cache.catch_up_or_log().await;
        self.consent_of(grant?).await
    }

    /// Changes a consent. Another designated user ends its access tokens, and no refresh family; other networks end no token.
    /// Changes nothing if the consent is like that already. Reads the facts again when they are too old by the time of the
    /// commit.
    ///
    /// # Errors
    /// [`Error::AdminSessionInvalid`], [`Error::SignInTooOld`], [`Error::PermissionDenied`] for an operator,
    /// [`Error::NotFound`] (consent, or user), [`Error::WrongState`] unless it is active or suspended,
    /// [`Error::Unavailable`] when the registry keeps answering too late.
    pub async fn change_consent(
        &mut self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
        change: ConsentChange<'_>,
    ) -> Result<Consent> {
        for _ in 0..ATTEMPTS {
            let (origin, session, grant) = self.changeable(tenant_id, grant_id).await?;
            let change = match change {
                ConsentChange::DesignatedUser(account_name) => {
                    GrantChange::DesignatedUser(self.designated_user(tenant_id, account_name).await?)
                }
                ConsentChange::AllowedNetworks(networks) => GrantChange::AllowedNetworks(networks.clone()),
            };
            if !self.has_fresh_facts() {
                continue;
            }
            let store = &self.consents.store;
            let grant = store.change_grant(&origin, &session, &grant, &change).await?;
            self.consents.cache.catch_up_or_log().await;
            return self.consent_of(grant).await;
        }
        Err(Error::Unavailable)
    }

    /// Returns a grant that is active or suspended, with the session of the Tenant Admin who may change it.
    async fn changeable(
        &mut self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<(Origin, AdminSession, Grant)> {
        let (origin, session) = self.authority(tenant_id, "consent").await?;
        let session = session.ok_or(Error::PermissionDenied)?;
        session.require_fresh(self.consents.store.now())?;
        let grant = self.grant(tenant_id, grant_id).await?;
        let client = self.find_client(&grant.client_id).await?;
        let client = client.as_deref().map(|client| &client.value);
        match grant.state_with(self.consents.store.now(), client, true) {
            GrantState::Active | GrantState::Suspended => Ok((origin, session, grant)),
            state => Err(state.wrong_state()),
        }
    }

    async fn grant(&self, tenant_id: &TenantId, grant_id: &GrantId) -> Result<Grant> {
        let grant = self.consents.store.find_grant(tenant_id, grant_id).await?;
        grant.ok_or(Error::NotFound("consent"))
    }

    /// Returns the authority of the call: the origin of its audit events, and the session of a Tenant Admin. For a
    /// session of another tenant there is no such `resource`.
    pub(super) async fn authority(
        &mut self,
        tenant_id: &TenantId,
        resource: &'static str,
    ) -> Result<(Origin, Option<AdminSession>)> {
        match self.principal {
            Principal::Anonymous => Err(Error::Unauthenticated),
            Principal::Caller(Caller::Operator { .. }, _) if self.admin_session.is_empty() => {
                Ok((self.principal.origin(), None))
            }
            Principal::Caller(Caller::Operator { .. }, _) => Err(Error::PermissionDenied),
            Principal::Caller(Caller::Workload { .. }, _) => {
                let session = self.require_session().await?;
                if session.tenant_id != *tenant_id {
                    return Err(Error::NotFound(resource));
                }
                Ok((admin_origin(&session), Some(session)))
            }
        }
    }
}
