//! Rows that somebody has edited or put back who can write the database and holds no key.

use accord::{
    registry::v1::{
        self as pb, directory_service_client::DirectoryServiceClient,
        operator_service_client::OperatorServiceClient,
    },
    rpc::auth::{Role, WorkloadKind},
};
use tonic::Code;

use crate::{
    client::{client, registered, seed},
    harness::{Harness, assert_rejected, ok},
};

#[tokio::test]
async fn an_older_row_that_was_put_back_is_rejected() {
    let harness = Harness::start().await;
    seed(&harness).await;
    let (registered, secret) = registered(&harness).await;
    let client_id = registered.client_id;
    let authenticating = || pb::AuthenticateClientRequest {
        client_id: client_id.clone(),
        client_secret: secret.clone(),
    };
    let mut directory = DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService));
    ok(directory.authenticate_client(authenticating()).await);

    let suspending = || pb::SuspendClientRequest {
        client_id: client_id.clone(),
        reason: "stolen".into(),
    };
    harness.edit("CREATE TABLE older AS SELECT * FROM clients").await;
    ok(client(&harness).suspend_client(suspending()).await);
    harness
        .edit("DELETE FROM clients; INSERT INTO clients SELECT * FROM older")
        .await;
    let answer = directory.authenticate_client(authenticating()).await;
    assert_rejected(answer, Code::Internal, "INTERNAL");
    let reading = || pb::GetClientRequest {
        client_id: client_id.clone(),
    };
    assert_rejected(
        client(&harness).get_client(reading()).await,
        Code::Internal,
        "INTERNAL",
    );
    let every = pb::ListClientsRequest::default();
    let listed = client(&harness).list_clients(every).await;
    assert_rejected(listed, Code::Internal, "INTERNAL");

    // The suspension is recorded and published once more, and the row stays rejected.
    let position = || pb::ListChangesRequest::default();
    let before = ok(directory.list_changes(position()).await).position;
    let again = client(&harness).suspend_client(suspending()).await;
    assert_rejected(again, Code::Internal, "INTERNAL");
    assert_ne!(ok(directory.list_changes(position()).await).position, before);
    let events = harness.audit_events("client.suspend").await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].detail["altered"], "clients");
    assert_rejected(
        client(&harness).get_client(reading()).await,
        Code::Internal,
        "INTERNAL",
    );
}

#[tokio::test]
async fn a_row_whose_version_was_removed_is_rejected() {
    let harness = Harness::start().await;
    let operators = || OperatorServiceClient::new(harness.operator(Role::Admin));
    ok(operators()
        .list_operators(pb::ListOperatorsRequest::default())
        .await);
    harness
        .edit("DELETE FROM row_versions WHERE row_name LIKE 'callers/opr%'")
        .await;
    let answer = operators()
        .list_operators(pb::ListOperatorsRequest::default())
        .await;
    assert_rejected(answer, Code::Internal, "INTERNAL");
}
