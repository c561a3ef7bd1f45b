//! What the audit record shows a tenant: the proof of an approval, and what operators did.

use accord::{
    store::audit::{self, EventProof, EventRow, Filter, Outcome, action},
    text::{
        id::{EventId, GrantId, TenantId},
        page::PageRequest,
    },
    tlog::ProofFile,
};

use super::Store;
use crate::{
    error::{Error, Result},
    model::tenant::operator_action::OperatorAction,
};

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
            action: Some(action::CONSENT_APPROVE.as_str().to_owned()),
            subject: Some(grant_id.to_string()),
            ..Filter::default()
        };
        let found = audit::list(self.db.read(), &filter, &PageRequest::first(1)).await?;
        let (events, _) = found.into_parts();
        let event = events.into_iter().next().ok_or(Error::NotFound("audit_event"))?;
        match audit::prove(self.db.read(), None, &event.event_id).await? {
            EventProof::Sealed(proof) => Ok((event.event_id, proof.file)),
            EventProof::NotYetSealed | EventProof::NoSuchHead => Err(Error::NotYetSealed),
            EventProof::Unknown => Err(Error::NotFound("audit_event")),
        }
    }

    /// Returns what operators did to a tenant in this service, newest first: at most `limit` actions, before the event
    /// `before` if it is given.
    pub async fn operator_actions(
        &self,
        tenant_id: &TenantId,
        before: Option<&EventId>,
        limit: u64,
    ) -> Result<Vec<OperatorAction>> {
        let events = audit::operator_actions(self.db.read(), tenant_id, before, limit).await?;
        Ok(events.into_iter().map(action).collect())
    }
}

fn action(event: EventRow) -> OperatorAction {
    OperatorAction {
        event_id: event.event_id,
        action: event.action,
        operator_id: event.actor.id,
        reason: event.detail.get("reason").cloned().unwrap_or_default(),
        subject: event.subject.unwrap_or_default(),
        client_id: event.client_id.map(String::from).unwrap_or_default(),
        is_refused: event.outcome == Outcome::Refused,
        changed_fields: Vec::new(),
        is_single_person: false,
    }
}
