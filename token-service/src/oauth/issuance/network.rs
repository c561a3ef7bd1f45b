//! The networks that a client, and a consent, are limited to. Both are checked before anything is spent.

use accord::{
    rpc::context,
    store::audit::CallerAddress,
    text::{id::GrantId, network::AllowedNetworks},
};

use super::Issuance;
use crate::{error::Result, model::client::require_network};

impl Issuance<'_> {
    /// Rejects a call from outside of the client's networks. It counts for the grant that the client has now.
    pub(super) async fn check_client_network(&mut self) -> Result<()> {
        let Err(error) = check_network(&self.client.allowed_networks) else {
            return Ok(());
        };
        if self.grant_id.is_none() {
            let (client_id, tenant_id) = (&self.client.client_id, &self.tenant.tenant_id);
            let current = Box::pin(self.oauth.cache.current_grant(client_id, tenant_id)).await?;
            self.grant_id = current.value.map(|grant| grant.grant_id.clone());
        }
        Err(error)
    }

    /// Rejects a call from outside of the networks of a grant, before the call can count as a replay.
    pub(super) async fn check_grant_network(&self, grant_id: &GrantId) -> Result<()> {
        let entry = self.entry.as_ref().map(|entry| &entry.grant);
        if let Some(grant) = entry.filter(|grant| grant.grant_id == *grant_id) {
            return check_network(&grant.allowed_networks);
        }
        let found = self.oauth.cache.grant(&self.tenant.tenant_id, grant_id).await?;
        match found.value {
            Some(grant) => check_network(&grant.allowed_networks),
            // No token comes of it.
            None => Ok(()),
        }
    }
}

/// Rejects a call from outside of these networks, and one from an unknown address if there are any.
pub(super) fn check_network(allowed: &AllowedNetworks) -> Result<()> {
    require_network(allowed, context::address().map(CallerAddress::ip))
}
