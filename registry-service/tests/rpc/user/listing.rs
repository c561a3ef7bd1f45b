//! Lists of users.

use std::time::Duration;

use accord::registry::v1 as pb;
use tonic::Code;

use super::{NAME, admin, listed, registered, registrar, security, seeded};
use crate::harness::{assert_rejected, assert_violations, ok};

#[tokio::test]
async fn users_are_listed_per_tenant_page_by_page() {
    let harness = seeded().await;
    for index in 0..3 {
        registered(&harness, admin(&format!("user{index}@firm.example"))).await;
        harness.clock.advance(Duration::from_millis(1));
    }
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListUsersRequest {
            tenant_id: "firm-one".into(),
            page_size: 2,
            page_token,
            ..Default::default()
        };
        let page = ok(registrar(&harness).list_users(request).await);
        seen.extend(page.users.into_iter().map(|user| user.user_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 3);
    assert!(seen.is_sorted(), "oldest first");
    let empty = pb::ListUsersRequest {
        tenant_id: "firm-two".into(),
        ..Default::default()
    };
    assert!(ok(registrar(&harness).list_users(empty).await).users.is_empty());
    let unknown = pb::ListUsersRequest {
        tenant_id: "firm-nine".into(),
        ..Default::default()
    };
    assert_rejected(
        registrar(&harness).list_users(unknown).await,
        Code::NotFound,
        "NOT_FOUND",
    );
}

#[tokio::test]
async fn users_are_listed_by_state_and_a_page_belongs_to_its_filter() {
    let harness = seeded().await;
    let mut ids = Vec::new();
    for index in 0..3 {
        let created = registered(&harness, admin(&format!("user{index}@firm.example"))).await;
        ids.push(created.user.unwrap().user_id);
        harness.clock.advance(Duration::from_millis(1));
    }
    let elsewhere = pb::RegisterUserRequest {
        tenant_id: "firm-two".into(),
        ..admin(NAME)
    };
    registered(&harness, elsewhere).await;
    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id: ids[1].clone(),
        reason: "a test".into(),
    };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let of = async |state| -> Vec<String> {
        let users = listed(&harness, state).await;
        users.into_iter().map(|user| user.user_id).collect()
    };
    assert_eq!(of(pb::UserState::Unspecified).await, ids);
    assert_eq!(
        of(pb::UserState::Active).await,
        [ids[0].as_str(), ids[2].as_str()]
    );
    assert_eq!(of(pb::UserState::Deactivated).await, [ids[1].as_str()]);

    let first = pb::ListUsersRequest {
        tenant_id: "firm-one".into(),
        page_size: 1,
        ..Default::default()
    };
    let page = ok(registrar(&harness).list_users(first.clone()).await);
    for other in [
        pb::ListUsersRequest {
            state: pb::UserState::Active.into(),
            ..first.clone()
        },
        pb::ListUsersRequest {
            tenant_id: "firm-two".into(),
            ..first
        },
    ] {
        let request = pb::ListUsersRequest {
            page_token: page.next_page_token.clone(),
            ..other
        };
        assert_violations(registrar(&harness).list_users(request).await, &["page_token"]);
    }
}
