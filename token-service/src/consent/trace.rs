//! Where an issued token comes from: its grant, and the requests behind its client.

use accord::{
    store::audit::EventRow,
    text::id::{GrantId, UserId},
};

use super::Consents;
use crate::{error::Result, model::client::ClientOrigin};

/// The origin of a token. What is gone is `None`.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenOrigin {
    /// The Tenant Admin who granted the consent.
    pub granted_by: Option<UserId>,
    /// The requests behind the client.
    pub client: Option<ClientOrigin>,
}

impl Consents {
    /// Traces the token that an event issued: one read of the grant, and one of the registry.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`](crate::error::Error::RegistryUnavailable): an origin that is not known now is not
    /// reported as gone.
    pub async fn trace(&self, issued: &EventRow) -> Result<TokenOrigin> {
        let grant_id = issued.subject.as_deref().and_then(|id| GrantId::parse(id).ok());
        let grant = match (&issued.tenant_id, grant_id) {
            (Some(tenant_id), Some(grant_id)) => self.store.find_grant(tenant_id, &grant_id).await?,
            _ => None,
        };
        let client = match &issued.client_id {
            Some(client_id) => self.registry.client_origin(client_id).await?,
            None => None,
        };
        Ok(TokenOrigin {
            granted_by: grant.map(|grant| grant.granted_by),
            client,
        })
    }
}
