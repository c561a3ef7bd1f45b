//! `ListOperatorActions`: the acts of operators in both services, as one list.

use accord::{registry::v1 as reg, rpc::auth::Role, token::v1 as pb};
use tonic::{Code, Status};

use super::assert_not_found;
use crate::{
    harness::{assert_rejected, assert_violations, ok},
    world::World,
};

fn of(tenant_id: &str, session: &str) -> pb::ListOperatorActionsRequest {
    pb::ListOperatorActionsRequest {
        tenant_id: tenant_id.into(),
        admin_session: session.into(),
        ..Default::default()
    }
}

async fn list(
    world: &World,
    request: pb::ListOperatorActionsRequest,
) -> Result<pb::ListOperatorActionsResponse, Status> {
    Ok(world
        .consents()
        .list_operator_actions(request)
        .await?
        .into_inner())
}

/// An act that the registry tells, of a millisecond of the year 2025.
pub(super) fn told(number: u8, action: &str) -> reg::OperatorAction {
    reg::OperatorAction {
        event_id: format!("01jgfjjz00000000000000000{number}"),
        action: action.into(),
        operator_id: "opr_01jd0000000000000000000000".into(),
        reason: "asked to".into(),
        subject: "acme".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn acts_in_both_services_are_one_list_in_pages() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let alone = reg::OperatorAction {
        single_person: true,
        ..told(1, "tenant.create")
    };
    world.registry().tell_operator_actions(vec![
        ("acme".into(), alone),
        ("globex".into(), told(2, "tenant.suspend")),
        ("acme".into(), told(3, "tenant.suspend")),
    ]);
    let revoking = pb::RevokeConsentRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.clone(),
        reason: "a leak".into(),
        ..Default::default()
    };
    ok(world.consents_of(Role::Security).revoke_consent(revoking).await);
    // What a Tenant Admin did is no act of an operator.
    let other = world.active_grant().await;
    let session = world.sign_in("").await;
    let revoking = pb::RevokeConsentRequest {
        tenant_id: "acme".into(),
        grant_id: other,
        admin_session: session.clone(),
        ..Default::default()
    };
    ok(world.consents().revoke_consent(revoking).await);

    let mut request = of("acme", &session);
    request.page_size = 2;
    let mut all = Vec::new();
    loop {
        let page = list(&world, request.clone()).await.unwrap();
        assert!(page.operator_actions.len() <= 2);
        all.extend(page.operator_actions);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    let told: Vec<_> = all
        .iter()
        .map(|act| (act.action.as_str(), act.reason.as_str(), act.subject.as_str()))
        .collect();
    let expected = [
        ("consent.revoke", "a leak", grant_id.as_str()),
        ("tenant.suspend", "asked to", "acme"),
        ("tenant.create", "asked to", "acme"),
    ];
    assert_eq!(told, expected);
    assert!(all[0].operator_id.starts_with("opr_") && all[0].client_id == *world.client_id);
    assert_eq!(
        all[1].description,
        "Suspended this organisation: no integration has access"
    );
    assert_eq!(
        all[2].description,
        "Created this organisation, perhaps without a second person"
    );
    assert_eq!(all[2].occur_time.unwrap().seconds, 1_735_689_600);
}

#[tokio::test]
async fn no_tenant_sees_another_s() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let revoking = pb::RevokeConsentRequest {
        tenant_id: "acme".into(),
        grant_id,
        reason: "a leak".into(),
        ..Default::default()
    };
    ok(world.consents_of(Role::Security).revoke_consent(revoking).await);
    world
        .registry()
        .tell_operator_actions(vec![("acme".into(), told(1, "tenant.create"))]);
    let foreign = world.sign_in_at("globex").await;
    let own = list(&world, of("globex", &foreign)).await.unwrap();
    assert_eq!(own, pb::ListOperatorActionsResponse::default());
    assert_not_found(list(&world, of("acme", &foreign)).await, "tenant");
    let without = list(&world, of("acme", "")).await;
    assert_rejected(without, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let mut bad = of("A", &foreign);
    (bad.page_size, bad.page_token) = (-1, "x".into());
    assert_violations(list(&world, bad).await, &["tenant_id", "page_size", "page_token"]);
    for role in [Role::Auditor, Role::Security, Role::Admin] {
        let listed = ok(world
            .consents_of(role)
            .list_operator_actions(of("acme", ""))
            .await);
        assert_eq!(listed.operator_actions.len(), 2);
    }
    for role in [Role::Registrar, Role::Approver] {
        let refused = world
            .consents_of(role)
            .list_operator_actions(of("acme", ""))
            .await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn without_the_registry_there_is_no_list() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    // A registry that can't tell, and then one that does not answer.
    assert_rejected(
        list(&world, of("acme", &session)).await,
        Code::Unavailable,
        "UNAVAILABLE",
    );
    world.registry().tell_operator_actions(Vec::new());
    list(&world, of("acme", &session)).await.unwrap();
    world.registry().set_unavailable(true);
    assert_rejected(
        list(&world, of("acme", &session)).await,
        Code::Unavailable,
        "UNAVAILABLE",
    );
}
