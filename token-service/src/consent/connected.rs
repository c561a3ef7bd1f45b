//! Consents as a Tenant Admin looks after them: with the names of everybody concerned, and when each was
//! last used.

use std::collections::HashMap;

use accord::{
    clock::UnixMillis,
    text::{
        id::{ClientId, GrantId, UserId},
        page::{Page, PageRequest},
    },
};

use super::{Access, Consent, Filter, get, list};
use crate::model::grant::State;
use crate::{
    consent::Consents,
    error::Error,
    model::client::{Client, ClientScope},
    registry::UserRef,
};

/// A consent, and what a Tenant Admin wants to know of it.
#[derive(Clone, Debug)]
pub struct Connected {
    /// The consent.
    pub consent: Consent,
    /// The partner behind the client; empty if the registry knows the client no more.
    pub partner_name: String,
    /// The scopes granted; without description or reason where the client lost the scope.
    pub scopes: Vec<ClientScope>,
    /// The label of the Tenant Admin who consented; empty if the registry knows the user no more.
    pub granted_by_label: String,
    /// When a token was last issued under it.
    pub last_token_at: Option<UnixMillis>,
}

/// Lists a tenant's consents, newest first.
///
/// # Errors
/// As [`list`].
pub async fn list_connected(
    service: &Consents,
    access: Access<'_>,
    page: &PageRequest,
) -> Result<Page<Connected>, Error> {
    let consents = list(service, access, &Filter::default(), page).await?;
    let mut names = Names::new(service, access);
    let mut items = Vec::with_capacity(consents.items.len());
    for consent in consents.items {
        items.push(names.connected(consent).await?);
    }
    Ok(Page {
        items,
        next_page_token: consents.next_page_token,
    })
}

/// Reads a consent.
///
/// # Errors
/// As [`get`].
pub async fn get_connected(
    service: &Consents,
    access: Access<'_>,
    grant_id: &GrantId,
) -> Result<Connected, Error> {
    let consent = get(service, access, grant_id).await?;
    Names::new(service, access).connected(consent).await
}

/// The consent that a client has now, suspended or not.
///
/// # Errors
/// As [`list`].
pub async fn current(
    service: &Consents,
    access: Access<'_>,
    client_id: &ClientId,
) -> Result<Option<Consent>, Error> {
    let one = PageRequest::parse("consents", &[], 1, "")?;
    for state in [State::Active, State::Suspended] {
        let filter = Filter {
            client_id: Some(client_id.clone()),
            state: Some(state),
        };
        let found = list(service, access, &filter, &one).await?;
        if let Some(consent) = found.items.into_iter().next() {
            return Ok(Some(consent));
        }
    }
    Ok(None)
}

/// What the registry knows of those whom consents concern, each asked for once.
struct Names<'a> {
    service: &'a Consents,
    access: Access<'a>,
    clients: HashMap<ClientId, Option<Client>>,
    users: HashMap<UserId, String>,
}

impl<'a> Names<'a> {
    fn new(service: &'a Consents, access: Access<'a>) -> Self {
        Self {
            service,
            access,
            clients: HashMap::new(),
            users: HashMap::new(),
        }
    }

    async fn connected(&mut self, consent: Consent) -> Result<Connected, Error> {
        let grant = &consent.grant;
        let client = self.client(&grant.client_id).await?;
        let scopes = grant.scopes.iter().map(|name| {
            let mut known = client.iter().flat_map(|client| &client.scopes);
            let known = known.find(|scope| scope.name == *name);
            known.cloned().unwrap_or_else(|| ClientScope {
                name: name.clone(),
                description: String::new(),
                reason: String::new(),
            })
        });
        Ok(Connected {
            scopes: scopes.collect(),
            partner_name: client.map(|client| client.partner_name).unwrap_or_default(),
            granted_by_label: self.user(&grant.granted_by).await?,
            last_token_at: self
                .service
                .store
                .last_token_at(&grant.tenant_id, &grant.grant_id)
                .await?,
            consent,
        })
    }

    async fn client(&mut self, client_id: &ClientId) -> Result<Option<Client>, Error> {
        if let Some(known) = self.clients.get(client_id) {
            return Ok(known.clone());
        }
        let client = match self.service.registry.client(client_id).await {
            Ok(client) => Some(client.value),
            Err(Error::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        self.clients.insert(client_id.clone(), client.clone());
        Ok(client)
    }

    async fn user(&mut self, user_id: &UserId) -> Result<String, Error> {
        if let Some(known) = self.users.get(user_id) {
            return Ok(known.clone());
        }
        let registry = &self.service.registry;
        let label = match registry.user(self.access.tenant_id, UserRef::Id(user_id)).await {
            Ok(user) => user.value.label,
            Err(Error::NotFound(_)) => String::new(),
            Err(error) => return Err(error),
        };
        self.users.insert(user_id.clone(), label.clone());
        Ok(label)
    }
}
