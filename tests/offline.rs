//! A resource server that checks tokens offline: whatever ends them, it refuses them two seconds later,
//! asking another replica than the one that ended them; and when it can't know, it refuses everything.
//!
//! The bound is counted from when a revoking call returned to when the last call *began* that was still
//! let through: however slow the machine is, no later call may be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use accord::{
    clock::SystemClock,
    registry::v1 as reg,
    registry::v1::tenant_service_client::TenantServiceClient,
    testing::{self, TestDatabase},
    token::v1::{
        self as tok, consent_service_client::ConsentServiceClient, revoke_token_request,
        signing_key_service_client::SigningKeyServiceClient,
    },
    verify::{LEASE, key_id},
};
use accord_cli::resource;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    partner::{Partner, World, own_grant},
    process::Process,
    services::Services,
};

/// When a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a call of the resource may take.
const CALL: Duration = Duration::from_secs(3);

/// The services, another replica of token-service, and a resource server that asks that one.
struct Stage {
    services: Services,
    replica: Process,
    world: World,
    contacts: String,
    http: reqwest::Client,
    shutdown: CancellationToken,
    /// Gone after the processes.
    _databases: [TestDatabase; 2],
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Stage {
    async fn set() -> Self {
        let [registry, token] = [(); 2].map(|()| testing::postgres().unwrap_or_else(testing::sqlite));
        let services = Services::start_polling(&registry.url, &token.url, 200).await;
        let (replica, token_grpc) = services.another_token_service();
        let world = World::new(&services.target);
        let mut asked = services.target.clone();
        asked.token_grpc = token_grpc;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = url::Url::parse(&asked.cloud_api_url).unwrap();
        let base = base.path().trim_end_matches('/');
        let contacts = format!("http://{}{base}/contacts", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let api = resource::serve(listener, &asked, Arc::new(SystemClock), shutdown.clone());
        tokio::spawn(api.await.unwrap());
        Self {
            services,
            replica,
            world,
            contacts,
            http: reqwest::Client::builder().timeout(CALL).build().unwrap(),
            shutdown,
            _databases: [registry, token],
        }
    }

    /// The status of a call with this token.
    async fn call(&self, token: &str) -> u16 {
        let answer = self.http.get(&self.contacts).bearer_auth(token).send().await;
        answer.unwrap().status().as_u16()
    }

    /// A partner with a consent, and its first tokens.
    async fn connected(&self) -> (Partner, tok::IssueTokenResponse) {
        let partner = self.world.partner().await;
        let tokens = self.world.first_tokens(&partner).await;
        (partner, tokens)
    }

    async fn begins(&self, what: &str, token: &str) {
        let started = Instant::now();
        loop {
            match self.call(token).await {
                200 => return,
                // Newly issued, or what was revoked is not known for a moment.
                503 => assert!(started.elapsed() < PATIENCE, "{what}: never let through"),
                other => panic!("{what}: {other}"),
            }
        }
    }

    /// Waits until the token is refused for good; nothing that began after the bound is let through.
    async fn is_refused(&self, what: &str, token: &str, returned: Instant) {
        loop {
            let began = returned.elapsed();
            match self.call(token).await {
                200 => assert!(began <= LEASE, "{what}: let through after {began:?}"),
                503 => {}
                401 => return,
                other => panic!("{what}: {other}"),
            }
            assert!(began < PATIENCE, "{what}: not refused");
        }
    }

    async fn ends<F: Future<Output = ()>>(&self, what: &str, token: &str, away: F) {
        self.begins(what, token).await;
        away.await;
        self.is_refused(what, token, Instant::now()).await;
    }

    async fn revoke_token(&self, partner: &Partner, token: &str) {
        let request = tok::RevokeTokenRequest {
            tenant_id: self.world.target.tenant_id.clone(),
            token: token.to_owned(),
            client_id: partner.client_id.clone(),
            client_authentication: Some(revoke_token_request::ClientAuthentication::ClientSecret(
                partner.client_secret.clone(),
            )),
        };
        self.world.tokens().revoke_token(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_token_service_ends_a_resource_server_refuses_two_seconds_later() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let tenant_id = world.target.tenant_id.clone();

    let (partner, tokens) = stage.connected().await;
    let own = world.issue(&partner, own_grant()).await.unwrap().access_token;
    let revoke = stage.revoke_token(&partner, &tokens.access_token);
    stage.ends("token revoked", &tokens.access_token, revoke).await;
    stage.begins("another token of the client", &own).await;

    let (partner, tokens) = stage.connected().await;
    let own = world.issue(&partner, own_grant()).await.unwrap().access_token;
    let revoke = stage.revoke_token(&partner, &tokens.refresh_token);
    stage.ends("family ended", &tokens.access_token, revoke).await;
    stage.begins("a token of no family", &own).await;

    let (_, tokens) = stage.connected().await;
    let revoke = async {
        let request = tok::RevokeConsentRequest {
            tenant_id: tenant_id.clone(),
            grant_id: tokens.grant_id.clone(),
            reason: "it was tested".into(),
            ..Default::default()
        };
        let mut consents = ConsentServiceClient::new(world.token_operator.clone());
        consents.revoke_consent(request).await.unwrap();
    };
    stage.ends("consent revoked", &tokens.access_token, revoke).await;

    let (_, tokens) = stage.connected().await;
    world.user("another@firm.example").await;
    let change = async {
        let request = tok::ChangeDesignatedUserRequest {
            tenant_id: tenant_id.clone(),
            grant_id: tokens.grant_id.clone(),
            admin_session: world.sign_in("").await,
            designated_account_name: "another@firm.example".into(),
        };
        world.consents().change_designated_user(request).await.unwrap();
    };
    stage.ends("user changed", &tokens.access_token, change).await;

    let (partner, tokens) = stage.connected().await;
    let revoke = async {
        let request = tok::RevokeSigningKeyRequest {
            kid: key_id(&tokens.access_token).unwrap(),
            reason: "it was tested".into(),
        };
        let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
        keys.revoke_signing_key(request).await.unwrap();
    };
    stage.ends("key revoked", &tokens.access_token, revoke).await;
    let own = world.issue(&partner, own_grant()).await.unwrap().access_token;
    stage.begins("a token of the next key", &own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_ends_a_resource_server_refuses_two_seconds_later() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let tenant_id = world.target.tenant_id.clone();

    let (partner, tokens) = stage.connected().await;
    let client_id = partner.client_id.clone();
    let suspend = async {
        let request = reg::SuspendClientRequest {
            client_id,
            ..Default::default()
        };
        world.clients().suspend_client(request).await.unwrap();
    };
    stage
        .ends("client suspended", &tokens.access_token, suspend)
        .await;

    let (partner, tokens) = stage.connected().await;
    let narrow = async {
        let request = reg::UpdateClientRequest {
            client: Some(reg::Client {
                client_id: partner.client_id.clone(),
                scopes: vec![reg::RequestedScope {
                    name: "contacts.read".into(),
                    reason: "nothing else is needed".into(),
                }],
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["scopes".into()],
            }),
        };
        world.clients().update_client(request).await.unwrap();
    };
    stage.ends("scope taken away", &tokens.access_token, narrow).await;

    let (partner, tokens) = stage.connected().await;
    let compromised = async {
        let reason = reg::SecretRevocationReason::Compromised;
        world.revoke_secret(&partner, reason).await;
    };
    stage
        .ends("secret compromised", &tokens.access_token, compromised)
        .await;

    let (_, tokens) = stage.connected().await;
    let mut tenants = TenantServiceClient::new(world.operator.clone());
    let suspend = async {
        let tenant_id = tenant_id.clone();
        let request = reg::SuspendTenantRequest {
            tenant_id,
            ..Default::default()
        };
        tenants.suspend_tenant(request).await.unwrap();
    };
    stage
        .ends("tenant suspended", &tokens.access_token, suspend)
        .await;
    let request = reg::ReinstateTenantRequest {
        tenant_id: tenant_id.clone(),
    };
    tenants.reinstate_tenant(request).await.unwrap();

    let (_, tokens) = stage.connected().await;
    let deactivate = async {
        let find = reg::FindUserRequest {
            tenant_id: tenant_id.clone(),
            user: Some(reg::find_user_request::User::AccountName(
                world.target.api_user_account_name.clone(),
            )),
        };
        let user = world.users().find_user(find).await.unwrap().into_inner().user;
        let request = reg::DeactivateUserRequest {
            tenant_id: tenant_id.clone(),
            user_id: user.unwrap().user_id,
            ..Default::default()
        };
        world.users().deactivate_user(request).await.unwrap();
    };
    stage
        .ends("user deactivated", &tokens.access_token, deactivate)
        .await;
}

/// Stops a process; two seconds later nothing is let through. What is revoked meanwhile is refused when
/// it goes on, and what is not is let through again.
async fn nothing_is_let_through_without(stage: &Stage, what: &str, stopped: &Process, may_revoke: bool) {
    let (partner, tokens) = stage.connected().await;
    let live = world_token(stage, &partner).await;
    let revoked = tokens.access_token;
    stage.begins(what, &live).await;
    stage.begins(what, &revoked).await;
    stopped.signal("STOP");
    let since = Instant::now();
    loop {
        let began = since.elapsed();
        match stage.call(&live).await {
            200 => assert!(began <= LEASE, "{what}: let through {began:?} after it stopped"),
            503 => break,
            other => panic!("{what}: {other}"),
        }
    }
    if may_revoke {
        stage.revoke_token(&partner, &revoked).await;
    }
    assert_eq!(stage.call(&revoked).await, 503, "{what}");
    stopped.signal("CONT");
    stage.begins(what, &live).await;
    if may_revoke {
        assert_eq!(stage.call(&revoked).await, 401, "{what}");
    }
}

async fn world_token(stage: &Stage, partner: &Partner) -> String {
    stage
        .world
        .issue(partner, own_grant())
        .await
        .unwrap()
        .access_token
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_server_that_can_not_know_refuses_everything_and_recovers() {
    let stage = Stage::set().await;
    nothing_is_let_through_without(&stage, "token-service", &stage.replica, true).await;
    // Without the registry, token-service does not know either.
    nothing_is_let_through_without(&stage, "registry-service", &stage.services.registry, false).await;
}
