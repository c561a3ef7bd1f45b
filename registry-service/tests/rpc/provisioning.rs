//! `ProvisioningService`: one-time links to credentials.

use std::time::Duration;

use accord::{
    audit::v1::{
        AuditActorKind, AuditOutcome, ListAuditEventsRequest, audit_service_client::AuditServiceClient,
    },
    clock::Clock,
    registry::v1::{
        self as pb, DeliveryMethod, create_client_secret_response::Credentials,
        provisioning_service_client::ProvisioningServiceClient,
    },
    rpc::auth::Role,
    testing::databases,
    text::opaque::TokenKind,
};
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::{
    client::{UNKNOWN, authenticate, client, registered, registered_with_link, secrets, seed},
    harness::{
        CallerChannel, Harness, PUBLIC_BASE_URL, assert_rejected, assert_violations, ok, request_id,
        strangers_token,
    },
};

mod end;

const LINK_LIFETIME: Duration = Duration::from_secs(72 * 3600);

fn operator(harness: &Harness) -> ProvisioningServiceClient<CallerChannel> {
    ProvisioningServiceClient::new(harness.operator(Role::Registrar))
}

async fn seeded() -> Harness {
    let harness = Harness::start().await;
    seed(&harness).await;
    harness
}

fn deliver(client_id: &str) -> pb::CreateDeliveryRequest {
    pb::CreateDeliveryRequest {
        request_id: String::new(),
        client_id: client_id.into(),
    }
}

async fn delivered(
    harness: &Harness,
    request: pb::CreateDeliveryRequest,
) -> Result<pb::DeliveryLink, Status> {
    let answer = operator(harness).create_delivery(request).await?;
    Ok(answer.into_inner().delivery_link.unwrap())
}

/// Opens a link as the partner does, without a bearer token.
async fn claim(harness: &Harness, claim_token: &str) -> Result<pb::CredentialBundle, Status> {
    let mut partner = ProvisioningServiceClient::new(harness.anonymous());
    let request = pb::ClaimDeliveryRequest {
        claim_token: claim_token.into(),
        ..Default::default()
    };
    let answer = partner.claim_delivery(request).await?;
    Ok(answer.into_inner().bundle.unwrap())
}

/// Asserts that a link is rejected without a hint whether it ever existed.
#[track_caller]
fn assert_nothing_told<T: std::fmt::Debug>(result: Result<T, Status>) {
    let message = result.as_ref().unwrap_err().message();
    assert!(message.contains("needs a release code"), "{message}");
    let metadata = assert_rejected(result, Code::FailedPrecondition, "LINK_INVALID");
    assert_eq!(metadata, Default::default());
}

/// Counts the successful claims, and lists why the others were rejected, newest first.
async fn claims(harness: &Harness) -> (usize, Vec<String>) {
    let (succeeded, refused): (Vec<_>, Vec<_>) = harness
        .audit_events("delivery.claim")
        .await
        .into_iter()
        .partition(|event| event.outcome() == AuditOutcome::Success);
    let why = refused.into_iter().map(|event| {
        assert_eq!(event.outcome(), AuditOutcome::Refused);
        event.detail["why"].clone()
    });
    (succeeded.len(), why.collect())
}

#[tokio::test]
async fn a_link_is_opened_once() {
    let harness = seeded().await;
    let (created, link) = registered_with_link(&harness).await;
    assert_eq!(link.url, format!("{PUBLIC_BASE_URL}/claim/{}", link.claim_token));
    let end = harness.clock.now().plus(LINK_LIFETIME).to_timestamp();
    assert_eq!(link.expire_time, Some(end));
    assert!(!secrets(&harness, &created.client_id).await[0].claimed);

    let bundle = claim(&harness, &link.claim_token).await.unwrap();
    assert_eq!(bundle.client_id, created.client_id);
    let endpoints: Vec<_> = bundle.endpoints.iter().map(|e| e.tenant_id.as_str()).collect();
    assert_eq!(endpoints, ["acme"]);
    let secret = secrets(&harness, &created.client_id).await.remove(0);
    assert!(secret.claimed);
    let authenticated = authenticate(&harness, &created.client_id, &bundle.client_secret)
        .await
        .unwrap();
    assert_eq!(authenticated.secret_id, secret.secret_id);

    let second = claim(&harness, &link.claim_token).await;
    assert_rejected(second, Code::FailedPrecondition, "LINK_INVALID");
    let events = harness.audit_events("delivery.claim").await;
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event.outcome(),
                event.actor_kind(),
                event.client_id.as_str(),
                event.subject.as_str(),
            )
        })
        .collect();
    let event = |outcome| {
        (
            outcome,
            AuditActorKind::Anonymous,
            created.client_id.as_str(),
            link.delivery_id.as_str(),
        )
    };
    assert_eq!(
        found,
        [event(AuditOutcome::Refused), event(AuditOutcome::Success)]
    );
    assert_eq!(events[0].detail["why"], "opened before");
    // The secret that was handed over stays live.
    authenticate(&harness, &created.client_id, &bundle.client_secret)
        .await
        .unwrap();
}

#[tokio::test]
async fn opening_a_link_again_returns_the_time_of_the_first_opening() {
    let harness = seeded().await;
    let (_, link) = registered_with_link(&harness).await;
    harness.clock.advance(Duration::from_millis(90_500));
    claim(&harness, &link.claim_token).await.unwrap();
    let opened = Timestamp {
        seconds: harness.clock.now().as_secs(),
        nanos: 0,
    };
    // So it does after the time at which the link would have expired.
    for wait in [Duration::ZERO, Duration::from_secs(3600), LINK_LIFETIME] {
        harness.clock.advance(wait);
        harness.registry.store().expire_deliveries().await.unwrap();
        let again = claim(&harness, &link.claim_token).await;
        let metadata = assert_rejected(again, Code::FailedPrecondition, "LINK_INVALID");
        assert_eq!(metadata.len(), 1);
        assert_eq!(metadata["claim_time"], opened.to_string());
        assert!(metadata["claim_time"].ends_with('Z') && !metadata["claim_time"].contains('.'));
    }
    let again = claims(&harness).await;
    assert_eq!(again, (1, vec!["opened before".to_owned(); 3]));
}

#[tokio::test]
async fn the_audit_record_shows_that_a_link_was_opened_again() {
    let harness = seeded().await;
    let (created, link) = registered_with_link(&harness).await;
    let (_, others) = registered_with_link(&harness).await;
    claim(&harness, &others.claim_token).await.unwrap();
    claim(&harness, &link.claim_token).await.unwrap();
    harness.clock.advance(Duration::from_secs(1));
    claim(&harness, &link.claim_token).await.unwrap_err();
    let again = harness.clock.now();
    harness.clock.advance(Duration::from_secs(1));
    claim(&harness, &strangers_token(TokenKind::Claim))
        .await
        .unwrap_err();

    let mut auditor = AuditServiceClient::new(harness.operator(Role::Auditor));
    let request = ListAuditEventsRequest {
        action: "delivery.claim".into(),
        outcome: AuditOutcome::Refused.into(),
        ..Default::default()
    };
    let events = ok(auditor.list_audit_events(request).await).audit_events;
    assert_eq!(events.len(), 1, "{events:?}");
    let secret = secrets(&harness, &created.client_id).await.remove(0);
    let event = &events[0];
    assert_eq!(
        (&event.client_id, &event.subject, &event.detail["secret_id"]),
        (&created.client_id, &link.delivery_id, &secret.secret_id)
    );
    assert_eq!(event.occur_time, Some(again.to_timestamp()));
    assert_eq!(event.detail["why"], "opened before");
    assert_eq!(event.actor_kind(), AuditActorKind::Anonymous);
    assert!(!format!("{event:?}").contains(&link.claim_token));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_claims_one_wins() {
    for database in databases() {
        let label = database.label;
        let harness = Harness::start_on(database).await;
        seed(&harness).await;
        let (created, link) = registered_with_link(&harness).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut partner = ProvisioningServiceClient::new(harness.anonymous());
            let request = pb::ClaimDeliveryRequest {
                claim_token: link.claim_token.clone(),
                ..Default::default()
            };
            calls.spawn(async move { partner.claim_delivery(request).await });
        }
        let mut bundles = Vec::new();
        for result in calls.join_all().await {
            match result {
                Ok(answer) => bundles.push(answer.into_inner().bundle.unwrap()),
                Err(status) => {
                    let refused = Err::<(), _>(status);
                    assert_rejected(refused, Code::FailedPrecondition, "LINK_INVALID");
                }
            }
        }
        assert_eq!(bundles.len(), 1, "{label}");
        let expected = (1, vec!["opened before".to_owned(); 7]);
        assert_eq!(claims(&harness).await, expected, "{label}");
        authenticate(&harness, &created.client_id, &bundles[0].client_secret)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_claim_is_repeated_by_its_request_id_alone() {
    let harness = seeded().await;
    let (created, link) = registered_with_link(&harness).await;
    let claim = async |request_id: &str| {
        let mut partner = ProvisioningServiceClient::new(harness.anonymous());
        let request = pb::ClaimDeliveryRequest {
            claim_token: link.claim_token.clone(),
            request_id: request_id.into(),
            ..Default::default()
        };
        partner.claim_delivery(request).await
    };
    assert_violations(claim("not a uuid").await, &["request_id"]);
    let (id, other) = (request_id(), request_id());
    let first = ok(claim(&id).await);
    assert_eq!(ok(claim(&id).await), first);
    authenticate(&harness, &created.client_id, &first.bundle.unwrap().client_secret)
        .await
        .unwrap();
    for id in [&other, ""] {
        let metadata = assert_rejected(claim(id).await, Code::FailedPrecondition, "LINK_INVALID");
        assert_eq!(metadata["claim_time"], "2026-01-01T00:00:00Z");
    }
    assert_eq!(claims(&harness).await, (1, vec!["opened before".to_owned(); 2]));
    assert_eq!(harness.audit_events("delivery.repeat").await.len(), 1);
    harness.clock.advance(Duration::from_secs(60));
    assert_rejected(claim(&id).await, Code::FailedPrecondition, "LINK_INVALID");
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_link() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let call = pb::CreateDeliveryRequest {
        request_id: request_id(),
        ..deliver(&created.client_id)
    };
    let first = delivered(&harness, call.clone()).await.unwrap();
    assert_eq!(delivered(&harness, call.clone()).await.unwrap(), first);
    assert_eq!(secrets(&harness, &created.client_id).await.len(), 2);
    assert_eq!(harness.audit_events("delivery.create").await.len(), 1);
    let (other, _) = registered(&harness).await;
    let other = pb::CreateDeliveryRequest {
        client_id: other.client_id,
        ..call
    };
    let reused = delivered(&harness, other).await;
    assert_rejected(reused, Code::AlreadyExists, "REQUEST_ID_REUSED");
    claim(&harness, &first.claim_token).await.unwrap();
}

#[tokio::test]
async fn a_secret_can_be_created_behind_a_link() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let call = pb::CreateClientSecretRequest {
        request_id: request_id(),
        client_id: created.client_id.clone(),
        delivery: DeliveryMethod::Link.into(),
        ..Default::default()
    };
    let first = ok(client(&harness).create_client_secret(call.clone()).await);
    let again = client(&harness).create_client_secret(call).await.unwrap();
    assert_eq!(again.into_inner(), first);
    let secret = first.secret.unwrap();
    assert!(!secret.claimed);
    let Some(Credentials::DeliveryLink(link)) = first.credentials else {
        panic!("no link")
    };
    let bundle = claim(&harness, &link.claim_token).await.unwrap();
    let authenticated = authenticate(&harness, &created.client_id, &bundle.client_secret)
        .await
        .unwrap();
    assert_eq!(authenticated.secret_id, secret.secret_id);
}

#[tokio::test]
async fn unknown_and_malformed_ids_are_rejected() {
    let harness = seeded().await;
    let (created, link) = registered_with_link(&harness).await;
    let unknown = delivered(&harness, deliver(UNKNOWN)).await;
    let metadata = assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    assert_eq!(metadata["resource"], "client");
    let malformed = pb::CreateDeliveryRequest {
        request_id: "1".into(),
        client_id: "1".into(),
    };
    assert_violations(delivered(&harness, malformed).await, &["client_id", "request_id"]);
    for malformed in ["", "acl_1", &link.url] {
        assert_violations(claim(&harness, malformed).await, &["claim_token"]);
    }
    let strangers = claim(&harness, &strangers_token(TokenKind::Claim)).await;
    assert_nothing_told(strangers);
    assert_eq!(claims(&harness).await, (0, Vec::new()));
    assert!(harness.audit_events("delivery.create").await.is_empty());

    // The secret of a link counts towards the limit of live secrets.
    for _ in 1..10 {
        let request = pb::CreateClientSecretRequest {
            client_id: created.client_id.clone(),
            ..Default::default()
        };
        client(&harness).create_client_secret(request).await.unwrap();
    }
    // A new link would replace an unopened one, but this one was opened.
    claim(&harness, &link.claim_token).await.unwrap();
    let refused = delivered(&harness, deliver(&created.client_id)).await;
    assert_rejected(refused, Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    assert_eq!(secrets(&harness, &created.client_id).await.len(), 10);
}

#[tokio::test]
async fn no_secret_is_in_the_database() {
    let harness = seeded().await;
    let (_, inline) = registered(&harness).await;
    let (_, opened) = registered_with_link(&harness).await;
    let (_, unopened) = registered_with_link(&harness).await;
    let linked = claim(&harness, &opened.claim_token).await.unwrap().client_secret;
    let path = harness
        .settings
        .service
        .database_url
        .strip_prefix("sqlite://")
        .unwrap();
    let mut stored = std::fs::read(path).unwrap();
    stored.extend(std::fs::read(format!("{path}-wal")).unwrap_or_default());
    let holds = |text: &str| {
        let text = text.as_bytes();
        stored.windows(text.len()).any(|window| window == text)
    };
    assert!(holds("Contact Sync"));
    for secret in [inline, linked, opened.claim_token, unopened.claim_token] {
        // Leaves out the prefix and the id, which are not secret.
        let end = &secret[secret.len() - 20..];
        assert!(!holds(end));
    }
}
