//! What operators do at registry-service: tenants, users, clients and their secrets.

use accord::{
    registry::v1::{
        self as reg, integration_request_service_client::IntegrationRequestServiceClient,
        register_client_response::Credentials,
    },
    testing::calls::ok,
};

use super::{Partner, Party, REDIRECT_URI, SCOPES, World};

impl World {
    /// Revokes the client's newest secret, even if it was used.
    pub async fn revoke_secret(&self, partner: &Partner, reason: reg::SecretRevocationReason) {
        let list = reg::ListClientSecretsRequest {
            client_id: partner.client_id.clone(),
            ..Default::default()
        };
        let mut secrets = ok(self.clients().list_client_secrets(list).await).secrets;
        let request = reg::RevokeClientSecretRequest {
            client_id: partner.client_id.clone(),
            secret_id: secrets.remove(0).secret_id,
            reason: reason.into(),
            force: true,
        };
        ok(self.clients().revoke_client_secret(request).await);
    }

    /// Returns the id of the environment's user with this account name.
    pub async fn user_id(&self, account_name: &str) -> String {
        let request = reg::FindUserRequest {
            tenant_id: self.target.tenant_id.clone(),
            user: Some(reg::find_user_request::User::AccountName(account_name.into())),
        };
        ok(self.users().find_user(request).await).user.unwrap().user_id
    }

    /// Suspends or deactivates a party of every grant.
    pub async fn suspend(&self, party: Party<'_>) {
        let tenant_id = self.target.tenant_id.clone();
        match party {
            Party::Client(partner) => {
                let client_id = partner.client_id.clone();
                let request = reg::SuspendClientRequest {
                    client_id,
                    reason: "a test".into(),
                };
                ok(self.clients().suspend_client(request).await);
            }
            Party::Tenant => {
                let request = reg::SuspendTenantRequest {
                    tenant_id,
                    reason: "a test".into(),
                };
                ok(self.tenants().suspend_tenant(request).await);
            }
            Party::User => {
                let user_id = self.user_id(&self.target.api_user_account_name).await;
                let request = reg::DeactivateUserRequest {
                    tenant_id,
                    user_id,
                    reason: "a test".into(),
                };
                ok(self.users().deactivate_user(request).await);
            }
        }
    }

    /// The opposite of [`Self::suspend`].
    pub async fn reinstate(&self, party: Party<'_>) {
        let tenant_id = self.target.tenant_id.clone();
        match party {
            Party::Client(partner) => {
                let client_id = partner.client_id.clone();
                let request = reg::ReinstateClientRequest { client_id };
                ok(self.clients().reinstate_client(request).await);
            }
            Party::Tenant => {
                let request = reg::ReinstateTenantRequest { tenant_id };
                ok(self.tenants().reinstate_tenant(request).await);
            }
            Party::User => {
                let user_id = self.user_id(&self.target.api_user_account_name).await;
                let request = reg::ReactivateUserRequest { tenant_id, user_id };
                ok(self.users().reactivate_user(request).await);
            }
        }
    }

    /// Leaves the client less in these fields.
    pub async fn update_client(&self, partner: &Partner, client: reg::Client, paths: &[&str]) {
        let request = reg::UpdateClientRequest {
            client: Some(reg::Client {
                client_id: partner.client_id.clone(),
                ..client
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: paths.iter().map(|path| (*path).into()).collect(),
            }),
        };
        ok(self.clients().update_client(request).await);
    }

    /// Adds this to the client, by an integration request that names it.
    pub async fn amend_client(&self, partner: &Partner, additions: reg::SubmitIntegrationRequestRequest) {
        let integration_request_id = self
            .approved(reg::SubmitIntegrationRequestRequest {
                client_id: partner.client_id.clone(),
                ..additions
            })
            .await;
        let request = reg::AmendClientRequest {
            integration_request_id,
        };
        ok(self.clients().amend_client(request).await);
    }

    /// Registers these public keys of the client.
    pub async fn add_keys(&self, partner: &Partner, json_web_key_set: String) {
        let additions = reg::SubmitIntegrationRequestRequest {
            json_web_key_set,
            ..Default::default()
        };
        self.amend_client(partner, additions).await;
    }

    /// Submits and approves a request. Returns its id.
    async fn approved(&self, request: reg::SubmitIntegrationRequestRequest) -> String {
        let mut requests = IntegrationRequestServiceClient::new(self.operator.clone());
        let submitted = ok(requests.submit_integration_request(request).await);
        let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
        let request = reg::ApproveIntegrationRequestRequest {
            integration_request_id: integration_request_id.clone(),
        };
        requests.approve_integration_request(request).await.unwrap();
        integration_request_id
    }

    /// Registers a client of the environment's tenant.
    pub async fn partner(&self) -> Partner {
        self.partner_of(&[&self.target.tenant_id]).await
    }

    /// Registers a client of these tenants.
    pub async fn partner_of(&self, tenant_ids: &[&str]) -> Partner {
        self.partner_at(tenant_ids, REDIRECT_URI).await
    }

    /// Registers a client of these tenants, whose only redirect URI is this one.
    pub async fn partner_at(&self, tenant_ids: &[&str], redirect_uri: &str) -> Partner {
        let request = reg::SubmitIntegrationRequestRequest {
            tenant_ids: tenant_ids.iter().map(|id| (*id).into()).collect(),
            redirect_uris: vec![redirect_uri.into()],
            ..Default::default()
        };
        self.partner_with(request).await
    }

    /// Registers a client of the environment's tenant from a request with these fields. Its texts, scopes and what else it lacks
    /// are those of [`partner`](Self::partner).
    pub async fn partner_with(&self, mut request: reg::SubmitIntegrationRequestRequest) -> Partner {
        let scope = |name: &str| reg::RequestedScope {
            name: name.into(),
            reason: format!("because of {name}"),
        };
        request.partner_name = "Partner".into();
        request.display_name = "Integration".into();
        request.contact_email = "dev@partner.example".into();
        request.goals = "To be tested.".into();
        request.scopes = SCOPES.map(scope).into();
        if request.tenant_ids.is_empty() {
            request.tenant_ids = vec![self.target.tenant_id.clone()];
        }
        if request.redirect_uris.is_empty() {
            request.redirect_uris = vec![REDIRECT_URI.into()];
        }
        let integration_request_id = self.approved(request).await;
        let request = reg::RegisterClientRequest {
            integration_request_id,
            ..Default::default()
        };
        let registered = ok(self.clients().register_client(request).await);
        let Some(Credentials::Bundle(bundle)) = registered.credentials else {
            panic!("no bundle");
        };
        Partner {
            client_id: bundle.client_id,
            client_secret: bundle.client_secret,
        }
    }

    /// Adds a tenant beside the environment's.
    pub async fn add_tenant(&self, tenant_id: &str) {
        let request = reg::CreateTenantRequest {
            tenant_id: tenant_id.into(),
            display_name: "Other".into(),
            cloud_api_url: "https://api.other.example".into(),
            ..Default::default()
        };
        ok(self.tenants().create_tenant(request).await);
    }

    /// Registers a user of the environment's tenant. Returns the id.
    pub async fn user(&self, account_name: &str) -> String {
        let request = reg::RegisterUserRequest {
            tenant_id: self.target.tenant_id.clone(),
            account_name: account_name.into(),
            label: "Another user".into(),
            ..Default::default()
        };
        let registered = ok(self.users().register_user(request).await);
        registered.user.unwrap().user_id
    }
}
