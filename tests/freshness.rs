//! What the registry ends is ended everywhere within a second, on two replicas of token-service that answer
//! from memory; and without a registry nothing is issued from memory for long.
//!
//! The bound is counted from when a revoking call returned to when the last call *began* that still got
//! something: however slow the machine is, no later call may.

use std::time::{Duration, Instant};

use accord::{
    registry::v1 as reg,
    registry::v1::tenant_service_client::TenantServiceClient,
    testing::{self, TestDatabase},
    token::v1::token_service_client::TokenServiceClient,
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
    async fn set() -> Self {
        let [registry, token] = [(); 2].map(|()| testing::postgres().unwrap_or_else(testing::sqlite));
        let services = Services::start_polling(&registry.url, &token.url, 200).await;
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
        };
        world.clients().suspend_client(request).await.unwrap();
    };
    stage.ends("client suspended", &partner, suspend).await;

    let partner = stage.connected().await;
    let revoke = async {
        let list = reg::ListClientSecretsRequest {
            client_id: partner.client_id.clone(),
            ..Default::default()
        };
        let secrets = world.clients().list_client_secrets(list).await.unwrap();
        let request = reg::RevokeClientSecretRequest {
            client_id: partner.client_id.clone(),
            secret_id: secrets.into_inner().secrets[0].secret_id.clone(),
            reason: reg::SecretRevocationReason::Rotated.into(),
            force: true,
        };
        world.clients().revoke_client_secret(request).await.unwrap();
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
        };
        world.users().deactivate_user(request).await.unwrap();
    };
    stage.ends("user deactivated", &partner, deactivate).await;
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
    for _ in 0..2 {
        stage.issues(0, &partner).await.unwrap();
    }
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
