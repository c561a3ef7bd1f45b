//! A partner and a Tenant Admin, as tests play them, against a running environment.

use accord::{
    registry::v1::{
        self as reg, client_service_client::ClientServiceClient,
        integration_request_service_client::IntegrationRequestServiceClient,
        register_client_response::Credentials, tenant_service_client::TenantServiceClient,
        user_service_client::UserServiceClient,
    },
    rpc::channel::HopChannel,
    text::opaque::sha256,
    token::v1::{
        self as tok,
        consent_service_client::ConsentServiceClient,
        issue_token_request::{ClientAuthentication, Grant},
        setup_service_client::SetupServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use accord_cli::{call, dev_file::DevFile};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::{Status, transport::Channel};

pub const REDIRECT_URI: &str = "https://app.example/callback";
pub const SCOPES: [&str; 2] = ["contacts.read", "matters.read"];

/// Everybody's channels into one environment.
#[derive(Clone)]
pub struct World {
    pub target: DevFile,
    pub operator: HopChannel,
    pub token_operator: HopChannel,
    pub workload: HopChannel,
    pub anyone: Channel,
}

/// A registered client.
#[derive(Clone)]
pub struct Partner {
    pub client_id: String,
    pub client_secret: String,
}

/// A PKCE pair and the setup that was started with it.
#[derive(Clone)]
pub struct Started {
    pub setup: tok::Setup,
    pub verifier: String,
}

/// What an approval gave.
#[derive(Clone)]
pub struct Approved {
    pub grant_id: String,
    pub code: String,
    pub verifier: String,
}

pub fn code_grant(approved: &Approved) -> Grant {
    Grant::AuthorizationCode(tok::AuthorizationCodeGrant {
        code: approved.code.clone(),
        redirect_uri: REDIRECT_URI.into(),
        code_verifier: approved.verifier.clone(),
    })
}

pub fn refresh_grant(refresh_token: &str) -> Grant {
    Grant::RefreshToken(tok::RefreshTokenGrant {
        refresh_token: refresh_token.into(),
    })
}

pub fn own_grant() -> Grant {
    Grant::ClientCredentials(tok::ClientCredentialsGrant {})
}

impl World {
    pub fn new(target: &DevFile) -> Self {
        Self {
            operator: call::with_token(&target.registry_grpc, &target.operator_token).unwrap(),
            token_operator: call::with_token(&target.token_grpc, &target.operator_token).unwrap(),
            workload: call::with_token(&target.token_grpc, &target.workload_token).unwrap(),
            anyone: call::open(&target.token_grpc).unwrap(),
            target: target.clone(),
        }
    }

    pub fn setups(&self) -> SetupServiceClient<HopChannel> {
        SetupServiceClient::new(self.workload.clone())
    }

    pub fn consents(&self) -> ConsentServiceClient<HopChannel> {
        ConsentServiceClient::new(self.workload.clone())
    }

    pub fn tokens(&self) -> TokenServiceClient<Channel> {
        TokenServiceClient::new(self.anyone.clone())
    }

    pub fn clients(&self) -> ClientServiceClient<HopChannel> {
        ClientServiceClient::new(self.operator.clone())
    }

    pub fn users(&self) -> UserServiceClient<HopChannel> {
        UserServiceClient::new(self.operator.clone())
    }

    /// Ends the client's newest secret, also if it was used.
    pub async fn revoke_secret(&self, partner: &Partner, reason: reg::SecretRevocationReason) {
        let list = reg::ListClientSecretsRequest {
            client_id: partner.client_id.clone(),
            ..Default::default()
        };
        let secrets = self.clients().list_client_secrets(list).await.unwrap();
        let request = reg::RevokeClientSecretRequest {
            client_id: partner.client_id.clone(),
            secret_id: secrets.into_inner().secrets[0].secret_id.clone(),
            reason: reason.into(),
            force: true,
        };
        self.clients().revoke_client_secret(request).await.unwrap();
    }

    /// Registers a client of the environment's tenant.
    pub async fn partner(&self) -> Partner {
        self.partner_of(&[&self.target.tenant_id]).await
    }

    /// Registers a client of these tenants.
    pub async fn partner_of(&self, tenant_ids: &[&str]) -> Partner {
        let mut requests = IntegrationRequestServiceClient::new(self.operator.clone());
        let scope = |name: &str| reg::RequestedScope {
            name: name.into(),
            reason: format!("because of {name}"),
        };
        let request = reg::SubmitIntegrationRequestRequest {
            partner_name: "Partner".into(),
            display_name: "Integration".into(),
            contact_email: "dev@partner.example".into(),
            goals: "To be tested.".into(),
            tenant_ids: tenant_ids.iter().map(|id| (*id).into()).collect(),
            scopes: SCOPES.map(scope).into(),
            redirect_uris: vec![REDIRECT_URI.into()],
            ..Default::default()
        };
        let submitted = requests
            .submit_integration_request(request)
            .await
            .unwrap()
            .into_inner();
        let integration_request_id = submitted.integration_request.unwrap().integration_request_id;
        let request = reg::ApproveIntegrationRequestRequest {
            integration_request_id: integration_request_id.clone(),
        };
        requests.approve_integration_request(request).await.unwrap();
        let request = reg::RegisterClientRequest {
            integration_request_id,
            ..Default::default()
        };
        let registered = self
            .clients()
            .register_client(request)
            .await
            .unwrap()
            .into_inner();
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
        let mut tenants = TenantServiceClient::new(self.operator.clone());
        tenants.create_tenant(request).await.unwrap();
    }

    /// Adds a user of the environment's tenant; answers the id.
    pub async fn user(&self, account_name: &str) -> String {
        let request = reg::RegisterUserRequest {
            tenant_id: self.target.tenant_id.clone(),
            account_name: account_name.into(),
            label: "Another user".into(),
            ..Default::default()
        };
        let registered = self.users().register_user(request).await.unwrap().into_inner();
        registered.user.unwrap().user_id
    }

    pub fn setup_request(&self, partner: &Partner, verifier: &str) -> tok::StartSetupRequest {
        tok::StartSetupRequest {
            tenant_id: self.target.tenant_id.clone(),
            client_id: partner.client_id.clone(),
            redirect_uri: REDIRECT_URI.into(),
            state: "state-1".into(),
            code_challenge: URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes())),
            ..Default::default()
        }
    }

    pub async fn start(&self, partner: &Partner) -> Started {
        let verifier = "v".repeat(43);
        let request = self.setup_request(partner, &verifier);
        let started = self.setups().start_setup(request).await.unwrap().into_inner();
        Started {
            setup: started.setup.unwrap(),
            verifier,
        }
    }

    pub async fn sign_in(&self, setup_id: &str) -> String {
        let request = tok::SignInTenantAdminRequest {
            tenant_id: self.target.tenant_id.clone(),
            setup_id: setup_id.into(),
            account_name: self.target.admin_account_name.clone(),
            password: self.target.admin_password.clone(),
            ..Default::default()
        };
        self.setups()
            .sign_in_tenant_admin(request)
            .await
            .unwrap()
            .into_inner()
            .admin_session
    }

    pub fn approval(&self, setup_id: &str, admin_session: &str) -> tok::ApproveSetupRequest {
        tok::ApproveSetupRequest {
            setup_id: setup_id.into(),
            admin_session: admin_session.into(),
            designated_account_name: self.target.api_user_account_name.clone(),
            ..Default::default()
        }
    }

    /// A whole setup up to the code.
    pub async fn approve(&self, partner: &Partner) -> Approved {
        let started = self.start(partner).await;
        let session = self.sign_in(&started.setup.setup_id).await;
        let request = self.approval(&started.setup.setup_id, &session);
        let approved = self.setups().approve_setup(request).await.unwrap().into_inner();
        Approved {
            grant_id: approved.consent.unwrap().grant_id,
            code: approved.authorization_code,
            verifier: started.verifier,
        }
    }

    pub fn token_request(&self, partner: &Partner, grant: Grant) -> tok::IssueTokenRequest {
        tok::IssueTokenRequest {
            tenant_id: self.target.tenant_id.clone(),
            client_id: partner.client_id.clone(),
            client_authentication: Some(ClientAuthentication::ClientSecret(partner.client_secret.clone())),
            grant: Some(grant),
            ..Default::default()
        }
    }

    pub async fn issue(&self, partner: &Partner, grant: Grant) -> Result<tok::IssueTokenResponse, Status> {
        let request = self.token_request(partner, grant);
        self.tokens()
            .issue_token(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// The ids of the client's consents at the environment's tenant, newest first.
    pub async fn consent_ids(&self, partner: &Partner) -> Vec<String> {
        let request = tok::ListConsentsRequest {
            tenant_id: self.target.tenant_id.clone(),
            client_id: partner.client_id.clone(),
            ..Default::default()
        };
        let mut operators = ConsentServiceClient::new(self.token_operator.clone());
        let consents = operators
            .list_consents(request)
            .await
            .unwrap()
            .into_inner()
            .consents;
        consents.into_iter().map(|consent| consent.grant_id).collect()
    }

    /// A whole setup up to the first tokens.
    pub async fn first_tokens(&self, partner: &Partner) -> tok::IssueTokenResponse {
        let approved = self.approve(partner).await;
        self.issue(partner, code_grant(&approved)).await.unwrap()
    }

    /// What an internal service is told of a token.
    pub async fn introspect(&self, token: &str) -> tok::IntrospectTokenResponse {
        let request = tok::IntrospectTokenRequest {
            tenant_id: self.target.tenant_id.clone(),
            token: token.into(),
            ..Default::default()
        };
        let mut tokens = TokenServiceClient::new(self.workload.clone());
        tokens.introspect_token(request).await.unwrap().into_inner()
    }

    pub async fn active(&self, token: &str) -> bool {
        self.introspect(token).await.active.unwrap()
    }
}

/// Checks code and reason of a refusal.
#[track_caller]
pub fn assert_refused<T>(
    result: Result<T, Status>,
    code: tonic::Code,
    reason: accord::rpc::status::ErrorReason,
) {
    let status = match result {
        Ok(_) => panic!("not refused"),
        Err(status) => status,
    };
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(
        accord::rpc::status::reason_of(&status),
        Some(reason),
        "{status:?}"
    );
}

/// The fields of a refusal's violations.
#[track_caller]
pub fn violations<T>(result: Result<T, Status>) -> Vec<String> {
    use tonic_types::StatusExt;
    let status = result.err().expect("not refused");
    let details = status
        .get_details_bad_request()
        .unwrap_or_else(|| panic!("no details: {status:?}"));
    details
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

/// `ErrorInfo.metadata` of a refusal, by name.
#[track_caller]
pub fn metadata<T>(result: Result<T, Status>, name: &str) -> String {
    use tonic_types::StatusExt;
    let status = result.err().expect("not refused");
    status
        .get_details_error_info()
        .unwrap()
        .metadata
        .get(name)
        .cloned()
        .unwrap_or_default()
}
