//! A resource server that checks tokens offline rejects them two seconds after they ended, although it polls another
//! replica than the one that ended them. While its source does not answer, it rejects everything.
//!
//! The bound runs from the return of the revoking call to the *start* of the last call that was still accepted, so it
//! holds on a slow machine too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use accord::{
    clock::SystemClock,
    registry::v1 as reg,
    testing::{self, TestDatabase},
    token::v1 as tok,
    verify::LEASE,
};
use accord_cli::resource;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{
    partner::{Partner, Party, World, own_grant},
    process::Process,
    services::Services,
};

tests!(
    a_resource_server_rejects_tokens_two_seconds_after_token_service_ends_them,
    a_resource_server_rejects_tokens_two_seconds_after_the_registry_ends_them,
    a_resource_server_without_its_source_rejects_everything_and_recovers,
);

/// How long a test waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a call of the resource may take.
const CALL: Duration = Duration::from_secs(3);

/// The services, another replica of token-service, and a resource server that polls that replica.
struct Stage {
    services: Services,
    replica: Process,
    world: World,
    contacts: String,
    http: reqwest::Client,
    shutdown: CancellationToken,
    /// Dropped after the processes.
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
        let services = Services::start(&registry.url, &token.url).await;
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

    /// Returns the status of a call with this token.
    async fn call(&self, token: &str) -> u16 {
        let answer = self.http.get(&self.contacts).bearer_auth(token).send().await;
        answer.unwrap().status().as_u16()
    }

    /// Registers a partner with a consent. Returns it with its first tokens.
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
                // The token is new, or the revocations are unknown for a moment.
                503 => assert!(started.elapsed() < PATIENCE, "{what}: never let through"),
                other => panic!("{what}: {other}"),
            }
        }
    }

    /// Waits until the token is rejected for good. Asserts that no call that began after the bound is accepted.
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
}

async fn a_resource_server_rejects_tokens_two_seconds_after_token_service_ends_them() {
    let stage = Stage::set().await;
    let world = &stage.world;

    let (partner, tokens) = stage.connected().await;
    let own = world.issue(&partner, own_grant()).await.unwrap().access_token;
    let revoke = world.revoke_token(&partner, &tokens.access_token);
    stage.ends("token revoked", &tokens.access_token, revoke).await;
    stage.begins("another token of the client", &own).await;

    let (partner, tokens) = stage.connected().await;
    let own = world.issue(&partner, own_grant()).await.unwrap().access_token;
    let revoke = world.revoke_token(&partner, &tokens.refresh_token);
    stage.ends("family ended", &tokens.access_token, revoke).await;
    stage.begins("a token of no family", &own).await;

    let (_, tokens) = stage.connected().await;
    let revoke = world.revoke_consent(&tokens.grant_id);
    stage.ends("consent revoked", &tokens.access_token, revoke).await;

    let (_, tokens) = stage.connected().await;
    world.user("another@firm.example").await;
    let change = world.change_designated_user(&tokens.grant_id, "another@firm.example");
    stage.ends("user changed", &tokens.access_token, change).await;

    let (partner, tokens) = stage.connected().await;
    let revoke = world.revoke_key_of(&tokens.access_token);
    stage.ends("key revoked", &tokens.access_token, revoke).await;
    let own = world.issue(&partner, own_grant()).await.unwrap().access_token;
    stage.begins("a token of the next key", &own).await;
}

async fn a_resource_server_rejects_tokens_two_seconds_after_the_registry_ends_them() {
    let stage = Stage::set().await;
    let world = &stage.world;

    let (partner, tokens) = stage.connected().await;
    let suspend = world.suspend(Party::Client(&partner));
    stage
        .ends("client suspended", &tokens.access_token, suspend)
        .await;

    let (partner, tokens) = stage.connected().await;
    let narrower = reg::Client {
        scopes: vec![reg::RequestedScope {
            name: "contacts.read".into(),
            reason: "because of contacts.read".into(),
        }],
        ..Default::default()
    };
    let narrow = world.update_client(&partner, narrower, &["scopes"]);
    stage.ends("scope taken away", &tokens.access_token, narrow).await;

    let (partner, tokens) = stage.connected().await;
    let compromised = world.revoke_secret(&partner, reg::SecretRevocationReason::Compromised);
    stage
        .ends("secret compromised", &tokens.access_token, compromised)
        .await;

    let (partner, tokens) = stage.connected().await;
    let suspend = world.suspend(Party::Tenant);
    stage
        .ends("tenant suspended", &tokens.access_token, suspend)
        .await;
    world.reinstate(Party::Tenant).await;
    world.is_issued(&partner, own_grant()).await;

    let (_, tokens) = stage.connected().await;
    let deactivate = world.suspend(Party::User);
    stage
        .ends("user deactivated", &tokens.access_token, deactivate)
        .await;
}

/// Stops a process; two seconds later nothing is let through. What is revoked meanwhile is refused when
/// it goes on, and what is not is let through again.
async fn nothing_is_let_through_without(stage: &Stage, what: &str, stopped: &Process, may_revoke: bool) {
    let (partner, tokens) = stage.connected().await;
    let live = stage
        .world
        .issue(&partner, own_grant())
        .await
        .unwrap()
        .access_token;
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
        stage.world.revoke_token(&partner, &revoked).await;
    }
    assert_eq!(stage.call(&revoked).await, 503, "{what}");
    stopped.signal("CONT");
    stage.begins(what, &live).await;
    if may_revoke {
        assert_eq!(stage.call(&revoked).await, 401, "{what}");
    }
}

async fn a_resource_server_without_its_source_rejects_everything_and_recovers() {
    let stage = Stage::set().await;
    nothing_is_let_through_without(&stage, "token-service", &stage.replica, true).await;
    // Without the registry, token-service does not know either.
    nothing_is_let_through_without(&stage, "registry-service", &stage.services.registry, false).await;
}
