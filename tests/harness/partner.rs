//! What a partner and a Tenant Admin do in a running environment.

use accord::{
    clock::{Clock, SystemClock},
    registry::v1::{
        client_service_client::ClientServiceClient, tenant_service_client::TenantServiceClient,
        user_service_client::UserServiceClient,
    },
    rpc::channel::HopChannel,
    testing::{calls::ok, dpop::ProofKey},
    text::opaque::sha256,
    token::v1::{
        self as tok,
        consent_service_client::ConsentServiceClient,
        issue_token_request::{ClientAuthentication, Grant},
        setup_service_client::SetupServiceClient,
        signing_key_service_client::SigningKeyServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use accord_cli::{call, dev_file::DevFile};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use tonic::{Response, Status, transport::Channel};
use uuid::Uuid;

use super::refusal::{Refusal, is_refused, soon};

mod registry;

pub const REDIRECT_URI: &str = "https://app.example/callback";
pub const SCOPES: [&str; 2] = ["contacts.read", "matters.read"];

/// The channels of all callers into one environment.
#[derive(Clone)]
pub struct World {
    pub target: DevFile,
    pub operator: HopChannel,
    pub token_operator: HopChannel,
    pub workload: HopChannel,
    pub anyone: Channel,
}

/// A party whose suspension suspends a grant.
#[derive(Clone, Copy)]
pub enum Party<'a> {
    Client(&'a Partner),
    /// The environment's tenant.
    Tenant,
    /// The environment's API user.
    User,
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

/// The result of an approval.
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

/// The PKCE challenge of a verifier.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()))
}

/// The fields of a form by which a client authenticates with its key (RFC 7523 §2.2).
pub fn by_key(key: &ProofKey, partner: &Partner, authority: &str) -> [(&'static str, String); 2] {
    let now = SystemClock.now().as_secs();
    let claims = json!({
        "iss": partner.client_id,
        "sub": partner.client_id,
        "aud": authority,
        "jti": Uuid::new_v4().to_string(),
        "iat": now,
        "exp": now + 60,
    });
    let assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    [
        ("client_assertion_type", assertion_type.into()),
        ("client_assertion", key.sign(&json!({"alg": key.alg}), &claims)),
    ]
}

/// The key set of a client that authenticates by this key.
pub fn key_set(key: &ProofKey) -> String {
    let mut jwk = key.jwk.clone();
    jwk["alg"] = key.alg.into();
    json!({ "keys": [jwk] }).to_string()
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

    pub fn tenants(&self) -> TenantServiceClient<HopChannel> {
        TenantServiceClient::new(self.operator.clone())
    }

    pub fn users(&self) -> UserServiceClient<HopChannel> {
        UserServiceClient::new(self.operator.clone())
    }

    /// Revokes a token as the client.
    pub async fn revoke_token(&self, partner: &Partner, token: &str) {
        use tok::revoke_token_request::ClientAuthentication;
        let secret = ClientAuthentication::ClientSecret(partner.client_secret.clone());
        let request = tok::RevokeTokenRequest {
            tenant_id: self.target.tenant_id.clone(),
            token: token.into(),
            client_id: partner.client_id.clone(),
            client_authentication: Some(secret),
        };
        ok(self.tokens().revoke_token(request).await);
    }

    /// Revokes a consent as a Tenant Admin.
    pub async fn revoke_consent(&self, grant_id: &str) {
        let request = tok::RevokeConsentRequest {
            tenant_id: self.target.tenant_id.clone(),
            grant_id: grant_id.into(),
            admin_session: self.sign_in("").await,
            ..Default::default()
        };
        ok(self.consents().revoke_consent(request).await);
    }

    /// Changes the designated user of a consent.
    pub async fn change_designated_user(&self, grant_id: &str, account_name: &str) {
        let request = tok::ChangeDesignatedUserRequest {
            tenant_id: self.target.tenant_id.clone(),
            grant_id: grant_id.into(),
            admin_session: self.sign_in("").await,
            designated_account_name: account_name.into(),
        };
        ok(self.consents().change_designated_user(request).await);
    }

    /// Revokes the signing key of an access token.
    pub async fn revoke_key_of(&self, access_token: &str) {
        let request = tok::RevokeSigningKeyRequest {
            kid: accord::verify::key_id(access_token).unwrap(),
            reason: "It leaked.".into(),
        };
        let mut keys = SigningKeyServiceClient::new(self.token_operator.clone());
        ok(keys.revoke_signing_key(request).await);
    }

    pub fn setup_request(&self, partner: &Partner, verifier: &str) -> tok::StartSetupRequest {
        tok::StartSetupRequest {
            tenant_id: self.target.tenant_id.clone(),
            client_id: partner.client_id.clone(),
            redirect_uri: REDIRECT_URI.into(),
            state: "state-1".into(),
            code_challenge: challenge(verifier),
            ..Default::default()
        }
    }

    pub async fn start(&self, partner: &Partner) -> Started {
        let verifier = "v".repeat(43);
        let request = self.setup_request(partner, &verifier);
        let started = ok(self.setups().start_setup(request).await);
        Started {
            setup: started.setup.unwrap(),
            verifier,
        }
    }

    pub async fn sign_in(&self, setup_id: &str) -> String {
        ok(self.attempt_sign_in(setup_id).await).admin_session
    }

    /// Signs in as [`Self::sign_in`] does, where that may fail.
    pub async fn attempt_sign_in(
        &self,
        setup_id: &str,
    ) -> Result<Response<tok::SignInTenantAdminResponse>, Status> {
        let request = tok::SignInTenantAdminRequest {
            tenant_id: self.target.tenant_id.clone(),
            setup_id: setup_id.into(),
            account_name: self.target.admin_account_name.clone(),
            password: self.target.admin_password.clone(),
            ..Default::default()
        };
        self.setups().sign_in_tenant_admin(request).await
    }

    pub fn approval(&self, setup_id: &str, admin_session: &str) -> tok::ApproveSetupRequest {
        tok::ApproveSetupRequest {
            setup_id: setup_id.into(),
            admin_session: admin_session.into(),
            designated_account_name: self.target.api_user_account_name.clone(),
            ..Default::default()
        }
    }

    /// Goes through a whole setup. Returns the code.
    pub async fn approve(&self, partner: &Partner) -> Approved {
        let started = self.start(partner).await;
        let session = self.sign_in(&started.setup.setup_id).await;
        self.approve_started(started, &session).await
    }

    /// Approves a setup in this session. Returns the code.
    pub async fn approve_started(&self, started: Started, session: &str) -> Approved {
        let request = self.approval(&started.setup.setup_id, session);
        let approved = ok(self.setups().approve_setup(request).await);
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
        self.tokens().issue_token(request).await.map(Response::into_inner)
    }

    /// Lists the ids of the client's consents at the environment's tenant, newest first.
    pub async fn consent_ids(&self, partner: &Partner) -> Vec<String> {
        let request = tok::ListConsentsRequest {
            tenant_id: self.target.tenant_id.clone(),
            client_id: partner.client_id.clone(),
            ..Default::default()
        };
        let mut operators = ConsentServiceClient::new(self.token_operator.clone());
        let consents = ok(operators.list_consents(request).await).consents;
        consents.into_iter().map(|consent| consent.grant_id).collect()
    }

    /// Goes through a whole setup. Returns the first tokens.
    pub async fn first_tokens(&self, partner: &Partner) -> tok::IssueTokenResponse {
        let approved = self.approve(partner).await;
        self.issue(partner, code_grant(&approved)).await.unwrap()
    }

    /// Introspects a token as an internal service.
    pub async fn introspect(&self, token: &str) -> tok::IntrospectTokenResponse {
        let request = tok::IntrospectTokenRequest {
            tenant_id: self.target.tenant_id.clone(),
            token: token.into(),
            ..Default::default()
        };
        let mut tokens = TokenServiceClient::new(self.workload.clone());
        ok(tokens.introspect_token(request).await)
    }

    pub async fn active(&self, token: &str) -> bool {
        self.introspect(token).await.active.unwrap()
    }

    /// Waits until a token that another replica ended is inactive.
    pub async fn ends(&self, token: &str) {
        soon("a token ends", async || !self.active(token).await).await;
    }

    /// Waits until a grant is rejected for this reason.
    pub async fn is_refused(&self, partner: &Partner, grant: Grant, refusal: Refusal) {
        let attempt = async || is_refused(&self.issue(partner, grant.clone()).await, refusal);
        soon(refusal.1, attempt).await;
    }

    /// Waits until a grant yields tokens.
    pub async fn is_issued(&self, partner: &Partner, grant: Grant) -> tok::IssueTokenResponse {
        let mut issued = None;
        soon("a token is issued", async || {
            issued = self.issue(partner, grant.clone()).await.ok();
            issued.is_some()
        })
        .await;
        issued.unwrap()
    }
}
