//! The registration of clients.

use accord::{
    registry::v1::{self as pb, DeliveryMethod, register_client_response::Credentials},
    testing::databases,
};
use tonic::Code;

use super::{
    UNKNOWN_REQUEST, client, count, integration_request, register, registered, secrets, seed, seeded,
};
use crate::harness::{Harness, assert_rejected, assert_violations, request_id};

#[tokio::test]
async fn a_repeated_registration_returns_the_same_credentials() {
    let harness = seeded().await;
    for delivery in [DeliveryMethod::Inline, DeliveryMethod::Link] {
        let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
        let call = pb::RegisterClientRequest {
            request_id: request_id(),
            ..register(&approved.integration_request_id, delivery)
        };
        let first = client(&harness).register_client(call.clone()).await.unwrap();
        let second = client(&harness).register_client(call.clone()).await.unwrap();
        let first = first.into_inner();
        assert_eq!(first, second.into_inner());
        assert_eq!(
            matches!(first.credentials, Some(Credentials::DeliveryLink(_))),
            delivery == DeliveryMethod::Link
        );
        assert_eq!(secrets(&harness, &first.client.unwrap().client_id).await.len(), 1);
        let other = pb::RegisterClientRequest {
            integration_request_id: UNKNOWN_REQUEST.into(),
            ..call
        };
        let reused = client(&harness).register_client(other).await;
        assert_rejected(reused, Code::AlreadyExists, "REQUEST_ID_REUSED");
    }
    assert_eq!(count(&harness).await, 2);
    assert_eq!(harness.audit_events("client.register").await.len(), 2);
}

#[tokio::test]
async fn only_an_approved_request_is_registered() {
    let harness = seeded().await;
    let submitted = harness.submitted_request(&["acme"], &["contacts.read"]).await;
    let inline = |id: &str| register(id, DeliveryMethod::Inline);
    let early = client(&harness)
        .register_client(inline(&submitted.integration_request_id))
        .await;
    let metadata = assert_rejected(early, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(
        (metadata["resource"].as_str(), metadata["state"].as_str()),
        ("integration_request", "SUBMITTED")
    );
    let (created, _) = registered(&harness).await;
    let again = client(&harness)
        .register_client(inline(&created.integration_request_id))
        .await;
    let metadata = assert_rejected(again, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "REGISTERED");
    let unknown = client(&harness).register_client(inline(UNKNOWN_REQUEST)).await;
    let metadata = assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    assert_eq!(metadata["resource"], "integration_request");
    let malformed = pb::RegisterClientRequest {
        request_id: "1".into(),
        integration_request_id: "1".into(),
        delivery: 9,
    };
    let fields = ["request_id", "integration_request_id", "delivery"];
    assert_violations(client(&harness).register_client(malformed).await, &fields);
    assert_eq!(count(&harness).await, 1);
    assert_eq!(harness.audit_events("client.register").await.len(), 1);
    let unchanged = integration_request(&harness, &submitted.integration_request_id).await;
    assert_eq!(unchanged, submitted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_registrations_one_wins() {
    for database in databases() {
        let label = database.label;
        let harness = Harness::start_on(database).await;
        seed(&harness).await;
        let approved = harness.approved_request(&["acme"], &["contacts.read"]).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut client = client(&harness);
            let call = register(&approved.integration_request_id, DeliveryMethod::Inline);
            calls.spawn(async move { client.register_client(call).await });
        }
        let mut winners = 0;
        for result in calls.join_all().await {
            if result.is_ok() {
                winners += 1;
            } else {
                let metadata = assert_rejected(result, Code::FailedPrecondition, "WRONG_STATE");
                assert_eq!(metadata["state"], "REGISTERED", "{label}");
            }
        }
        assert_eq!((winners, count(&harness).await), (1, 1), "{label}");
        assert_eq!(harness.audit_events("client.register").await.len(), 1, "{label}");
    }
}
