//! Grants as they are shown: with what the registry says about their parties.

use std::collections::HashMap;

use accord::{
    clock::UnixMillis,
    text::id::{ClientId, TenantId, UserId},
};

use crate::model::grant::{Grant, State};
use crate::{
    error::Error,
    model::user::User,
    registry::{Registry, UserRef},
};

/// A grant as it is shown: where it stands now, and the designated user's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The grant.
    pub grant: Grant,
    /// Where it stands.
    pub state: State,
    /// When it ended; `None` before.
    pub ended_at: Option<UnixMillis>,
    /// The designated user's label; empty if the registry knows the user no more.
    pub designated_user_label: String,
}

impl Consent {
    /// A grant just approved, with the label of its designated user.
    pub fn approved(grant: Grant, designated_user_label: String) -> Self {
        Self {
            grant,
            state: State::Pending,
            ended_at: None,
            designated_user_label,
        }
    }
}

/// What the registry says about the parties of one tenant's grants, each asked for once.
pub(super) struct Parties<'a> {
    registry: &'a Registry,
    tenant_id: &'a TenantId,
    /// `Some(None)`: there is no such tenant.
    tenant: Option<Option<bool>>,
    clients: HashMap<ClientId, bool>,
    users: HashMap<UserId, Option<User>>,
}

impl<'a> Parties<'a> {
    pub(super) fn new(registry: &'a Registry, tenant_id: &'a TenantId) -> Self {
        Self {
            registry,
            tenant_id,
            tenant: None,
            clients: HashMap::new(),
            users: HashMap::new(),
        }
    }

    pub(super) async fn tenant_exists(&mut self) -> Result<bool, Error> {
        Ok(self.tenant().await?.is_some())
    }

    /// Whether the tenant is active; `None` if there is none.
    async fn tenant(&mut self) -> Result<Option<bool>, Error> {
        if let Some(known) = self.tenant {
            return Ok(known);
        }
        let tenant = found(self.registry.tenant(self.tenant_id).await)?.map(|at| at.value.active);
        self.tenant = Some(tenant);
        Ok(tenant)
    }

    /// Whether the client is active and may still ask the tenant.
    async fn client_active(&mut self, client_id: &ClientId) -> Result<bool, Error> {
        if let Some(known) = self.clients.get(client_id) {
            return Ok(*known);
        }
        let client = found(self.registry.client(client_id).await)?.map(|at| at.value);
        let active = client.is_some_and(|it| it.active && it.tenant_ids.contains(self.tenant_id));
        self.clients.insert(client_id.clone(), active);
        Ok(active)
    }

    async fn user(&mut self, user_id: &UserId) -> Result<Option<User>, Error> {
        if let Some(known) = self.users.get(user_id) {
            return Ok(known.clone());
        }
        let user = found(self.registry.user(self.tenant_id, UserRef::Id(user_id)).await)?.map(|at| at.value);
        self.users.insert(user_id.clone(), user.clone());
        Ok(user)
    }

    /// The grant as it is to be shown at `now`.
    pub(super) async fn view(&mut self, grant: Grant, now: UnixMillis) -> Result<Consent, Error> {
        let user = self.user(&grant.designated_user_id).await?;
        // Parties matter to a grant that is active but for them.
        let active = grant.state_at(now, true) == State::Active
            && user.as_ref().is_some_and(|user| user.active)
            && self.tenant().await?.unwrap_or(false)
            && self.client_active(&grant.client_id).await?;
        Ok(Consent {
            state: grant.state_at(now, active),
            ended_at: grant.ended_by(now),
            designated_user_label: user.map(|user| user.label).unwrap_or_default(),
            grant,
        })
    }
}

/// `None` for what the registry does not know.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
