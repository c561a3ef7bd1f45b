//! The parties of these tests: two tenants with their admins, users to run as, a client of the first tenant, and the
//! steps from its request to its tokens.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use accord::{
    audit::v1::AuditEvent,
    clock::{Clock, ManualClock},
    registry::v1::ClientProfile,
    rpc::auth::Role,
    testing::{TestDatabase, databases, dpop::use_up_room, sqlite},
    text::opaque::sha256,
    token::v1::{
        self as pb, consent_service_client::ConsentServiceClient, setup_service_client::SetupServiceClient,
        signing_key_service_client::SigningKeyServiceClient, token_service_client::TokenServiceClient,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use token_service::{config::Settings, registry::epochs::SILENCE};
use tonic::Status;

use crate::{
    fake_registry::FakeRegistry,
    harness::{CallerChannel, Harness, ok},
};

pub mod tls;
mod tokens;

pub use tokens::confirmation;

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

    /// Starts a world on each kind of database.
    pub async fn start_on_all() -> Vec<Self> {
        let mut worlds = Vec::new();
        for database in databases() {
            worlds.push(Self::start_on(database).await);
        }
        worlds
    }

    /// Starts a world on an empty database.
    pub async fn start_on(database: TestDatabase) -> Self {
        Self::start_in(Harness::start_on(database).await)
    }

    /// Starts a world with other settings.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_in(Harness::start_with(sqlite(), change).await)
    }

    fn start_in(harness: Harness) -> Self {
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

    pub fn harness(&self) -> &Harness {
        &self.harness
    }

    pub fn clock(&self) -> &Arc<ManualClock> {
        &self.harness.clock
    }

    /// The address of the HTTP endpoints.
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

    /// Adds a client that is registered for these tenants.
    pub fn new_client(&self, tenant_ids: &[&str]) -> TestClient {
        new_client(self.registry(), tenant_ids)
    }

    /// Waits until the usage of grants so far is summed up and written.
    pub async fn usage_written(&self) {
        self.harness.usage_written().await;
    }

    /// See [`Harness::hide_audit_record`].
    pub async fn hide_audit_record(&self) {
        self.harness.hide_audit_record().await;
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

    /// Registers the client for this tenant and no other.
    pub fn set_client_tenant(&self, tenant_id: &str) {
        self.registry().set_client_tenants(&self.client_id, &[tenant_id]);
    }

    /// Adds a scope to the client, which did not have it.
    pub fn add_client_scope(&self, name: &str) {
        self.registry().add_client_scope(&self.client_id, name);
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

    /// Ends the admin's sessions, as a password reset does.
    pub fn end_admin_sessions(&self) {
        self.registry().end_sessions(&self.admin_id);
    }

    /// Starts a new epoch, as a restored database does, after the old one was silent for long enough.
    pub fn start_registry_epoch(&self) {
        tokio::time::pause();
        // Time moves at the first poll.
        tokio::time::advance(SILENCE).now_or_never();
        tokio::time::resume();
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

    /// An approval of all scopes requested, without an end.
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

    /// A code of the client, for all its scopes.
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

    /// `SigningKeyService` as an operator calls it.
    pub fn signing_key_service(&self) -> SigningKeyServiceClient<CallerChannel> {
        self.harness.signing_keys()
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

    /// Starts again as after a restore from a copy.
    pub async fn restore(&self) {
        self.harness.restore().await;
    }

    /// Clears away what ended a week ago and before.
    pub async fn delete_ended_rows(&self) {
        let now = self.clock().now();
        let week = Duration::from_secs(7 * 24 * 3600);
        let hour = Duration::from_secs(3600);
        let store = &self.harness.store;
        store
            .delete_ended_rows(now.minus(hour), now.minus(week))
            .await
            .unwrap();
    }

    /// Uses up the room for the proofs of this owner that are made now, in each part of the memory of used proofs.
    pub fn fill_proofs(&self, owner: &str) {
        let (now, dpop) = (self.clock().now(), &self.harness.server.oauth().dpop);
        use_up_room(now.as_secs(), |proof| dpop.spend(owner, proof, now).is_ok());
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

    pub async fn audit_events(&self, action: &str) -> Vec<AuditEvent> {
        self.harness.audit_events(action).await
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
