//! A call about consents, and the registry's facts that it has read. Each fact is read once per call, so that a
//! page or a decision asks the registry as often as it has facts, however many steps it takes.
//!
//! Nothing outlives the call: a decision rests on facts read for it, under one lease that begins with the call.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use accord::{
    rpc::auth::Principal,
    text::id::{ClientId, TenantId, UserId},
};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Consents;
use crate::{
    error::{Error, Result},
    model::{
        admin_session::AdminSession,
        client::Client,
        grant::{Consent, Grant, Parties, usage::UsageSummary},
        tenant::Tenant,
        user::User,
        watermark::{AsOf, LEASE},
    },
    registry::UserRef,
};

/// A fact of the registry; `None` if it does not exist there.
type Fact<T> = Option<Arc<AsOf<T>>>;

/// A call about setups or consents. No `Debug`: it holds the token of a session.
pub struct ConsentCall {
    /// What the call works with.
    pub consents: Consents,
    /// The caller on the channel.
    pub(super) principal: Principal,
    /// The token of a Tenant Admin's session; empty for operators.
    pub admin_session: Zeroizing<String>,
    /// When the first fact may have been read.
    sent_at: Instant,
    pub(super) facts: CallFacts,
}

/// What a call has read so far.
#[derive(Default)]
pub(super) struct CallFacts {
    tenants: HashMap<TenantId, Fact<Tenant>>,
    clients: HashMap<ClientId, Fact<Client>>,
    users: HashMap<(TenantId, UserId), Fact<User>>,
    /// The session of the call's token, which was found valid.
    pub(super) session: Option<AdminSession>,
}

impl ConsentCall {
    /// Begins a call with these credentials.
    pub fn new(
        consents: &Consents,
        principal: Principal,
        admin_session: impl Into<Zeroizing<String>>,
    ) -> Self {
        Self {
            consents: consents.clone(),
            principal,
            admin_session: admin_session.into(),
            sent_at: Instant::now(),
            facts: CallFacts::default(),
        }
    }

    /// Returns whether a decision may still rest on the facts read so far. Otherwise forgets them all, so that
    /// each is read again.
    pub(super) fn has_fresh_facts(&mut self) -> bool {
        let is_fresh = self.sent_at.elapsed() <= LEASE;
        if !is_fresh {
            (self.sent_at, self.facts) = (Instant::now(), CallFacts::default());
        }
        is_fresh
    }

    /// Reads a tenant.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RegistryUnavailable`].
    pub async fn tenant(&mut self, tenant_id: &TenantId) -> Result<Arc<AsOf<Tenant>>> {
        let tenant = self.find_tenant(tenant_id).await?;
        tenant.ok_or(Error::NotFound("tenant"))
    }

    pub(super) async fn find_tenant(&mut self, tenant_id: &TenantId) -> Result<Fact<Tenant>> {
        let read = self.consents.registry.find_tenant(tenant_id);
        once(&mut self.facts.tenants, tenant_id.clone(), read).await
    }

    pub(super) async fn find_client(&mut self, client_id: &ClientId) -> Result<Fact<Client>> {
        let read = self.consents.registry.find_client(client_id);
        once(&mut self.facts.clients, client_id.clone(), read).await
    }

    pub(super) async fn find_user(&mut self, tenant_id: &TenantId, user_id: &UserId) -> Result<Fact<User>> {
        let key = (tenant_id.clone(), user_id.clone());
        let read = self.consents.registry.find_user(tenant_id, UserRef::Id(user_id));
        once(&mut self.facts.users, key, read).await
    }

    /// Finds the user that API transactions are to run as.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown and for a deactivated user.
    pub(super) async fn designated_user(
        &mut self,
        tenant_id: &TenantId,
        account_name: &str,
    ) -> Result<UserId> {
        let which = UserRef::AccountName(account_name);
        let user = self.consents.registry.find_user(tenant_id, which).await?;
        let user = user.filter(|user| user.value.active);
        let user = user.ok_or(Error::NotFound("user"))?;
        let user_id = user.value.user_id.clone();
        let key = (tenant_id.clone(), user_id.clone());
        self.facts.users.insert(key, Some(Arc::new(user)));
        Ok(user_id)
    }

    /// Returns the consents of these grants, which are all of one tenant.
    pub(super) async fn consents_of(&mut self, grants: Vec<Grant>) -> Result<Vec<Consent>> {
        let Some(tenant_id) = grants.first().map(|grant| grant.tenant_id.clone()) else {
            return Ok(Vec::new());
        };
        let grant_ids: Vec<_> = grants.iter().map(|grant| grant.grant_id.as_str()).collect();
        let usage = self
            .consents
            .store
            .usage_summaries(&tenant_id, &grant_ids)
            .await?;
        let mut consents = Vec::with_capacity(grants.len());
        for grant in grants {
            let usage = usage.get(grant.grant_id.as_str()).copied();
            consents.push(self.consent(grant, usage.unwrap_or_default()).await?);
        }
        Ok(consents)
    }

    /// Returns the consent of a grant that was used like this.
    pub(super) async fn consent(&mut self, grant: Grant, usage: UsageSummary) -> Result<Consent> {
        let tenant = self.find_tenant(&grant.tenant_id).await?;
        let client = self.find_client(&grant.client_id).await?;
        let designated_user = self
            .find_user(&grant.tenant_id, &grant.designated_user_id)
            .await?;
        let granted_by = self.find_user(&grant.tenant_id, &grant.granted_by).await?;
        let parties = Parties {
            tenant: value(&tenant),
            client: value(&client),
            designated_user: value(&designated_user),
            granted_by: value(&granted_by),
        };
        Ok(Consent::new(grant, parties, usage, self.consents.store.now()))
    }

    /// Returns the consent of this grant.
    pub(super) async fn consent_of(&mut self, grant: Grant) -> Result<Consent> {
        let consent = self.consents_of(vec![grant]).await?.pop();
        consent.ok_or(Error::NotFound("consent"))
    }
}

fn value<T>(fact: &Fact<T>) -> Option<&T> {
    fact.as_deref().map(|at| &at.value)
}

/// Returns a fact that was read before, or reads it.
async fn once<K: Eq + Hash, T>(
    known: &mut HashMap<K, Fact<T>>,
    key: K,
    read: impl Future<Output = Result<Option<AsOf<T>>>>,
) -> Result<Fact<T>> {
    if let Some(fact) = known.get(&key) {
        return Ok(fact.clone());
    }
    let fact = read.await?.map(Arc::new);
    known.insert(key, fact.clone());
    Ok(fact)
}
