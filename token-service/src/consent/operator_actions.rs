//! What operators did to a tenant, in this service and in the registry, for its Tenant Admins.

use accord::text::{
    id::{EventId, TenantId},
    page::{Page, PageRequest},
};

use super::ConsentCall;
use crate::{error::Result, model::tenant::operator_action::OperatorAction};

impl ConsentCall {
    /// Lists what operators did to a tenant, newest first.
    ///
    /// # Errors
    /// Those of [`ConsentCall::list_consents`]; [`Error::RegistryUnavailable`](crate::error::Error::RegistryUnavailable), because a
    /// list without the registry's acts would look as if there were none.
    pub async fn operator_actions(
        &mut self,
        tenant_id: &TenantId,
        page: &PageRequest,
    ) -> Result<Page<OperatorAction>> {
        self.authority(tenant_id, "tenant").await?;
        self.tenant(tenant_id).await?;
        // A page token that is none of an event begins at the newest one, as a first page does.
        let before = page.after().and_then(|after| EventId::parse(after).ok());
        let (before, limit) = (before.as_ref(), page.fetch());
        let consents = &self.consents;
        let mut actions = consents
            .registry
            .operator_actions(tenant_id, before, limit)
            .await?;
        actions.extend(consents.store.operator_actions(tenant_id, before, limit).await?);
        actions.sort_unstable_by(|one, other| other.event_id.cmp(&one.event_id));
        actions.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(page.finish(actions, |action| action.event_id.to_string()))
    }
}
