//! Client Secrets.

use std::time::Duration;

use accord::{
    clock::Clock,
    registry::v1::{self as pb, SecretRevocationReason as Reason},
    text::{
        id::{ClientId, SecretId},
        opaque::{ClientSecret, SecretTagKey},
    },
};
use tonic::Code;
use tonic_types::StatusExt;

use super::{
    HOUR, UNKNOWN, UNKNOWN_SECRET, add_secret, authenticate, new_secret, profile, registered, revoke,
    revoked, secrets, seeded,
};
use crate::harness::{assert_rejected, request_id};

#[tokio::test]
async fn secrets_overlap_until_they_expire() {
    let harness = seeded().await;
    let (created, first) = registered(&harness).await;
    let id = &created.client_id;
    harness.clock.advance(Duration::from_millis(1));
    let end = harness.clock.now().plus(HOUR).to_timestamp();
    let call = pb::CreateClientSecretRequest {
        request_id: request_id(),
        expire_time: Some(end),
        ..new_secret(id)
    };
    let (secret, second) = add_secret(&harness, call.clone()).await.unwrap();
    assert_eq!((secret.expire_time, secret.claimed), (Some(end), true));
    let repeated = add_secret(&harness, call.clone()).await.unwrap();
    assert_eq!(repeated, (secret.clone(), second.clone()));
    let spelled_out = pb::CreateClientSecretRequest {
        delivery: pb::DeliveryMethod::Inline.into(),
        ..call.clone()
    };
    let repeated = add_secret(&harness, spelled_out).await.unwrap();
    assert_eq!(repeated, (secret.clone(), second.clone()));
    let other = pb::CreateClientSecretRequest {
        expire_time: None,
        ..call
    };
    let reused = add_secret(&harness, other).await;
    assert_rejected(reused, Code::AlreadyExists, "REQUEST_ID_REUSED");
    let listed = secrets(&harness, id).await;
    assert_eq!((listed.len(), &listed[0]), (2, &secret));
    assert_eq!(harness.audit_events("client_secret.create").await.len(), 1);

    authenticate(&harness, id, &first).await.unwrap();
    let authenticated = authenticate(&harness, id, &second).await.unwrap();
    assert_eq!(
        (authenticated.secret_id, authenticated.secret_expire_time),
        (secret.secret_id, Some(end))
    );
    let used = secrets(&harness, id).await[0].last_use_time;
    assert_eq!(used, Some(harness.clock.now().to_timestamp()));
    harness.clock.advance(HOUR);
    let expired = authenticate(&harness, id, &second).await;
    assert_rejected(expired, Code::Unauthenticated, "INVALID_CLIENT");
    authenticate(&harness, id, &first).await.unwrap();
}

#[tokio::test]
async fn ten_secrets_live_at_once() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let id = &created.client_id;
    let end = harness.clock.now().plus(HOUR).to_timestamp();
    let expiring = pb::CreateClientSecretRequest {
        expire_time: Some(end),
        ..new_secret(id)
    };
    add_secret(&harness, expiring).await.unwrap();
    for _ in 2..10 {
        add_secret(&harness, new_secret(id)).await.unwrap();
    }
    let refused = add_secret(&harness, new_secret(id)).await.unwrap_err();
    assert!(refused.message().ends_with("revoke one first"), "{refused:?}");
    assert!(
        refused.get_details_retry_info().is_none(),
        "waiting does not help"
    );
    assert_rejected::<()>(Err(refused), Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    assert_eq!(secrets(&harness, id).await.len(), 10);
    // Expired and revoked secrets don't count.
    harness.clock.advance(HOUR);
    let (newest, _) = add_secret(&harness, new_secret(id)).await.unwrap();
    let refused = add_secret(&harness, new_secret(id)).await;
    assert_rejected(refused, Code::ResourceExhausted, "RESOURCE_EXHAUSTED");
    revoked(&harness, revoke(id, &newest.secret_id, Reason::Rotated, false))
        .await
        .unwrap();
    add_secret(&harness, new_secret(id)).await.unwrap();
}

#[tokio::test]
async fn revoking_a_secret_in_use_needs_force() {
    let harness = seeded().await;
    let (created, secret) = registered(&harness).await;
    let id = &created.client_id;
    let authenticated = authenticate(&harness, id, &secret).await.unwrap();
    let used = harness.clock.now().to_timestamp();
    harness.clock.advance(24 * HOUR - Duration::from_millis(1));
    for reason in [Reason::Rotated, Reason::Compromised] {
        let refused = revoked(&harness, revoke(id, &authenticated.secret_id, reason, false)).await;
        let metadata = assert_rejected(refused, Code::FailedPrecondition, "SECRET_IN_USE");
        assert_eq!(metadata["last_use_time"], used.to_string());
    }
    assert!(secrets(&harness, id).await[0].revoke_time.is_none());
    assert!(harness.audit_events("client_secret.revoke").await.is_empty());
    let ended = revoked(
        &harness,
        revoke(id, &authenticated.secret_id, Reason::Rotated, true),
    )
    .await
    .unwrap();
    assert_eq!(
        (ended.revocation_reason(), ended.revoke_time),
        (Reason::Rotated, Some(harness.clock.now().to_timestamp()))
    );
    let refused = authenticate(&harness, id, &secret).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");

    // A day after the last use, revoking needs no force.
    let (second, text) = add_secret(&harness, new_secret(id)).await.unwrap();
    authenticate(&harness, id, &text).await.unwrap();
    harness.clock.advance(24 * HOUR);
    revoked(&harness, revoke(id, &second.secret_id, Reason::Rotated, false))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_compromised_secret_ends_tokens_and_a_rotated_one_does_not() {
    let harness = seeded().await;
    let (created, _) = registered(&harness).await;
    let (other, _) = registered(&harness).await;
    let id = &created.client_id;
    let secret_id = secrets(&harness, id).await[0].secret_id.clone();
    let call = |reason| revoke(id, &secret_id, reason, false);
    let foreign = revoke(&other.client_id, &secret_id, Reason::Rotated, false);
    let metadata = assert_rejected(revoked(&harness, foreign).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(metadata["resource"], "client_secret");
    let unknown = revoke(id, UNKNOWN_SECRET, Reason::Rotated, false);
    assert_rejected(revoked(&harness, unknown).await, Code::NotFound, "NOT_FOUND");

    let rotated = revoked(&harness, call(Reason::Rotated)).await.unwrap();
    harness.clock.advance(HOUR);
    assert_eq!(rotated.revocation_reason(), Reason::Rotated);
    let seen = profile(&harness, id).await;
    assert_eq!((seen.tokens_ended_seq, seen.families_ended_seq), (0, 0));
    assert_eq!(revoked(&harness, call(Reason::Rotated)).await.unwrap(), rotated);

    let worse = revoked(&harness, call(Reason::Compromised)).await.unwrap();
    assert_eq!(worse.revocation_reason(), Reason::Compromised);
    assert_eq!(worse.revoke_time, rotated.revoke_time, "the first one stays");
    let event = harness.audit_events("client_secret.revoke").await.remove(0);
    let recorded = r#"{"new":"compromised","old":"rotated"}"#;
    assert_eq!(event.detail["revocation_reason"], recorded);
    let ended = profile(&harness, id).await;
    assert!(ended.tokens_ended_seq > seen.version);
    assert_eq!(ended.tokens_ended_seq, ended.families_ended_seq);
    assert_eq!(ended.version, seen.version);
    for reason in [Reason::Rotated, Reason::Compromised] {
        assert_eq!(revoked(&harness, call(reason)).await.unwrap(), worse);
    }
    assert_eq!(profile(&harness, id).await, ended);
    assert_eq!(harness.audit_events("client_secret.revoke").await.len(), 2);
    let untouched = profile(&harness, &other.client_id).await;
    assert_eq!((untouched.tokens_ended_seq, untouched.families_ended_seq), (0, 0));
}

#[tokio::test]
async fn every_failed_authentication_looks_the_same() {
    let harness = seeded().await;
    let (created, secret) = registered(&harness).await;
    let (other, others) = registered(&harness).await;
    let id = &created.client_id;
    let secret_id = authenticate(&harness, id, &secret).await.unwrap().secret_id;
    let guess = |secret_id: &str| {
        let secret_id = SecretId::parse(secret_id).unwrap();
        let key = SecretTagKey::new(1, &[7; 32]);
        let client_id = ClientId::parse(id).unwrap();
        ClientSecret::compose(&key, &client_id, secret_id, &[7; 32])
            .expose()
            .to_owned()
    };
    let refused = [
        (UNKNOWN, secret.clone()),
        (id.as_str(), guess(UNKNOWN_SECRET)),
        (id, guess(&secret_id)),
        (id, others),
        (&other.client_id, secret.clone()),
        (id, accord::testing::calls::altered(&secret)),
        (id, format!("{secret}\0")),
        (id, String::new()),
        ("", secret.clone()),
    ];
    for (client_id, attempt) in refused {
        let result = authenticate(&harness, client_id, &attempt).await;
        let metadata = assert_rejected(result, Code::Unauthenticated, "INVALID_CLIENT");
        assert!(metadata.is_empty());
    }

    authenticate(&harness, id, &secret).await.unwrap();

    revoked(&harness, revoke(id, &secret_id, Reason::Rotated, true))
        .await
        .unwrap();
    let refused = authenticate(&harness, id, &secret).await;
    assert_rejected(refused, Code::Unauthenticated, "INVALID_CLIENT");
}
