//! Management of consents: who reads them, who revokes them, and who changes the designated user.

use std::time::Duration;

use accord::{
    testing::calls::{assert_violations, ok},
    token::v1::{self as tok, consent_service_client::ConsentServiceClient},
};
use tonic::Code;

use crate::harness::{
    dev,
    partner::{Party, World, own_grant, refresh_grant},
    refusal::{
        CONSENT_REQUIRED, INVALID_GRANT, NOT_FOUND, Refusal, SESSION_INVALID, WRONG_STATE, refused, soon,
    },
};

const PERMISSION_DENIED: Refusal = (Code::PermissionDenied, "PERMISSION_DENIED");

tests!(
    a_consent_is_returned_with_its_present_state,
    operators_read_and_revoke_with_a_reason_and_nothing_else,
    changing_the_designated_user_ends_access_tokens_and_keeps_the_family,
    a_tenant_admin_sees_what_operators_did_in_both_services,
);

fn get(world: &World, grant_id: &str, admin_session: &str) -> tok::GetConsentRequest {
    tok::GetConsentRequest {
        tenant_id: world.target.tenant_id.clone(),
        grant_id: grant_id.into(),
        admin_session: admin_session.into(),
    }
}

fn change(
    world: &World,
    grant_id: &str,
    admin_session: &str,
    name: &str,
) -> tok::ChangeDesignatedUserRequest {
    tok::ChangeDesignatedUserRequest {
        tenant_id: world.target.tenant_id.clone(),
        grant_id: grant_id.into(),
        admin_session: admin_session.into(),
        designated_account_name: name.into(),
    }
}

fn revoke(world: &World, grant_id: &str, admin_session: &str, reason: &str) -> tok::RevokeConsentRequest {
    tok::RevokeConsentRequest {
        tenant_id: world.target.tenant_id.clone(),
        grant_id: grant_id.into(),
        admin_session: admin_session.into(),
        reason: reason.into(),
    }
}

async fn a_consent_is_returned_with_its_present_state() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let (partner, other) = (world.partner().await, world.partner().await);
    let tokens = world.first_tokens(&partner).await;
    clock.advance(Duration::from_millis(1));
    let pending = world.approve(&other).await;
    let session = world.sign_in("").await;

    let request = get(&world, &tokens.grant_id, &session);
    let consent = ok(world.consents().get_consent(request).await).consent.unwrap();
    assert_eq!(consent.state(), tok::ConsentState::Active);
    assert_eq!(consent.designated_user_label, "API user 1");
    assert!(consent.granted_by_user_id.starts_with("usr_") && consent.activate_time.is_some());

    let list = |state: tok::ConsentState| tok::ListConsentsRequest {
        tenant_id: world.target.tenant_id.clone(),
        admin_session: session.clone(),
        state: state.into(),
        ..Default::default()
    };
    let ids = async |state| {
        let listed = ok(world.consents().list_consents(list(state)).await);
        listed
            .consents
            .into_iter()
            .map(|consent| consent.grant_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(tok::ConsentState::Unspecified).await,
        [pending.grant_id.clone(), tokens.grant_id.clone()]
    );
    assert_eq!(
        ids(tok::ConsentState::Pending).await,
        std::slice::from_ref(&pending.grant_id)
    );
    world.suspend(Party::Client(&partner)).await;
    soon("the consent is suspended", async || {
        ids(tok::ConsentState::Suspended).await == [tokens.grant_id.as_str()]
    })
    .await;
    assert!(ids(tok::ConsentState::Active).await.is_empty());

    let mut bad = list(tok::ConsentState::Unspecified);
    (bad.page_size, bad.page_token, bad.client_id) = (-1, "x".into(), "cli_x".into());
    bad.state = 99;
    let fields = ["client_id", "page_size", "page_token", "state"];
    assert_violations(world.consents().list_consents(bad).await, &fields);

    // Another tenant's consents are not found, not even by an admin.
    world.add_tenant("other-firm").await;
    let mut elsewhere = get(&world, &tokens.grant_id, &session);
    elsewhere.tenant_id = "other-firm".into();
    refused(world.consents().get_consent(elsewhere).await, NOT_FOUND);
    let unknown = get(&world, "grt_01k9zzzzzzzzzzzzzzzzzzzzzz", &session);
    refused(world.consents().get_consent(unknown).await, NOT_FOUND);
    dev.stop().await.unwrap();
}

async fn operators_read_and_revoke_with_a_reason_and_nothing_else() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    let session = world.sign_in("").await;
    let mut operators = ConsentServiceClient::new(world.token_operator.clone());
    assert!(
        operators
            .get_consent(get(&world, &tokens.grant_id, ""))
            .await
            .is_ok()
    );
    refused(
        operators
            .get_consent(get(&world, &tokens.grant_id, &session))
            .await,
        PERMISSION_DENIED,
    );
    let request = change(&world, &tokens.grant_id, &session, "x@y.example");
    refused(operators.change_designated_user(request).await, PERMISSION_DENIED);
    // A workload alone is not a Tenant Admin.
    let result = world
        .consents()
        .get_consent(get(&world, &tokens.grant_id, ""))
        .await;
    refused(result, SESSION_INVALID);

    let result = operators
        .revoke_consent(revoke(&world, &tokens.grant_id, "", ""))
        .await;
    assert_violations(result, &["reason"]);
    assert!(world.active(&tokens.access_token).await);
    for _ in 0..2 {
        let request = revoke(&world, &tokens.grant_id, "", "The contract ended.");
        let revoked = ok(operators.revoke_consent(request).await).consent.unwrap();
        assert_eq!(revoked.state(), tok::ConsentState::Revoked);
    }
    assert!(!world.active(&tokens.access_token).await && !world.active(&tokens.refresh_token).await);
    let result = world.issue(&partner, refresh_grant(&tokens.refresh_token)).await;
    refused(result, INVALID_GRANT);
    let result = world.issue(&partner, own_grant()).await;
    refused(result, CONSENT_REQUIRED);
    dev.stop().await.unwrap();
}

async fn changing_the_designated_user_ends_access_tokens_and_keeps_the_family() {
    let (_directory, dev, clock) = dev::start_with_clock().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    let successor = world.user("second.user@demo-firm.example").await;
    let session = world.sign_in("").await;
    let name = "Second.User@demo-firm.example";

    let stranger = change(&world, &tokens.grant_id, &session, "nobody@nowhere.example");
    refused(world.consents().change_designated_user(stranger).await, NOT_FOUND);
    let request = change(&world, &tokens.grant_id, &session, name);
    let changed = ok(world.consents().change_designated_user(request.clone()).await);
    assert_eq!(changed.consent.unwrap().designated_user_id, successor);
    assert!(!world.active(&tokens.access_token).await && world.active(&tokens.refresh_token).await);
    let renewed = world
        .issue(&partner, refresh_grant(&tokens.refresh_token))
        .await
        .unwrap();
    assert_eq!(world.introspect(&renewed.access_token).await.sub, successor);
    // A repeated call changes nothing.
    world
        .consents()
        .change_designated_user(request.clone())
        .await
        .unwrap();
    assert!(world.active(&renewed.access_token).await);

    clock.advance(Duration::from_secs(5 * 60 + 1));
    let result = world.consents().change_designated_user(request).await;
    refused(result, (Code::PermissionDenied, "SIGN_IN_TOO_OLD"));

    // A Tenant Admin revokes without a reason. Then nothing can be changed.
    let session = world.sign_in("").await;
    world
        .consents()
        .revoke_consent(revoke(&world, &tokens.grant_id, &session, ""))
        .await
        .unwrap();
    let result = world
        .consents()
        .change_designated_user(change(&world, &tokens.grant_id, &session, name))
        .await;
    assert_eq!(refused(result, WRONG_STATE)["state"], "REVOKED");

    // A superseded consent can't be revoked.
    let old = world.first_tokens(&partner).await;
    world.first_tokens(&partner).await;
    let result = world
        .consents()
        .revoke_consent(revoke(&world, &old.grant_id, &session, ""))
        .await;
    assert_eq!(refused(result, WRONG_STATE)["state"], "SUPERSEDED");
    dev.stop().await.unwrap();
}

async fn a_tenant_admin_sees_what_operators_did_in_both_services() {
    let (_directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let grant_id = world.first_tokens(&partner).await.grant_id;
    world.suspend(Party::Client(&partner)).await;
    let mut operators = ConsentServiceClient::new(world.token_operator.clone());
    ok(operators
        .revoke_consent(revoke(&world, &grant_id, "", "a leak"))
        .await);

    let request = tok::ListOperatorActionsRequest {
        tenant_id: world.target.tenant_id.clone(),
        admin_session: world.sign_in("").await,
        ..Default::default()
    };
    let listed = ok(world.consents().list_operator_actions(request).await).operator_actions;
    let told: Vec<_> = listed
        .iter()
        .filter(|action| action.client_id == partner.client_id)
        .map(|action| action.action.as_str())
        .collect();
    assert_eq!(told, ["consent.revoke", "client.suspend", "client.register"]);
    assert_eq!(listed[0].reason, "a leak");
    dev.stop().await.unwrap();
}
