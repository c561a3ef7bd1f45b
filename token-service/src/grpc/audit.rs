//! `AuditService.TraceToken`. The other methods of `AuditService` are the same in both services.

use accord::{
    audit::v1::{AppliedAmendment, TraceTokenResponse},
    rpc::audit_service::TokenTracer,
    store::audit::EventRow,
};
use tonic::Status;

use crate::{consent::Consents, model::client::RequestOrigin};

#[tonic::async_trait]
impl TokenTracer for Consents {
    async fn trace(&self, issued: &EventRow) -> Result<TraceTokenResponse, Status> {
        let origin = Self::trace(self, issued).await?;
        let mut response = TraceTokenResponse {
            grant_id: issued.subject.clone().unwrap_or_default(),
            granted_by_user_id: origin.granted_by.map(String::from).unwrap_or_default(),
            client_id: issued.client_id.clone().map(String::from).unwrap_or_default(),
            ..Default::default()
        };
        if let Some(client) = origin.client {
            response.integration_request_id = client.registration.integration_request_id;
            response.submitted_by_operator_id = client.registration.submitted_by;
            response.approved_by_operator_id = client.registration.approved_by;
            response.amendments = client.amendments.into_iter().map(amendment).collect();
        }
        Ok(response)
    }
}

fn amendment(request: RequestOrigin) -> AppliedAmendment {
    AppliedAmendment {
        integration_request_id: request.integration_request_id,
        submitted_by_operator_id: request.submitted_by,
        approved_by_operator_id: request.approved_by,
        apply_time: Some(request.applied_at.to_timestamp()),
    }
}
