//! What is ended is ended everywhere within a second, on two replicas of token-service that answer from
//! memory, whoever ended it; and without a registry nothing is issued from memory for long.
//!
//! The bound is counted from when a revoking call returned to when the last call *began* that still got
//! something: however slow the machine is, no later call may.

use std::time::{Duration, Instant};

use accord::{
    registry::v1 as reg,
    registry::v1::tenant_service_client::TenantServiceClient,
    testing::{self, TestDatabase},
    token::v1::{
        self as tok, signing_key_service_client::SigningKeyServiceClient,
        token_service_client::TokenServiceClient,
    },
};
use tonic::{Code, Request, transport::Channel};

use crate::harness::{
    partner::{Partner, World, own_grant},
    process::Process,
    services::Services,
};

/// After a revoking call has returned, nothing that begins this much later is issued or called active.
const BOUND: Duration = Duration::from_secs(1);
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
    /// Issues until the feed has told all that made the partner: what it tells is forgotten once more.
    async fn is_remembered(&self, partner: &Partner) {
        let begun = Instant::now();
        while begun.elapsed() < BOUND {
            self.issues(0, partner).await.unwrap();
        }
    }

    async fn set() -> Self {
        Self::set_with(&[]).await
    }

    /// With these settings of token-service beside the usual ones.
    async fn set_with(settings: &[(&'static str, &str)]) -> Self {
        let [registry, token] = [(); 2].map(|()| testing::postgres().unwrap_or_else(testing::sqlite));
        let services = Services::start_with(&registry.url, &token.url, 200, settings).await;
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

    /// Whether a replica issues for the partner's own credentials.
    async fn issues(&self, replica: usize, partner: &Partner) -> Result<String, Code> {
        let mut request = Request::new(self.world.token_request(partner, own_grant()));
        request.set_timeout(CALL);
        let answer = self.replicas[replica].clone().issue_token(request).await;
        answer
            .map(|answer| answer.into_inner().access_token)
            .map_err(|status| status.code())
    }

    /// Waits until both replicas answer from memory, then takes `away`. After the bound neither issues.
    async fn ends<F: Future<Output = ()>>(&self, what: &str, partner: &Partner, away: F) {
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
                match self.issues(replica, partner).await {
                    Ok(_) => assert!(began <= BOUND, "{what}: replica {replica} issued after {began:?}"),
                    Err(Code::Unavailable) => {}
                    Err(_) => break,
                }
                assert!(began < PATIENCE, "{what}: replica {replica} goes on");
            }
        }
    }

    async fn connected(&self) -> Partner {
        let partner = self.world.partner().await;
        self.world.first_tokens(&partner).await;
        partner
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_registry_ends_is_ended_on_every_replica_within_a_second() {
    let stage = Stage::set().await;
    let world = &stage.world;

    let partner = stage.connected().await;
    let suspend = async {
        let request = reg::SuspendClientRequest {
            client_id: partner.client_id.clone(),
            ..Default::default()
        };
        world.clients().suspend_client(request).await.unwrap();
    };
    stage.ends("client suspended", &partner, suspend).await;

    let partner = stage.connected().await;
    let revoke = async {
        let reason = reg::SecretRevocationReason::Rotated;
        world.revoke_secret(&partner, reason).await;
    };
    stage.ends("secret revoked", &partner, revoke).await;

    let partner = stage.connected().await;
    let deactivate = async {
        let tenant_id = world.target.tenant_id.clone();
        let find = reg::FindUserRequest {
            tenant_id: tenant_id.clone(),
            user: Some(reg::find_user_request::User::AccountName(
                world.target.api_user_account_name.clone(),
            )),
        };
        let user = world.users().find_user(find).await.unwrap().into_inner().user;
        let request = reg::DeactivateUserRequest {
            tenant_id,
            user_id: user.unwrap().user_id,
            ..Default::default()
        };
        world.users().deactivate_user(request).await.unwrap();
    };
    stage.ends("user deactivated", &partner, deactivate).await;
}

/// A replica's answer about a token; `None` when it can't say.
async fn is_active(stage: &Stage, replica: usize, token: &str) -> Option<bool> {
    let mut request = Request::new(tok::IntrospectTokenRequest {
        tenant_id: stage.world.target.tenant_id.clone(),
        token: token.into(),
        ..Default::default()
    });
    request.set_timeout(CALL);
    let bearer = format!("Bearer {}", stage.world.target.workload_token);
    request
        .metadata_mut()
        .insert("authorization", bearer.parse().unwrap());
    match stage.replicas[replica].clone().introspect_token(request).await {
        Ok(answer) => answer.into_inner().active,
        Err(status) if status.code() == Code::Unavailable => None,
        Err(status) => panic!("{status:?}"),
    }
}

/// After the bound no replica calls the token active; the one that ended it never did.
async fn is_over(stage: &Stage, what: &str, token: &str, returned: Instant) {
    assert_eq!(
        is_active(stage, 0, token).await,
        Some(false),
        "{what}: where it was ended"
    );
    loop {
        let began = returned.elapsed();
        match is_active(stage, 1, token).await {
            Some(false) => break,
            Some(true) => assert!(began <= BOUND, "{what}: called active after {began:?}"),
            None => {}
        }
        assert!(began < PATIENCE, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_ends_is_ended_on_every_other_within_a_second() {
    let stage = Stage::set().await;
    let world = &stage.world;

    let partner = stage.connected().await;
    let consents = world.consent_ids(&partner).await;
    let session = world.sign_in("").await;
    let token = stage.issues(1, &partner).await.unwrap();
    let revoke = async {
        let request = tok::RevokeConsentRequest {
            tenant_id: world.target.tenant_id.clone(),
            grant_id: consents[0].clone(),
            admin_session: session,
            reason: String::new(),
        };
        world.consents().revoke_consent(request).await.unwrap();
    };
    stage.ends("grant revoked", &partner, revoke).await;
    is_over(&stage, "grant revoked", &token, Instant::now()).await;

    let partner = stage.connected().await;
    let token = stage.issues(1, &partner).await.unwrap();
    assert_eq!(is_active(&stage, 1, &token).await, Some(true));
    let request = tok::RevokeTokenRequest {
        tenant_id: world.target.tenant_id.clone(),
        token: token.clone(),
        client_id: partner.client_id.clone(),
        client_authentication: Some(tok::revoke_token_request::ClientAuthentication::ClientSecret(
            partner.client_secret.clone(),
        )),
    };
    stage.replicas[0].clone().revoke_token(request).await.unwrap();
    is_over(&stage, "token revoked", &token, Instant::now()).await;

    let tokens = world.first_tokens(&partner).await;
    let token = stage.issues(1, &partner).await.unwrap();
    assert_eq!(is_active(&stage, 1, &token).await, Some(true));
    let user = world.user("another-api-user").await;
    let session = world.sign_in("").await;
    let request = tok::ChangeDesignatedUserRequest {
        tenant_id: world.target.tenant_id.clone(),
        grant_id: tokens.grant_id.clone(),
        admin_session: session,
        designated_account_name: "another-api-user".into(),
    };
    world.consents().change_designated_user(request).await.unwrap();
    let returned = Instant::now();
    is_over(&stage, "designated user changed", &token, returned).await;
    assert!(!user.is_empty());

    // Superseded by a newer consent, whose code was redeemed elsewhere.
    let token = stage.issues(1, &partner).await.unwrap();
    world.first_tokens(&partner).await;
    is_over(&stage, "superseded", &token, Instant::now()).await;

    let token = stage.issues(1, &partner).await.unwrap();
    let mut keys = SigningKeyServiceClient::new(world.token_operator.clone());
    let active = tok::ListSigningKeysRequest {
        state: tok::SigningKeyState::Active.into(),
        ..Default::default()
    };
    let active = keys.list_signing_keys(active).await.unwrap().into_inner();
    let request = tok::RevokeSigningKeyRequest {
        kid: active.signing_keys[0].kid.clone(),
        reason: "It leaked.".into(),
    };
    keys.revoke_signing_key(request).await.unwrap();
    is_over(&stage, "signing key revoked", &token, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_stale_is_issued_for_that_long_without_a_registry_and_no_longer() {
    const STALE: Duration = Duration::from_secs(3);
    let stage = Stage::set_with(&[("ACCORD_TOKEN_REGISTRY_STALE_MAX", "3")]).await;
    let partner = stage.connected().await;
    stage.is_remembered(&partner).await;
    stage.services.registry.signal("STOP");
    let stopped = Instant::now();
    let mut last = Duration::ZERO;
    loop {
        let began = stopped.elapsed();
        match stage.issues(0, &partner).await {
            Ok(_) => last = began,
            Err(_) if began > BOUND + STALE => break,
            Err(code) => assert!(began > STALE - BOUND, "{code:?} after {began:?} of staleness"),
        }
        assert!(began < PATIENCE);
    }
    assert!(
        last <= BOUND + STALE,
        "issued {last:?} after the registry stopped"
    );
    assert!(last >= STALE - BOUND, "issued for {last:?} only");
    stage.services.registry.signal("CONT");
    let continued = Instant::now();
    while stage.issues(0, &partner).await.is_err() {
        assert!(continued.elapsed() < PATIENCE, "does not come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_s_tokens_are_active_nowhere_after_a_second() {
    let stage = Stage::set().await;
    let world = &stage.world;
    let partner = stage.connected().await;
    let token = stage.issues(0, &partner).await.unwrap();
    assert!(world.active(&token).await);
    let mut tenants = TenantServiceClient::new(world.operator.clone());
    let suspend = async {
        let request = reg::SuspendTenantRequest {
            tenant_id: world.target.tenant_id.clone(),
            ..Default::default()
        };
        tenants.suspend_tenant(request).await.unwrap();
    };
    stage.ends("tenant suspended", &partner, suspend).await;
    assert!(!world.active(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_memory_lasts_for_a_lease_and_comes_back_by_itself() {
    let stage = Stage::set().await;
    let partner = stage.connected().await;
    stage.is_remembered(&partner).await;
    stage.services.registry.signal("STOP");
    let stopped = Instant::now();
    loop {
        let began = stopped.elapsed();
        match stage.issues(0, &partner).await {
            Ok(_) => assert!(began <= BOUND, "issued {began:?} after the registry stopped"),
            Err(code) => {
                assert!(
                    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled),
                    "{code:?}"
                );
                break;
            }
        }
        assert!(began < PATIENCE);
    }
    stage.services.registry.signal("CONT");
    let continued = Instant::now();
    while stage.issues(0, &partner).await.is_err() {
        assert!(continued.elapsed() < PATIENCE, "does not come back");
    }
}
