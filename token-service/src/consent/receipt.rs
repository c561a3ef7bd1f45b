//! Receipts of consents, which a tenant keeps and checks offline.

use accord::{
    text::id::{GrantId, TenantId},
    tlog::ProofFile,
    verify::CONSENT_RECEIPT_TYPE,
};
use serde::Serialize;

use super::ConsentCall;
use crate::{error::Result, model::grant::receipt::ConsentReceipt};

/// A receipt with its proof. As JSON it is the file that a page offers.
#[derive(Debug, Serialize)]
pub struct ProvenReceipt {
    /// The receipt, a JWT of the tenant's issuer.
    pub receipt: String,
    /// The proof that the audit log has the event of the consent, as `docs/AUDIT_PROOFS.md` describes it.
    pub proof: ProofFile,
}

impl ConsentCall {
    /// Signs a receipt of a consent as it is now, and proves the event of its approval.
    ///
    /// # Errors
    /// [`Error::NotYetSealed`](crate::error::Error::NotYetSealed) in the moments after the approval; `NotFound` of the audit event if
    /// retention has deleted it; otherwise those of [`ConsentCall::get_consent`].
    pub async fn consent_receipt(
        &mut self,
        tenant_id: &TenantId,
        grant_id: &GrantId,
    ) -> Result<ProvenReceipt> {
        let consent = self.get_consent(tenant_id, grant_id).await?;
        let store = self.consents.store.clone();
        let (event_id, proof) = store.prove_approval(tenant_id, grant_id).await?;
        let history = store.grant_history(tenant_id, grant_id).await?;
        let tenant = self.tenant(tenant_id).await?;
        let receipt = ConsentReceipt::new(consent, history, &tenant.value, event_id.into(), store.now());
        let keys = self.consents.cache.keys().await?;
        let receipt = keys.value.signer.sign(CONSENT_RECEIPT_TYPE, &receipt)?;
        Ok(ProvenReceipt {
            receipt: receipt.to_string(),
            proof,
        })
    }
}
