//! `ConsentService`.

use std::time::Duration;

use accord::{
    clock::Clock,
    rpc::auth::Role,
    token::v1::{self as pb, ConsentState},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{assert_refused, assert_violations, ok},
    world::World,
};

const MINUTE: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "grt_01jd0000000000000000000000";

fn getting(grant_id: &str, session: &str) -> pb::GetConsentRequest {
    pb::GetConsentRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
    }
}

fn listing(session: &str) -> pb::ListConsentsRequest {
    pb::ListConsentsRequest {
        tenant_id: "acme".into(),
        admin_session: session.into(),
        ..Default::default()
    }
}

fn revoking(grant_id: &str, session: &str, reason: &str) -> pb::RevokeConsentRequest {
    pb::RevokeConsentRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
        reason: reason.into(),
    }
}

fn changing(grant_id: &str, session: &str, account_name: &str) -> pb::ChangeDesignatedUserRequest {
    pb::ChangeDesignatedUserRequest {
        tenant_id: "acme".into(),
        grant_id: grant_id.into(),
        admin_session: session.into(),
        designated_account_name: account_name.into(),
    }
}

async fn get(world: &World, request: pb::GetConsentRequest) -> Result<pb::Consent, Status> {
    Ok(world
        .consents()
        .get_consent(request)
        .await?
        .into_inner()
        .consent
        .unwrap())
}

async fn revoke(world: &World, request: pb::RevokeConsentRequest) -> Result<pb::Consent, Status> {
    Ok(world
        .consents()
        .revoke_consent(request)
        .await?
        .into_inner()
        .consent
        .unwrap())
}

async fn change(world: &World, request: pb::ChangeDesignatedUserRequest) -> Result<pb::Consent, Status> {
    let answer = world.consents().change_designated_user(request).await?;
    Ok(answer.into_inner().consent.unwrap())
}

fn ids(consents: &[pb::Consent]) -> Vec<&str> {
    consents.iter().map(|consent| consent.grant_id.as_str()).collect()
}

#[tokio::test]
async fn a_tenant_admin_reads_the_tenants_own_consents() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    let consent = get(&world, getting(&grant_id, &session)).await.unwrap();
    assert_eq!(
        (consent.grant_id.as_str(), consent.tenant_id.as_str()),
        (grant_id.as_str(), "acme")
    );
    assert_eq!(consent.state(), ConsentState::Active);
    assert_eq!(consent.activate_time, Some(world.clock().now().to_timestamp()));
    assert_eq!((consent.expire_time, consent.end_time), (None, None));
    let listed = world.list(listing(&session)).await.unwrap();
    assert_eq!(listed.consents, [consent]);
    assert_eq!(listed.next_page_token, "");

    let unknown = get(&world, getting(UNKNOWN, &session)).await;
    assert_eq!(
        assert_refused(unknown, Code::NotFound, "NOT_FOUND")["resource"],
        "consent"
    );
    let bad = pb::GetConsentRequest {
        tenant_id: "A".into(),
        ..getting("grt_", &session)
    };
    assert_violations(get(&world, bad).await, &["tenant_id", "grant_id"]);

    let without = get(&world, getting(&grant_id, "")).await;
    assert_refused(without, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let foreign = world.sign_in_at("globex").await;
    let refused = get(&world, getting(&grant_id, &foreign)).await;
    assert_eq!(
        assert_refused(refused, Code::NotFound, "NOT_FOUND")["resource"],
        "consent"
    );
    let refused = world.list(listing(&foreign)).await;
    assert_eq!(
        assert_refused(refused, Code::NotFound, "NOT_FOUND")["resource"],
        "tenant"
    );
    let refused = revoke(&world, revoking(&grant_id, &foreign, "")).await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND");
    let refused = change(&world, changing(&grant_id, &foreign, world.api_user_name())).await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND");
    let own = pb::GetConsentRequest {
        tenant_id: "globex".into(),
        ..getting(&grant_id, &foreign)
    };
    assert_refused(get(&world, own).await, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn operators_read_without_a_session() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    for role in [Role::Auditor, Role::Security, Role::Admin] {
        let mut consents = world.consents_of(role);
        let consent = ok(consents.get_consent(getting(&grant_id, "")).await);
        assert_eq!(consent.consent.unwrap().grant_id, grant_id);
        let listed = ok(consents.list_consents(listing("")).await);
        assert_eq!(ids(&listed.consents), [grant_id.as_str()]);
        let refused = consents.get_consent(getting(&grant_id, &session)).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let refused = consents.list_consents(listing(&session)).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let elsewhere = pb::ListConsentsRequest {
            tenant_id: "nobody".into(),
            ..listing("")
        };
        let refused = consents.list_consents(elsewhere).await;
        assert_eq!(
            assert_refused(refused, Code::NotFound, "NOT_FOUND")["resource"],
            "tenant"
        );
    }
    for role in [Role::Registrar, Role::Approver] {
        let refused = world.consents_of(role).get_consent(getting(&grant_id, "")).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
}

#[tokio::test]
async fn consents_are_listed_newest_first_in_pages_and_by_their_state() {
    let world = World::start().await;
    let session = world.sign_in("").await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(world.active_grant().await);
        world.clock().advance(Duration::from_millis(2));
    }
    all.push(world.pending_grant().await);
    let newest_first: Vec<_> = all.iter().rev().map(String::as_str).collect();
    let mut seen = Vec::new();
    let mut request = pb::ListConsentsRequest {
        page_size: 3,
        ..listing(&session)
    };
    loop {
        let page = world.list(request.clone()).await.unwrap();
        seen.extend(page.consents);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(ids(&seen), newest_first);
    let states: Vec<_> = seen.iter().map(pb::Consent::state).collect();
    use ConsentState::{Active, Pending, Superseded};
    assert_eq!(states, [Pending, Active, Superseded, Superseded]);

    let in_state = async |state: ConsentState, client_id: &str| {
        let request = pb::ListConsentsRequest {
            state: state.into(),
            client_id: client_id.into(),
            ..listing(&session)
        };
        let page = world.list(request).await.unwrap();
        page.consents
            .into_iter()
            .map(|consent| consent.grant_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(in_state(Superseded, "").await, [all[1].clone(), all[0].clone()]);
    assert_eq!(in_state(Active, &world.client_id).await, [all[2].clone()]);
    assert_eq!(in_state(Active, "cli_01jd0000000000000000000000").await, [""; 0]);
    world.clock().advance(MINUTE);
    assert_eq!(in_state(ConsentState::Expired, "").await, [all[3].clone()]);
    assert_eq!(in_state(Pending, "").await, [""; 0]);
    world.deactivate_api_user(true);
    assert_eq!(in_state(ConsentState::Suspended, "").await, [all[2].clone()]);
    assert_eq!(in_state(Active, "").await, [""; 0]);

    let bad = pb::ListConsentsRequest {
        tenant_id: "A".into(),
        client_id: "x".into(),
        state: 99,
        page_size: -1,
        ..listing(&session)
    };
    assert_violations(
        world.list(bad).await,
        &["tenant_id", "client_id", "state", "page_size"],
    );
}

#[tokio::test]
async fn an_active_consent_is_suspended_while_one_of_its_parties_is() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    type Change = fn(&World, bool);
    let changes: [Change; 4] = [
        |world, on| world.suspend("client", on),
        |world, on| world.suspend("tenant", on),
        |world, on| world.deactivate_api_user(on),
        |world, on| world.let_client_ask(if on { "globex" } else { "acme" }),
    ];
    for change in changes {
        change(&world, true);
        assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Suspended);
        change(&world, false);
        assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Active);
    }
    world.deactivate_admin(true);
    assert_eq!(
        world.consent(&grant_id).await.state(),
        ConsentState::Active,
        "who consented is of no matter"
    );
    world.registry().set_unavailable(true);
    let refused = world
        .consents_of(Role::Auditor)
        .get_consent(getting(&grant_id, ""))
        .await
        .unwrap_err();
    assert!(refused.get_details_retry_info().is_some());
    assert_refused::<()>(Err(refused), Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_tenant_admin_revokes_for_good() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let pending = world.pending_grant().await;
    let session = world.sign_in("").await;
    for grant_id in [&grant_id, &pending] {
        let revoked = revoke(&world, revoking(grant_id, &session, "")).await.unwrap();
        assert_eq!(revoked.state(), ConsentState::Revoked);
        assert_eq!(revoked.end_time, Some(world.clock().now().to_timestamp()));
        world.clock().advance(Duration::from_secs(1));
        let again = revoke(&world, revoking(grant_id, &session, "again"))
            .await
            .unwrap();
        assert_eq!(again, revoked);
        assert_eq!(world.consent(grant_id).await, revoked);
    }
    let events = world.audit_events("consent.revoke").await;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.actor_id == world.admin_id));
    let refused = change(&world, changing(&grant_id, &session, world.api_user_name())).await;
    assert_eq!(
        assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "REVOKED"
    );
    let unknown = revoke(&world, revoking(UNKNOWN, &session, "")).await;
    assert_eq!(
        assert_refused(unknown, Code::NotFound, "NOT_FOUND")["resource"],
        "consent"
    );
}

#[tokio::test]
async fn operators_revoke_with_a_reason() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let mut consents = world.consents_of(Role::Security);
    let bad = pb::RevokeConsentRequest {
        tenant_id: "A".into(),
        ..revoking("x", "", "  ")
    };
    assert_violations(
        consents.revoke_consent(bad).await,
        &["tenant_id", "grant_id", "reason"],
    );
    let long = "r".repeat(1001);
    assert_violations(
        consents.revoke_consent(revoking(&grant_id, "", &long)).await,
        &["reason"],
    );
    for role in [Role::Auditor, Role::Registrar, Role::Approver] {
        let refused = world
            .consents_of(role)
            .revoke_consent(revoking(&grant_id, "", "why"))
            .await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let session = world.sign_in("").await;
    let refused = consents
        .revoke_consent(revoking(&grant_id, &session, "why"))
        .await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Active);

    consents
        .revoke_consent(revoking(&grant_id, "", "leaked credentials"))
        .await
        .unwrap();
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Revoked);
    let event = world.audit_events("consent.revoke").await.remove(0);
    assert_eq!(event.detail["reason"], "leaked credentials");
}

#[tokio::test]
async fn what_ended_otherwise_can_not_be_revoked() {
    let world = World::start().await;
    let first = world.active_grant().await;
    world.active_grant().await;
    let lapsed = world.pending_grant().await;
    world.clock().advance(MINUTE);
    let session = world.sign_in("").await;
    for (grant_id, state) in [(first, "SUPERSEDED"), (lapsed, "EXPIRED")] {
        let refused = revoke(&world, revoking(&grant_id, &session, "")).await;
        let metadata = assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE");
        assert_eq!(
            (metadata["resource"].as_str(), metadata["state"].as_str()),
            ("consent", state)
        );
        let refused = change(&world, changing(&grant_id, &session, world.api_user_name())).await;
        assert_eq!(
            assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
            state
        );
    }
}

#[tokio::test]
async fn a_suspended_consent_can_be_revoked() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    world.suspend("client", true);
    let session = world.sign_in("").await;
    let revoked = revoke(&world, revoking(&grant_id, &session, "")).await.unwrap();
    assert_eq!(revoked.state(), ConsentState::Revoked);
}

#[tokio::test]
async fn a_tenant_admin_changes_the_designated_user() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let session = world.sign_in("").await;
    let same = change(&world, changing(&grant_id, &session, world.api_user_name()))
        .await
        .unwrap();
    assert_eq!(same.designated_user_id, world.api_user_id);
    assert!(
        world
            .audit_events("consent.change_designated_user")
            .await
            .is_empty()
    );

    // A suspended consent can be given another user: that is how it goes on after a deactivation.
    world.deactivate_api_user(true);
    assert_eq!(world.consent(&grant_id).await.state(), ConsentState::Suspended);
    let changed = change(&world, changing(&grant_id, &session, world.second_user_name()))
        .await
        .unwrap();
    assert_eq!(changed.designated_user_id, world.second_user_id);
    assert_ne!(changed.designated_user_label, same.designated_user_label);
    assert_eq!(changed.state(), ConsentState::Active);
    let event = world
        .audit_events("consent.change_designated_user")
        .await
        .remove(0);
    assert_eq!((&event.actor_id, &event.subject), (&world.admin_id, &grant_id));
    assert_eq!(event.detail["old_user_id"], world.api_user_id);
    assert_eq!(event.detail["new_user_id"], world.second_user_id);

    for account_name in ["nobody", world.api_user_name(), world.globex_admin_name()] {
        let refused = change(&world, changing(&grant_id, &session, account_name)).await;
        let metadata = assert_refused(refused, Code::NotFound, "NOT_FOUND");
        assert_eq!(metadata["resource"], "user", "{account_name}");
    }
    let bad = pb::ChangeDesignatedUserRequest {
        tenant_id: "A".into(),
        ..changing("x", &session, "")
    };
    let fields = ["tenant_id", "grant_id", "designated_account_name"];
    assert_violations(change(&world, bad).await, &fields);
    let unknown = change(&world, changing(UNKNOWN, &session, world.second_user_name())).await;
    assert_eq!(
        assert_refused(unknown, Code::NotFound, "NOT_FOUND")["resource"],
        "consent"
    );
}

#[tokio::test]
async fn a_change_of_the_designated_user_needs_a_fresh_sign_in_and_an_active_consent() {
    let world = World::start().await;
    let grant_id = world.active_grant().await;
    let pending = world.pending_grant().await;
    let session = world.sign_in("").await;
    let refused = change(&world, changing(&pending, &session, world.second_user_name())).await;
    assert_eq!(
        assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE")["state"],
        "PENDING"
    );
    world.clock().advance(5 * MINUTE + Duration::from_millis(1));
    let refused = change(&world, changing(&grant_id, &session, world.second_user_name())).await;
    assert_refused(refused, Code::PermissionDenied, "SIGN_IN_TOO_OLD");
    let refused = change(&world, changing(&grant_id, "", world.second_user_name())).await;
    assert_refused(refused, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    for role in Role::ALL {
        let request = changing(&grant_id, "", world.second_user_name());
        let refused = world.consents_of(role).change_designated_user(request).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    assert_eq!(
        world.consent(&grant_id).await.designated_user_id,
        world.api_user_id
    );
}

#[tokio::test]
async fn tokens_end_with_their_consent_and_a_pending_code_dies() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let code = world.code().await;
    let session = world.sign_in("").await;
    assert!(world.is_active(&tokens.access_token).await);
    let listed = world.list(listing(&session)).await.unwrap();
    for grant_id in ids(&listed.consents) {
        revoke(&world, revoking(grant_id, &session, "")).await.unwrap();
    }
    assert!(!world.is_active(&tokens.access_token).await);
    assert!(!world.is_active(&tokens.refresh_token).await);
    let refused = world.refresh(&tokens.refresh_token).await;
    assert_refused(refused, Code::FailedPrecondition, "INVALID_GRANT");
    let refused = world.issue(world.by_code(&code)).await;
    assert_refused(refused, Code::FailedPrecondition, "INVALID_GRANT");
    let refused = world.issue(world.by_client_credentials()).await;
    assert_refused(refused, Code::PermissionDenied, "CONSENT_REQUIRED");
}

#[tokio::test]
async fn with_another_designated_user_access_tokens_end_and_refresh_tokens_go_on() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let session = world.sign_in("").await;
    change(
        &world,
        changing(&tokens.grant_id, &session, world.second_user_name()),
    )
    .await
    .unwrap();
    assert!(!world.is_active(&tokens.access_token).await);
    let renewed = world.refresh(&tokens.refresh_token).await.unwrap();
    assert_eq!(
        world.introspect(&renewed.access_token).await.sub,
        world.second_user_id
    );
}
