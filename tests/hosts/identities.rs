//! Whom a certificate identifies, at every replica: its name may leave the list of callers, and return on another one.

use std::time::{Duration, Instant};

use accord::{
    registry::v1::{
        CreateWorkloadRequest, ListWorkloadsRequest, RevokeWorkloadRequest, WorkloadKind,
        operator_service_client::OperatorServiceClient,
    },
    rpc::channel::HopChannel,
    testing::calls::ok,
    token::v1::{ListRevocationsRequest, token_service_client::TokenServiceClient},
    verify::LEASE,
};
use reqwest::{Client, StatusCode};
use tokio::time::{sleep, timeout};
use tonic::Code;

use super::installation::Installation;

/// The name in the certificate of the resource server.
const NAME: &str = "spiffe://accord.example/internal-service";
/// How soon another list counts at every replica.
const BOUND: Duration = Duration::from_secs(1);

/// Revokes the resource server, makes its name that of a gateway, and then a resource server's again. `token` is active.
pub async fn follow_the_list(installation: &Installation, client: &Client, token: &str) {
    let world = installation.world();
    let mut operators = OperatorServiceClient::new(world.operator.clone());
    let check = async || {
        let request = installation.resource_server.get(client, token);
        request.send().await.unwrap().status()
    };
    answer(installation, Code::Ok).await;
    assert_eq!(check().await, StatusCode::OK);

    revoke(&mut operators).await;
    answer(installation, Code::Unauthenticated).await;
    sleep(LEASE).await;
    assert_eq!(check().await, StatusCode::SERVICE_UNAVAILABLE);

    create(&mut operators, WorkloadKind::Gateway).await;
    answer(installation, Code::PermissionDenied).await;
    assert_eq!(check().await, StatusCode::SERVICE_UNAVAILABLE);

    revoke(&mut operators).await;
    create(&mut operators, WorkloadKind::InternalService).await;
    answer(installation, Code::Ok).await;
    let is_back = async {
        while check().await != StatusCode::OK {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(2 * LEASE, is_back).await.unwrap();
}

async fn revoke(operators: &mut OperatorServiceClient<HopChannel>) {
    let listed = ok(operators.list_workloads(ListWorkloadsRequest::default()).await);
    let mut workloads = listed.workloads.into_iter();
    let own = workloads.find(|workload| workload.certificate_name == NAME && workload.revoke_time.is_none());
    let request = RevokeWorkloadRequest {
        workload_id: own.unwrap().workload_id,
        reason: "a test".into(),
    };
    ok(operators.revoke_workload(request).await);
}

async fn create(operators: &mut OperatorServiceClient<HopChannel>, kind: WorkloadKind) {
    let request = CreateWorkloadRequest {
        name: "of-another-kind".into(),
        kind: kind.into(),
        certificate_name: NAME.into(),
        ..Default::default()
    };
    ok(operators.create_workload(request).await);
}

/// Waits until every replica answers a call with the certificate in this way.
async fn answer(installation: &Installation, expected: Code) {
    let changed = Instant::now();
    for node in &installation.tokens {
        let mut tokens = TokenServiceClient::new(installation.replica(node));
        loop {
            let is_late = changed.elapsed() > BOUND;
            let answer = tokens.list_revocations(ListRevocationsRequest::default()).await;
            let code = answer.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok);
            if code == expected {
                break;
            }
            assert!(!is_late, "{}: {answer:?}, not {expected:?}", node.host.name);
            sleep(Duration::from_millis(20)).await;
        }
    }
}
