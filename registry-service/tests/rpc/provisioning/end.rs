//! What ends a link, and what its end leaves as it is.

use super::*;

#[tokio::test]
async fn a_link_ends_after_three_days() {
    let harness = seeded().await;
    let (first, in_time) = registered_with_link(&harness).await;
    let (second, too_late) = registered_with_link(&harness).await;
    harness.clock.advance(LINK_LIFETIME - Duration::from_millis(1));
    let bundle = claim(&harness, &in_time.claim_token).await.unwrap();
    assert_eq!(bundle.client_id, first.client_id);
    harness.clock.advance(Duration::from_millis(1));
    let expired = claim(&harness, &too_late.claim_token).await;
    assert_nothing_told(expired);
    assert_eq!(claims(&harness).await, (1, vec!["ended".to_owned()]));

    assert_eq!(harness.registry.store().expire_deliveries().await.unwrap(), 1);
    assert_eq!(harness.registry.store().expire_deliveries().await.unwrap(), 0);
    let unclaimed = secrets(&harness, &second.client_id).await.remove(0);
    assert!(!unclaimed.claimed);
    assert!(unclaimed.revoke_time.is_some());
    let expired = claim(&harness, &too_late.claim_token).await;
    assert_nothing_told(expired);
    let claimed = secrets(&harness, &first.client_id).await.remove(0);
    assert!(claimed.revoke_time.is_none());
}

#[tokio::test]
async fn a_new_link_ends_the_one_before() {
    let harness = seeded().await;
    let (created, first) = registered_with_link(&harness).await;
    harness.clock.advance(Duration::from_millis(1));
    let second = delivered(&harness, deliver(&created.client_id)).await.unwrap();
    assert!(first.delivery_id != second.delivery_id);
    let ended = claim(&harness, &first.claim_token).await;
    assert_nothing_told(ended);
    let listed = secrets(&harness, &created.client_id).await;
    let revoked: Vec<_> = listed.iter().map(|secret| secret.revoke_time.is_some()).collect();
    assert_eq!(revoked, [false, true]);

    let bundle = claim(&harness, &second.claim_token).await.unwrap();
    // A new link does not end one that was opened.
    delivered(&harness, deliver(&created.client_id)).await.unwrap();
    authenticate(&harness, &created.client_id, &bundle.client_secret)
        .await
        .unwrap();
    assert_eq!(harness.audit_events("delivery.create").await.len(), 2);
}

/// Revokes the only secret of a client.
async fn revoke_only_secret(harness: &Harness, client_id: &str) {
    let secret = secrets(harness, client_id).await.remove(0);
    let revoke = pb::RevokeClientSecretRequest {
        client_id: client_id.into(),
        secret_id: secret.secret_id,
        reason: pb::SecretRevocationReason::Compromised.into(),
        force: false,
    };
    client(harness).revoke_client_secret(revoke).await.unwrap();
}

#[tokio::test]
async fn opening_a_link_does_not_restore_a_revoked_secret() {
    let harness = seeded().await;
    let (created, link) = registered_with_link(&harness).await;
    revoke_only_secret(&harness, &created.client_id).await;
    assert_nothing_told(claim(&harness, &link.claim_token).await);
}

#[tokio::test]
async fn the_reason_of_a_revocation_survives_the_end_of_the_link() {
    let harness = seeded().await;
    let (created, _) = registered_with_link(&harness).await;
    revoke_only_secret(&harness, &created.client_id).await;
    let revoked = secrets(&harness, &created.client_id).await.remove(0);
    harness.clock.advance(Duration::from_secs(1));
    delivered(&harness, deliver(&created.client_id)).await.unwrap();
    assert_eq!(secrets(&harness, &created.client_id).await[1], revoked);
}
