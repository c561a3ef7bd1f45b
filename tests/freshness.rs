//! A revocation holds everywhere within a second, on two replicas of token-service that answer from memory. Without the
//! registry, tokens are issued from memory for a bounded time.
//!
//! The bound runs from the return of the revoking call to the *start* of the last call that still succeeded, so it
//! holds on a slow machine too.

use std::time::{Duration, Instant};

use accord::{
    registry::v1 as reg,
    testing::{self, TestDatabase},
    token::v1::{self as tok, token_service_client::TokenServiceClient},
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::harness::{
    partner::{Partner, Party, World, own_grant},
    process::Process,
    refusal::{BOUND, CONSENT_REQUIRED, INVALID_CLIENT, Refusal, refused},
    services::Services,
};

tests!(
    a_revocation_by_the_registry_holds_on_every_replica_within_a_second,
    a_revocation_by_one_replica_holds_on_every_other_within_a_second,
    without_the_registry_tokens_are_issued_for_the_stale_time_and_no_longer,
    without_the_registry_memory_lasts_for_a_lease_and_recovers,
);

/// How long a test waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a call may take while the registry does not answer.
const CALL: Duration = Duration::from_secs(3);

/// Two replicas, a partner and the services behind them.
struct Stage {
    services: Services,
    _replica: Process,
    world: World,
    replicas: [TokenServiceClient<Channel>; 2],
    /// Dropped after the processes.
    _databases: [TestDatabase; 2],
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(&[]).await
    }

    /// Starts everything with additional settings of token-service.
    async fn set_with(settings: &[(&'static str, &str)]) -> Self {
        let [registry, token] = [(); 2].map(|()| testing::postgres().unwrap_or_else(testing::sqlite));
        let services = Services::start_with(&registry.url, &token.url, settings).await;
        let (replica, address) = services.another_token_service();
        let world = World::new(&services.target);
        let other = accord_cli::call::open(&address).unwrap();
        Self {
            replicas: [world.tokens(), TokenServiceClient::new(other)],
            services,
            _replica: replica,
            world,
            _databases: [registry, token],
        }
    }

    /// Requests a token by client credentials from a replica.
    async fn issues(&self, replica: usize, partner: &Partner) -> Result<String, Status> {
        let mut request = Request::new(self.world.token_request(partner, own_grant()));
        request.set_timeout(CALL);
        let answer = self.replicas[replica].clone().issue_token(request).await;
        answer.map(|answer| answer.into_inner().access_token)
    }

    /// Waits until both replicas answer from memory, then takes `away`. After the bound neither issues, and
    /// both reject for this reason.
    async fn ends<F: Future<Output = ()>>(&self, what: &str, partner: &Partner, away: F, refusal: Refusal) {
        for replica in [0, 1] {
            for _ in 0..2 {
                self.issues(replica, partner).await.unwrap();
            }
        }
        away.await;
        let returned = Instant::now();
        for replica in [0, 1] {
            loop {
                let began = returned.elapsed();
                let result = self.issues(replica, partner).await;
                match &result {
                    Ok(_) => assert!(began <= BOUND, "{what}: replica {replica} issued after {began:?}"),
                    Err(status) if status.code() == Code::Unavailable => {}
                    Err(_) => {
                        refused(result, refusal);
                        break;
                    }
                }
                assert!(began < PATIENCE, "{what}: replica {replica} goes on");
            }
        }
    }

    /// Introspects a token at a replica; `None` if that fails.
    async fn is_active(&self, replica: usize, token: &str) -> Option<bool> {
        let mut request = Request::new(tok::IntrospectTokenRequest {
            tenant_id: self.world.target.tenant_id.clone(),
            token: token.into(),
            ..Default::default()
        });
        request.set_timeout(CALL);
        let bearer = format!("Bearer {}", self.world.target.workload_token);
        request
            .metadata_mut()
            .insert("authorization", bearer.parse().unwrap());
        match self.replicas[replica].clone().introspect_token(request).await {
            Ok(answer) => answer.into_inner().active,
            Err(status) if status.code() == Code::Unavailable => None,
            Err(status) => panic!("{status:?}"),
        }
    }

    /// Asserts that after the bound no replica calls the token active, and that the one that ended it never did.
    async fn is_over(&self, what: &str, token: &str, returned: Instant) {
        assert_eq!(
            self.is_active(0, token).await,
            Some(false),
            "{what}: where it was ended"
        );
        loop {
            let began = returned.elapsed();
            match self.is_active(1, token).await {
                Some(false) => break,
                Some(true) => assert!(began <= BOUND, "{what}: called active after {began:?}"),
                None => {}
            }
            assert!(began < PATIENCE, "{what}");
        }
    }

    async fn connected(&self) -> Partner {
        let partner = self.world.partner().await;
        self.world.first_tokens(&partner).await;
        partner
    }
}

async fn a_revocation_by_the_registry_holds_on_every_replica_within_a_second() {
    let stage = Stage::set().await;
    let world = &stage.world;

    let partner = stage.connected().await;
    let suspend = world.suspend(Party::Client(&partner));
    stage
        .ends("client suspended", &partner, suspend, INVALID_CLIENT)
        .await;

    let partner = stage.connected().await;
    let revoke = world.revoke_secret(&partner, reg::SecretRevocationReason::Rotated);
    stage
        .ends("secret revoked", &partner, revoke, INVALID_CLIENT)
        .await;

    let partner = stage.connected().await;
    let issued = stage.issues(0, &partner).await.unwrap();
    assert!(world.active(&issued).await);
    stage
        .ends(
            "tenant suspended",
            &partner,
            world.suspend(Party::Tenant),
            CONSENT_REQUIRED,
        )
        .await;
    assert!(!world.active(&issued).await);
    world.reinstate(Party::Tenant).await;
    world.is_issued(&partner, own_grant()).await;

    let partner = stage.connected().await;
    stage
        .ends(
            "user deactivated",
            &partner,
            world.suspend(Party::User),
            CONSENT_REQUIRED,
        )
        .await;
}

async fn a_revocation_by_one_replica_holds_on_every_other_within_a_second() {
    let stage = Stage::set().await;
    let world = &stage.world;

    let partner = stage.connected().await;
    let consents = world.consent_ids(&partner).await;
    let token = stage.issues(1, &partner).await.unwrap();
    let revoke = world.revoke_consent(&consents[0]);
    stage
        .ends("grant revoked", &partner, revoke, CONSENT_REQUIRED)
        .await;
    stage.is_over("grant revoked", &token, Instant::now()).await;

    let partner = stage.connected().await;
    let token = stage.issues(1, &partner).await.unwrap();
    assert_eq!(stage.is_active(1, &token).await, Some(true));
    world.revoke_token(&partner, &token).await;
    stage.is_over("token revoked", &token, Instant::now()).await;

    let tokens = world.first_tokens(&partner).await;
    let token = stage.issues(1, &partner).await.unwrap();
    assert_eq!(stage.is_active(1, &token).await, Some(true));
    world.user("another-api-user").await;
    world
        .change_designated_user(&tokens.grant_id, "another-api-user")
        .await;
    stage
        .is_over("designated user changed", &token, Instant::now())
        .await;

    // A newer consent, whose code another replica redeemed, supersedes it.
    let token = stage.issues(1, &partner).await.unwrap();
    world.first_tokens(&partner).await;
    stage.is_over("superseded", &token, Instant::now()).await;

    let token = stage.issues(1, &partner).await.unwrap();
    world.revoke_key_of(&token).await;
    stage.is_over("signing key revoked", &token, Instant::now()).await;
}

async fn without_the_registry_tokens_are_issued_for_the_stale_time_and_no_longer() {
    let settings = [("ACCORD_TOKEN_REGISTRY_STALE_MAX", "3")];
    memory_lasts(Stage::set_with(&settings).await, Duration::from_secs(3)).await;
}

async fn without_the_registry_memory_lasts_for_a_lease_and_recovers() {
    memory_lasts(Stage::set().await, Duration::ZERO).await;
}

/// Stops the registry: tokens are issued from memory for the stale time, and not a second longer.
async fn memory_lasts(stage: Stage, stale: Duration) {
    let partner = stage.connected().await;
    // For at most this long, the feed brings the partner's own registration, which removes it from memory.
    let begun = Instant::now();
    while begun.elapsed() < BOUND {
        stage.issues(0, &partner).await.unwrap();
    }
    stage.services.registry.signal("STOP");
    let stopped = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        let began = stopped.elapsed();
        match stage.issues(0, &partner).await {
            Ok(_) => last = began,
            Err(status) => {
                let unknown = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled];
                assert!(unknown.contains(&status.code()), "{status:?}");
                if began > BOUND + stale {
                    break;
                }
            }
        }
        assert!(began < PATIENCE);
    }
    assert!(
        last <= BOUND + stale,
        "issued {last:?} after the registry stopped"
    );
    assert!(last >= stale.saturating_sub(BOUND), "issued for {last:?} only");
    stage.services.registry.signal("CONT");
    let continued = Instant::now();
    while stage.issues(0, &partner).await.is_err() {
        assert!(continued.elapsed() < PATIENCE, "does not come back");
    }
}
