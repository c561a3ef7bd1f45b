//! The registry's facts behind one request. Each fact is read once per request, so that a page or a decision
//! asks the registry as often as it has facts, however many steps it takes.
//!
//! Nothing outlives the request: a decision rests on facts read for it, under one lease that begins with the
//! request.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use accord::text::id::{ClientId, TenantId, UserId};
use tokio::time::Instant;

use crate::{
    error::Error,
    model::{
        admin_session::AdminSession,
        client::Client,
        grant::{Consent, Grant, Parties},
        tenant::Tenant,
        user::User,
        watermark::{AsOf, LEASE},
    },
    registry::{Registry, UserRef},
    store::Store,
};

/// `None`: the registry does not know it.
type Fact<T> = Option<Arc<AsOf<T>>>;

/// The facts that one request has read so far.
pub struct Facts {
    registry: Registry,
    asked_at: Instant,
    tenants: HashMap<TenantId, Fact<Tenant>>,
    clients: HashMap<ClientId, Fact<Client>>,
    users: HashMap<(TenantId, UserId), Fact<User>>,
    /// The valid session of the request.
    pub(super) session: Option<AdminSession>,
}

impl Facts {
    /// Begins a request.
    pub fn new(registry: &Registry) -> Self {
        Self {
            registry: registry.clone(),
            asked_at: Instant::now(),
            tenants: HashMap::new(),
            clients: HashMap::new(),
            users: HashMap::new(),
            session: None,
        }
    }

    /// Whether a decision may still rest on the facts read so far.
    pub(super) fn are_fresh(&self) -> bool {
        self.asked_at.elapsed() <= LEASE
    }

    /// Forgets every fact, so that each is read again.
    pub(super) fn forget(&mut self) {
        *self = Self::new(&self.registry);
    }

    /// Reads a tenant.
    pub async fn tenant(&mut self, tenant_id: &TenantId) -> Result<Fact<Tenant>, Error> {
        once(
            &mut self.tenants,
            tenant_id.clone(),
            self.registry.tenant(tenant_id),
        )
        .await
    }

    /// Reads a client.
    pub(super) async fn client(&mut self, client_id: &ClientId) -> Result<Fact<Client>, Error> {
        once(
            &mut self.clients,
            client_id.clone(),
            self.registry.client(client_id),
        )
        .await
    }

    /// Reads a tenant's user.
    pub(super) async fn user(&mut self, tenant_id: &TenantId, user_id: &UserId) -> Result<Fact<User>, Error> {
        let key = (tenant_id.clone(), user_id.clone());
        let read = self.registry.user(tenant_id, UserRef::Id(user_id));
        once(&mut self.users, key, read).await
    }

    /// Finds the user that API transactions are to run as.
    ///
    /// # Errors
    /// [`Error::NotFound`] for nobody and for a deactivated user.
    pub(super) async fn designated_user(
        &mut self,
        tenant_id: &TenantId,
        account_name: &str,
    ) -> Result<Arc<AsOf<User>>, Error> {
        let found = self.registry.user(tenant_id, UserRef::AccountName(account_name));
        let user = Arc::new(found.await?);
        if !user.value.active {
            return Err(Error::NotFound("user"));
        }
        let key = (tenant_id.clone(), user.value.user_id.clone());
        self.users.insert(key, Some(user.clone()));
        Ok(user)
    }

    /// The consents of these grants, which are all of one tenant.
    pub(super) async fn consents(
        &mut self,
        store: &Store,
        grants: Vec<Grant>,
    ) -> Result<Vec<Consent>, Error> {
        let Some(first) = grants.first() else {
            return Ok(Vec::new());
        };
        let tenant_id = first.tenant_id.clone();
        let grant_ids = grants.iter().map(|grant| grant.grant_id.as_str());
        let uses = store.last_grant_uses(&tenant_id, grant_ids).await?;
        let tenant = self.tenant(&tenant_id).await?;
        let mut consents = Vec::with_capacity(grants.len());
        for grant in grants {
            let client = self.client(&grant.client_id).await?;
            let designated_user = self.user(&tenant_id, &grant.designated_user_id).await?;
            let granted_by = self.user(&tenant_id, &grant.granted_by).await?;
            let parties = Parties {
                tenant: value(&tenant),
                client: value(&client),
                designated_user: value(&designated_user),
                granted_by: value(&granted_by),
            };
            let last_used_at = uses.get(grant.grant_id.as_str()).copied();
            consents.push(Consent::new(grant, parties, last_used_at, store.now()));
        }
        Ok(consents)
    }

    /// The consent of this grant.
    pub(super) async fn consent(&mut self, store: &Store, grant: Grant) -> Result<Consent, Error> {
        let consents = self.consents(store, vec![grant]).await?;
        consents.into_iter().next().ok_or(Error::NotFound("consent"))
    }
}

fn value<T>(fact: &Fact<T>) -> Option<&T> {
    fact.as_deref().map(|at| &at.value)
}

async fn once<K: Eq + Hash, T>(
    known: &mut HashMap<K, Fact<T>>,
    key: K,
    read: impl Future<Output = Result<AsOf<T>, Error>>,
) -> Result<Fact<T>, Error> {
    if let Some(fact) = known.get(&key) {
        return Ok(fact.clone());
    }
    let fact = match read.await {
        Ok(answer) => Some(Arc::new(answer)),
        Err(Error::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    known.insert(key, fact.clone());
    Ok(fact)
}
