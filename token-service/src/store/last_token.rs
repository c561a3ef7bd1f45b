//! When a grant last yielded a token, as the audit trail has it.

use accord::{
    clock::UnixMillis,
    store::audit::{self, Outcome},
    text::{
        id::{GrantId, TenantId},
        page::PageRequest,
    },
};

use super::Store;
use crate::error::Error;

impl Store {
    /// When a token was last issued under a grant; `None` if none ever was.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn last_token_at(
        &self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<Option<UnixMillis>, Error> {
        let filter = audit::Filter {
            tenant_id: Some(tenant_id.clone()),
            action: Some("token.issue".to_owned()),
            subject: Some(grant_id.to_string()),
            outcome: Some(Outcome::Success),
            ..audit::Filter::default()
        };
        let one = PageRequest::parse("audit_events", &[], 1, "")?;
        let events = audit::list(self.db.read(), &filter, &one).await?;
        Ok(events.items.first().map(|event| event.occurred_at))
    }
}
