//! What is ended is ended everywhere within a second, on two replicas of token-service that answer from
//! memory, whoever ended it; and without a registry nothing is issued from memory for long.
//!
//! The bound is counted from when a revoking call returned to when the last call *began* that still got
//! something: however slow the machine is, no later call may.

use std::time::{Duration, Instant};

use accord::{
    registry::v1 as reg,
    testing::{self, TestDatabase},
    token::v1::{self as tok, token_service_client::TokenServiceClient},
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::harness::{
    partner::{BOUND, CONSENT_REQUIRED, INVALID_CLIENT, Partner, Party, Refusal, World, own_grant, refused},
    process::Process,
    services::Services,
};

tests!(
    what_the_registry_ends_is_ended_on_every_replica_within_a_second,
    what_one_replica_ends_is_ended_on_every_other_within_a_second,
    what_may_be_stale_is_issued_for_that_long_without_a_registry_and_no_longer,
    without_a_registry_memory_lasts_for_a_lease_and_comes_back_by_itself,
);

/// When a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a call may take where the registry does not answer.
const CALL: Duration = Duration::from_secs(3);

/// Two replicas, and those at both ends.
struct Stage {
    services: Services,
    _replica: Process,
    world: World,
    replicas: [TokenServiceClient<Channel>; 2],
    /// Gone after the processes.
    _databases: [TestDatabase; 2],
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(&[]).await
    }

    /// With these settings of token-service beside the usual ones.
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

    /// What a replica answers to the partner's own credentials.
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

    /// A replica's answer about a token; `None` when it can't say.
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

    /// After the bound no replica calls the token active; the one that ended it never did.
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

async fn what_the_registry_ends_is_ended_on_every_replica_within_a_second() {
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

async fn what_one_replica_ends_is_ended_on_every_other_within_a_second() {
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

    // Superseded by a newer consent, whose code was redeemed elsewhere.
    let token = stage.issues(1, &partner).await.unwrap();
    world.first_tokens(&partner).await;
    stage.is_over("superseded", &token, Instant::now()).await;

    let token = stage.issues(1, &partner).await.unwrap();
    world.revoke_key_of(&token).await;
    stage.is_over("signing key revoked", &token, Instant::now()).await;
}

async fn what_may_be_stale_is_issued_for_that_long_without_a_registry_and_no_longer() {
    let settings = [("ACCORD_TOKEN_REGISTRY_STALE_MAX", "3")];
    memory_lasts(Stage::set_with(&settings).await, Duration::from_secs(3)).await;
}

async fn without_a_registry_memory_lasts_for_a_lease_and_comes_back_by_itself() {
    memory_lasts(Stage::set().await, Duration::ZERO).await;
}

/// Stops the registry: from memory is issued for as long as it may be stale, and not a second longer.
async fn memory_lasts(stage: Stage, stale: Duration) {
    let partner = stage.connected().await;
    // The feed tells of the partner's own making, and makes memory forget, for at most this long.
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
