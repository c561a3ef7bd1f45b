//! Who is who in these tests: two tenants with their admins, users to run as, a client that asks the
//! first tenant, and the steps from its request to its tokens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use accord::{
    audit::v1::AuditEvent,
    clock::{Clock, ManualClock},
    registry::v1::ClientProfile,
    rpc::auth::Role,
    testing::{TestDatabase, databases, sqlite},
    text::opaque::sha256,
    token::v1::{
        self as pb, consent_service_client::ConsentServiceClient, issue_token_request as issue,
        setup_service_client::SetupServiceClient, token_service_client::TokenServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::Status;

use crate::{
    fake_registry::FakeRegistry,
    harness::{CallerChannel, Harness, ok},
};

/// Every admin's password.
pub const PASSWORD: &str = "correct horse battery staple";
/// Every client's redirect URI.
pub const REDIRECT_URI: &str = "https://app.partner.example/callback";
/// The PKCE verifier of every authorization request.
pub const VERIFIER: &str = "a-verifier-of-unreserved-characters.0123456789~_";

const ADMIN_NAME: &str = "alice.admin";
const API_USER_NAME: &str = "api.user";
const SECOND_USER_NAME: &str = "second.user";
const GLOBEX_ADMIN_NAME: &str = "greta.globex";

/// The S256 challenge of a verifier.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(sha256(verifier.as_bytes()))
}

/// A client and its secret.
#[derive(Clone, Debug)]
pub struct TestClient {
    pub client_id: String,
    pub client_secret: String,
}

/// The parties, and the token-service between them.
pub struct World {
    pub client_id: String,
    pub client: TestClient,
    pub admin_id: String,
    pub api_user_id: String,
    pub second_user_id: String,
    pub issuer: String,
    pub cloud_api_url: String,
    harness: Harness,
}

impl World {
    pub async fn start() -> Self {
        Self::start_on(sqlite()).await
    }

    /// One for each kind of database.
    pub async fn start_on_all() -> Vec<Self> {
        let mut worlds = Vec::new();
        for database in databases() {
            worlds.push(Self::start_on(database).await);
        }
        worlds
    }

    async fn start_on(database: TestDatabase) -> Self {
        let harness = Harness::start_on(database).await;
        let registry = &harness.registry;
        let acme = registry.add_tenant("acme");
        registry.add_tenant("globex");
        let admin_id = registry.add_user("acme", ADMIN_NAME, PASSWORD, true);
        let api_user_id = registry.add_user("acme", API_USER_NAME, PASSWORD, false);
        let second_user_id = registry.add_user("acme", SECOND_USER_NAME, PASSWORD, false);
        registry.add_user("globex", GLOBEX_ADMIN_NAME, PASSWORD, true);
        let client = new_client(registry, &["acme"]);
        Self {
            client_id: client.client_id.clone(),
            client,
            admin_id,
            api_user_id,
            second_user_id,
            issuer: acme.tenant_authority_url,
            cloud_api_url: acme.cloud_api_url,
            harness,
        }
    }

    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.harness.clock
    }

    /// Where the HTTP face is.
    pub fn http_address(&self) -> SocketAddr {
        self.harness.http_address
    }

    pub fn registry(&self) -> &FakeRegistry {
        &self.harness.registry
    }

    pub fn admin_name(&self) -> &'static str {
        ADMIN_NAME
    }

    pub fn api_user_name(&self) -> &'static str {
        API_USER_NAME
    }

    pub fn second_user_name(&self) -> &'static str {
        SECOND_USER_NAME
    }

    pub fn globex_admin_name(&self) -> &'static str {
        GLOBEX_ADMIN_NAME
    }

    /// Adds a client that may ask these tenants.
    pub fn new_client(&self, tenant_ids: &[&str]) -> TestClient {
        new_client(self.registry(), tenant_ids)
    }

    /// Lets pages show the uses of grants so far, which are written every few seconds.
    pub async fn write_grant_uses(&self) {
        self.harness.store.write_grant_uses().await;
    }

    // Callers.

    pub fn setups(&self) -> SetupServiceClient<CallerChannel> {
        self.harness.setups()
    }

    /// `SetupService` called by another workload of the same kind.
    pub fn other_setups(&self) -> SetupServiceClient<CallerChannel> {
        self.harness.other_setups()
    }

    pub fn consents(&self) -> ConsentServiceClient<CallerChannel> {
        self.harness.consents()
    }

    /// `ConsentService` called by another workload of the same kind.
    pub fn other_consents(&self) -> ConsentServiceClient<CallerChannel> {
        self.harness.other_consents()
    }

    pub fn consents_of(&self, role: Role) -> ConsentServiceClient<CallerChannel> {
        self.harness.consents_of(role)
    }

    /// `TokenService` as a partner calls it: without a credential on the channel.
    pub fn tokens(&self) -> TokenServiceClient<CallerChannel> {
        self.harness.tokens()
    }

    /// `TokenService` as the Cloud API calls it.
    pub fn internal_tokens(&self) -> TokenServiceClient<CallerChannel> {
        self.harness.internal_tokens()
    }

    // Changes in the registry.

    pub fn change_client(&self, change: impl FnOnce(&mut ClientProfile)) {
        self.registry().edit_client(&self.client_id, change);
    }

    /// Lets the client ask this tenant and no other.
    pub fn let_client_ask(&self, tenant_id: &str) {
        self.change_client(|client| client.tenant_ids = vec![tenant_id.to_owned()]);
    }

    /// Suspends the `client` or `tenant`, or reinstates it.
    pub fn suspend(&self, resource: &str, suspended: bool) {
        match resource {
            "client" => self.registry().suspend_client(&self.client_id, suspended),
            "tenant" => self.registry().suspend_tenant("acme", suspended),
            other => panic!("{other} can't be suspended"),
        }
    }

    pub fn deactivate_api_user(&self, deactivated: bool) {
        self.registry().deactivate_user(&self.api_user_id, deactivated);
    }

    pub fn deactivate_admin(&self, deactivated: bool) {
        self.registry().deactivate_user(&self.admin_id, deactivated);
    }

    pub fn set_admin_role(&self, tenant_admin: bool) {
        self.registry().set_tenant_admin(&self.admin_id, tenant_admin);
    }

    /// What a password reset does.
    pub fn end_admin_sessions(&self) {
        self.registry().end_sessions(&self.admin_id);
    }

    pub fn start_registry_epoch(&self) {
        self.registry().start_epoch();
    }

    // The steps of a consent.

    /// The client's authorization request.
    pub fn request(&self) -> pb::StartSetupRequest {
        pb::StartSetupRequest {
            tenant_id: "acme".into(),
            client_id: self.client_id.clone(),
            redirect_uri: REDIRECT_URI.into(),
            code_challenge: challenge(VERIFIER),
            ..Default::default()
        }
    }

    pub async fn setup(&self) -> pb::Setup {
        ok(self.setups().start_setup(self.request()).await).setup.unwrap()
    }

    /// The admin's sign-in, for a setup or for none.
    pub fn credentials(&self, setup_id: &str) -> pb::SignInTenantAdminRequest {
        pb::SignInTenantAdminRequest {
            tenant_id: "acme".into(),
            setup_id: setup_id.into(),
            account_name: ADMIN_NAME.into(),
            password: PASSWORD.into(),
            ..Default::default()
        }
    }

    pub async fn sign_in(&self, setup_id: &str) -> String {
        self.sign_in_with(self.credentials(setup_id)).await
    }

    pub async fn sign_out(&self, session: &str) {
        let request = pb::SignOutTenantAdminRequest {
            admin_session: session.into(),
        };
        self.setups().sign_out_tenant_admin(request).await.unwrap();
    }

    /// A session of the admin of another tenant, `globex`.
    pub async fn sign_in_at(&self, tenant_id: &str) -> String {
        self.sign_in_with(pb::SignInTenantAdminRequest {
            tenant_id: tenant_id.into(),
            account_name: GLOBEX_ADMIN_NAME.into(),
            ..self.credentials("")
        })
        .await
    }

    async fn sign_in_with(&self, request: pb::SignInTenantAdminRequest) -> String {
        ok(self.setups().sign_in_tenant_admin(request).await).admin_session
    }

    /// An approval of all that was asked for, without an end.
    pub fn approval(&self, setup_id: &str, session: &str) -> pb::ApproveSetupRequest {
        pb::ApproveSetupRequest {
            setup_id: setup_id.into(),
            admin_session: session.into(),
            designated_account_name: API_USER_NAME.into(),
            ..Default::default()
        }
    }

    /// Goes through a setup of this client's, up to an approval that `adjust` may change.
    pub async fn approved(
        &self,
        client: &TestClient,
        adjust: impl FnOnce(&mut pb::ApproveSetupRequest),
    ) -> pb::ApproveSetupResponse {
        let request = pb::StartSetupRequest {
            client_id: client.client_id.clone(),
            ..self.request()
        };
        let setup = ok(self.setups().start_setup(request).await);
        let setup_id = setup.setup.unwrap().setup_id;
        let session = self.sign_in(&setup_id).await;
        let mut approval = self.approval(&setup_id, &session);
        adjust(&mut approval);
        ok(self.setups().approve_setup(approval).await)
    }

    /// A code of the client's, for all it may ask.
    pub async fn code(&self) -> String {
        self.approved(&self.client, |_| ()).await.authorization_code
    }

    pub async fn pending_grant(&self) -> String {
        let approved = self.approved(&self.client, |_| ()).await;
        approved.consent.unwrap().grant_id
    }

    pub async fn active_grant(&self) -> String {
        self.first_tokens().await.grant_id
    }

    pub async fn consent(&self, grant_id: &str) -> pb::Consent {
        let request = pb::GetConsentRequest {
            tenant_id: "acme".into(),
            grant_id: grant_id.into(),
            admin_session: String::new(),
        };
        ok(self.consents_of(Role::Auditor).get_consent(request).await)
            .consent
            .unwrap()
    }

    pub async fn list(&self, request: pb::ListConsentsRequest) -> Result<pb::ListConsentsResponse, Status> {
        Ok(self.consents().list_consents(request).await?.into_inner())
    }

    /// An operator revokes the consent.
    pub async fn revoke_consent(&self, grant_id: &str) {
        let request = pb::RevokeConsentRequest {
            tenant_id: "acme".into(),
            grant_id: grant_id.into(),
            admin_session: String::new(),
            reason: "test".into(),
        };
        self.consents_of(Role::Security)
            .revoke_consent(request)
            .await
            .unwrap();
    }

    /// The admin lets API transactions run as the second user.
    pub async fn change_designated_user(&self, grant_id: &str) {
        let request = pb::ChangeDesignatedUserRequest {
            tenant_id: "acme".into(),
            grant_id: grant_id.into(),
            admin_session: self.sign_in("").await,
            designated_account_name: SECOND_USER_NAME.into(),
        };
        self.consents().change_designated_user(request).await.unwrap();
    }

    /// Keys in this state.
    pub async fn signing_keys(&self, state: pb::SigningKeyState) -> Vec<pb::SigningKey> {
        let request = pb::ListSigningKeysRequest {
            state: state.into(),
            ..Default::default()
        };
        let mut keys = self.harness.signing_keys();
        ok(keys.list_signing_keys(request).await).signing_keys
    }

    /// Starts anew as after a restore from a copy.
    pub async fn restore(&self) {
        self.harness.restore().await;
    }

    /// Clears away what ended a week ago and before.
    pub async fn clear_away(&self) {
        let now = self.clock().now();
        let week = Duration::from_secs(7 * 24 * 3600);
        let hour = Duration::from_secs(3600);
        let store = &self.harness.store;
        store.clear_away(now.minus(hour), now.minus(week)).await.unwrap();
    }

    /// An operator revokes the key that signs now.
    pub async fn revoke_active_signing_key(&self) {
        let active = self.signing_keys(pb::SigningKeyState::Active).await.remove(0);
        let request = pb::RevokeSigningKeyRequest {
            kid: active.kid,
            reason: "test".into(),
        };
        let mut keys = self.harness.signing_keys();
        keys.revoke_signing_key(request).await.unwrap();
    }

    // Tokens.

    pub fn by_code(&self, code: &str) -> pb::IssueTokenRequest {
        self.client
            .asking(issue::Grant::AuthorizationCode(pb::AuthorizationCodeGrant {
                code: code.into(),
                redirect_uri: REDIRECT_URI.into(),
                code_verifier: VERIFIER.into(),
            }))
    }

    pub fn by_refresh_token(&self, refresh_token: &str) -> pb::IssueTokenRequest {
        self.client
            .asking(issue::Grant::RefreshToken(pb::RefreshTokenGrant {
                refresh_token: refresh_token.into(),
            }))
    }

    pub fn by_client_credentials(&self) -> pb::IssueTokenRequest {
        self.client
            .asking(issue::Grant::ClientCredentials(pb::ClientCredentialsGrant {}))
    }

    pub async fn issue(&self, request: pb::IssueTokenRequest) -> Result<pb::IssueTokenResponse, Status> {
        Ok(self.tokens().issue_token(request).await?.into_inner())
    }

    /// What redeeming a new code of the client's gives.
    pub async fn first_tokens(&self) -> pb::IssueTokenResponse {
        let code = self.code().await;
        self.issue(self.by_code(&code)).await.unwrap()
    }

    pub async fn refresh(&self, refresh_token: &str) -> Result<pb::IssueTokenResponse, Status> {
        self.issue(self.by_refresh_token(refresh_token)).await
    }

    /// What the Cloud API learns of a token.
    pub async fn introspect(&self, token: &str) -> pb::IntrospectTokenResponse {
        let request = pb::IntrospectTokenRequest {
            tenant_id: "acme".into(),
            token: token.into(),
            ..Default::default()
        };
        ok(self.internal_tokens().introspect_token(request).await)
    }

    pub async fn is_active(&self, token: &str) -> bool {
        let answer = self.introspect(token).await;
        let active = answer.active.expect("it is always set");
        if !active {
            let inactive = pb::IntrospectTokenResponse {
                active: Some(false),
                ..Default::default()
            };
            assert_eq!(answer, inactive, "an inactive token tells nothing");
        }
        active
    }

    /// The client ends a token of its own, or tries to.
    pub async fn revoke(&self, token: &str) -> Result<(), Status> {
        let request = self.client.revoking(token);
        self.tokens().revoke_token(request).await.map(drop)
    }

    pub async fn audit_events(&self, action: &str) -> Vec<AuditEvent> {
        self.harness.audit_events(action).await
    }
}

impl TestClient {
    /// A token request of this client's, for `acme`.
    pub fn asking(&self, grant: issue::Grant) -> pb::IssueTokenRequest {
        pb::IssueTokenRequest {
            tenant_id: "acme".into(),
            client_id: self.client_id.clone(),
            client_authentication: Some(issue::ClientAuthentication::ClientSecret(
                self.client_secret.clone(),
            )),
            grant: Some(grant),
            scopes: Vec::new(),
            resource: String::new(),
            ..Default::default()
        }
    }

    /// The same request, made by this client.
    pub fn instead(&self, request: &pb::IssueTokenRequest) -> pb::IssueTokenRequest {
        pb::IssueTokenRequest {
            tenant_id: request.tenant_id.clone(),
            ..self.asking(request.grant.clone().unwrap())
        }
    }

    pub fn revoking(&self, token: &str) -> pb::RevokeTokenRequest {
        pb::RevokeTokenRequest {
            tenant_id: "acme".into(),
            token: token.into(),
            client_id: self.client_id.clone(),
            client_authentication: Some(pb::revoke_token_request::ClientAuthentication::ClientSecret(
                self.client_secret.clone(),
            )),
        }
    }

    pub fn introspecting(&self, token: &str) -> pb::IntrospectTokenRequest {
        pb::IntrospectTokenRequest {
            tenant_id: "acme".into(),
            token: token.into(),
            client_id: self.client_id.clone(),
            client_authentication: Some(pb::introspect_token_request::ClientAuthentication::ClientSecret(
                self.client_secret.clone(),
            )),
            ..Default::default()
        }
    }
}

fn new_client(registry: &FakeRegistry, tenant_ids: &[&str]) -> TestClient {
    let scopes = ["contacts.read", "contacts.write"];
    let (client_id, client_secret) = registry.add_client(tenant_ids, &scopes, REDIRECT_URI);
    TestClient {
        client_id,
        client_secret,
    }
}
