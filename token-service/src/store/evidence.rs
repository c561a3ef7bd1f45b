//! What the audit record shows a tenant: the proof of an approval.

use accord::{
    store::audit::{self, Filter, Proof},
    text::{
        id::{EventId, GrantId, TenantId},
        page::PageRequest,
    },
    tlog::ProofFile,
};

use super::{Store, setup::APPROVE};
use crate::error::{Error, Result};

impl Store {
    /// Proves the approval of a tenant's grant. Returns the id of its event, and the proof.
    ///
    /// # Errors
    /// [`Error::NotYetSealed`] before the event is sealed; [`Error::NotFound`] if retention has deleted it.
    pub async fn prove_approval(
        &self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<(EventId, ProofFile)> {
        let filter = Filter {
            tenant_id: Some(tenant_id.clone()),
            action: Some(APPROVE.to_owned()),
            subject: Some(grant_id.to_string()),
            ..Filter::default()
        };
        let found = audit::list(self.db.read(), &filter, &PageRequest::first(1)).await?;
        let (events, _) = found.into_parts();
        let event = events.into_iter().next().ok_or(Error::NotFound("audit_event"))?;
        match audit::prove_in_its_log(self.db.read(), &event.event_id).await? {
            Proof::Sealed(proof) => Ok((event.event_id, proof)),
            Proof::NotYetSealed => Err(Error::NotYetSealed),
            Proof::Unknown => Err(Error::NotFound("audit_event")),
        }
    }
}
