//! The change feed: its position and its entries.

use std::time::Duration;

use accord::{
    registry::v1::{
        self as pb, client_service_client::ClientServiceClient, tenant_service_client::TenantServiceClient,
    },
    rpc::auth::Role,
};

use super::{NAME, changes, directory};
use crate::{
    client,
    harness::{assert_violations, ok},
    user::{admin, registered, security, seeded},
};

#[tokio::test]
async fn the_feed_holds_changes_and_its_position() {
    let harness = seeded().await;
    let position = changes(&harness, "", 0, 0).await.position.unwrap();
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    harness.tenant("firm-three").await;

    let answer = changes(&harness, &position.epoch, position.seq, 0).await;
    let kinds: Vec<_> = answer
        .changes
        .iter()
        .map(|change| (change.kind(), change.id.as_str()))
        .collect();
    let expected = [
        (pb::ChangeKind::User, user.user_id.as_str()),
        (pb::ChangeKind::Tenant, "firm-three"),
    ];
    assert_eq!(kinds, expected);
    assert!(!answer.reset && !answer.more);
    assert_eq!(answer.position.as_ref().unwrap().seq, position.seq + 2);

    let first = changes(&harness, &position.epoch, position.seq, 1).await;
    assert!(first.more && first.changes.len() == 1);
    assert_eq!(first.position.unwrap().seq, position.seq + 1);
    let nothing = changes(&harness, &position.epoch, position.seq + 2, 0).await;
    assert!(nothing.changes.is_empty() && !nothing.reset);
    for (epoch, seq) in [("another", 0), (position.epoch.as_str(), position.seq + 99)] {
        let reset = changes(&harness, epoch, seq, 0).await;
        assert!(reset.reset && reset.changes.is_empty());
        assert_eq!(reset.position.unwrap().seq, position.seq + 2);
    }
    let negative = pb::ListChangesRequest {
        after: Some(pb::FeedPosition {
            epoch: "not an epoch".into(),
            seq: -1,
        }),
        page_size: -1,
    };
    let refused = directory(&harness).list_changes(negative).await;
    assert_violations(refused, &["after.seq", "page_size", "after.epoch"]);
}

#[tokio::test]
async fn the_feed_is_followed_to_its_end_page_by_page() {
    let harness = seeded().await;
    let start = changes(&harness, "", 7, 0).await;
    assert!(start.changes.is_empty() && !start.reset && !start.more);
    let start = start.position.unwrap();
    let mut expected = Vec::new();
    for index in 0..5 {
        let created = registered(&harness, admin(&format!("user{index}@firm.example"))).await;
        expected.push(created.user.unwrap().user_id);
    }
    let (mut seen, mut seq, mut pages) = (Vec::new(), start.seq, 0);
    loop {
        let page = changes(&harness, &start.epoch, seq, 2).await;
        for change in &page.changes {
            seq += 1;
            assert_eq!(
                (change.seq, change.kind(), change.tenant_id.as_str()),
                (seq, pb::ChangeKind::User, "firm-one")
            );
        }
        assert_eq!(page.position.unwrap().seq, seq);
        seen.extend(page.changes.into_iter().map(|change| change.id));
        pages += 1;
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, pages), (expected, 3));
    // The page holds all remaining changes, so that no more follow.
    let all = changes(&harness, &start.epoch, start.seq, 5).await;
    assert!(all.changes.len() == 5 && !all.more);
    // Without `after` the response holds only the position, which a call that changes nothing leaves as it is.
    let nothing = pb::ListChangesRequest::default();
    let at = ok(directory(&harness).list_changes(nothing).await);
    assert!(at.changes.is_empty() && !at.reset);
    assert_eq!(at.position.unwrap().seq, seq);
}

#[tokio::test]
async fn the_feed_marks_changes_that_end_tokens() {
    let harness = seeded().await;
    client::seed(&harness).await;
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    let (created, _) = client::registered(&harness).await;
    let id = created.client_id.clone();
    let at = changes(&harness, "", 0, 0).await;
    let start = at.position.unwrap();
    assert_eq!(at.recent_seq, 0, "all of it is of the last hour");

    let mut clients = ClientServiceClient::new(harness.operator(Role::Admin));
    let mut update = async |path: &str| {
        let request = pb::UpdateClientRequest {
            client: Some(pb::Client {
                client_id: id.clone(),
                allowed_networks: vec!["192.0.2.0/24".into()],
                scopes: vec![pb::RequestedScope {
                    name: "contacts.read".into(),
                    reason: "to use contacts.read".into(),
                }],
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec![path.into()],
            }),
        };
        clients.update_client(request).await.unwrap();
    };
    update("allowed_networks").await;
    update("scopes").await;
    let secrets = client::secrets(&harness, &id).await;
    for reason in [
        pb::SecretRevocationReason::Rotated,
        pb::SecretRevocationReason::Compromised,
    ] {
        let request = pb::RevokeClientSecretRequest {
            client_id: id.clone(),
            secret_id: secrets[0].secret_id.clone(),
            reason: reason.into(),
            force: true,
        };
        clients.revoke_client_secret(request).await.unwrap();
    }
    let client_id = id.clone();
    let suspend = pb::SuspendClientRequest {
        client_id,
        reason: "a test".into(),
    };
    clients.suspend_client(suspend).await.unwrap();
    let client_id = id.clone();
    let reinstate = pb::ReinstateClientRequest { client_id };
    clients.reinstate_client(reinstate).await.unwrap();

    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    let tenant_id = "firm-one".to_owned();
    let suspend = pb::SuspendTenantRequest {
        tenant_id,
        reason: "a test".into(),
    };
    tenants.suspend_tenant(suspend).await.unwrap();
    let tenant_id = "firm-one".to_owned();
    let reinstate = pb::ReinstateTenantRequest { tenant_id };
    tenants.reinstate_tenant(reinstate).await.unwrap();

    let of_user = || ("firm-one".to_owned(), user.user_id.clone());
    let (tenant_id, user_id) = of_user();
    let deactivate = pb::DeactivateUserRequest {
        tenant_id,
        user_id,
        reason: "a test".into(),
    };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let (tenant_id, user_id) = of_user();
    let reactivate = pb::ReactivateUserRequest { tenant_id, user_id };
    security(&harness).reactivate_user(reactivate).await.unwrap();

    let answer = changes(&harness, &start.epoch, start.seq, 0).await;
    let (tenant, user, client) = (
        pb::ChangeKind::Tenant,
        pb::ChangeKind::User,
        pb::ChangeKind::Client,
    );
    let expected = [
        (client, false),
        (client, true),
        (client, false),
        (client, true),
        (client, true),
        (client, false),
        (tenant, true),
        (tenant, false),
        (user, true),
        (user, false),
    ];
    let seen: Vec<_> = answer
        .changes
        .iter()
        .map(|change| (change.kind(), change.ends_tokens))
        .collect();
    assert_eq!(seen, expected);

    // After an hour, no change concerns a token that is still valid.
    harness.clock.advance(Duration::from_millis(3_600_001));
    let reset = changes(&harness, "other", 7, 0).await;
    let end = answer.position.unwrap();
    assert_eq!((reset.reset, reset.recent_seq), (true, end.seq));
}
