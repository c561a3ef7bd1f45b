//! Calls of all kinds, as a platform with many clients makes them: most are for tokens by client credentials, and in every
//! thousand there are 20 renewals, 10 revocations and one registration, the first of each soon.

use std::sync::Arc;

use accord::{
    registry::v1::{
        ApproveIntegrationRequestRequest, RegisterClientRequest, RequestedScope,
        SubmitIntegrationRequestRequest, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
    },
    rpc::channel::HopChannel,
};
use tonic::Status;

use super::{
    Calls, Credentials, Failure,
    grpc::{Clients, Family, failure},
    pick,
};
use crate::bare::SCOPE;

pub struct Mixed {
    pub clients: Clients,
    pub credentials: Arc<[Credentials]>,
    pub families: Vec<Family>,
    /// To registry-service.
    pub operator: HopChannel,
}

impl Mixed {
    /// Takes a request in, approves it, and registers its client.
    async fn register(&self) -> Result<(), Status> {
        let scope = |name: &str| RequestedScope {
            name: name.to_owned(),
            reason: "Shown where it is worked with.".to_owned(),
        };
        let submitted = SubmitIntegrationRequestRequest {
            partner_name: "Integrations Ltd".to_owned(),
            contact_email: "dev@partner.example".to_owned(),
            goals: "Keep contacts and matters in step with the partner's product.".to_owned(),
            tenant_ids: vec![pick(&self.credentials).tenant_id.clone()],
            scopes: SCOPE.split(' ').map(scope).collect(),
            redirect_uris: vec!["https://integration.example/oauth/callback".to_owned()],
            ..Default::default()
        };
        let mut requests = IntegrationRequestServiceClient::new(self.operator.clone());
        let submitted = requests.submit_integration_request(submitted).await?.into_inner();
        let submitted = submitted.integration_request.unwrap_or_default();
        let integration_request_id = submitted.integration_request_id;
        let approved = ApproveIntegrationRequestRequest {
            integration_request_id: integration_request_id.clone(),
        };
        requests.approve_integration_request(approved).await?;
        let registered = RegisterClientRequest {
            request_id: uuid::Uuid::new_v4().to_string(),
            integration_request_id,
            ..Default::default()
        };
        let mut clients = ClientServiceClient::new(self.operator.clone());
        clients.register_client(registered).await.map(drop)
    }
}

#[tonic::async_trait]
impl Calls for Mixed {
    async fn call(&self, number: usize) -> Result<(), Failure> {
        if number % 1_000 == 7 {
            return self.register().await.map_err(failure);
        }
        if number % 50 == 1 {
            let family = &self.families[number / 50 % self.families.len()];
            return family.renew(&self.clients, number).await;
        }
        let client = pick(&self.credentials);
        let token = self.clients.issue_for(number, client).await?;
        if number % 100 == 2 {
            self.clients.revoke(number, client, token).await?;
        }
        Ok(())
    }
}
