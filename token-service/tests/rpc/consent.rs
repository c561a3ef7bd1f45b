//! `ConsentService`: reading consents; `changes` revokes them and changes their user.

use std::time::Duration;

use accord::{
    clock::Clock,
    rpc::auth::Role,
    token::v1::{self as pb, ConsentState},
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{assert_rejected, assert_violations, ok},
    world::World,
};

mod changes;
mod operator_actions;
mod receipt;
mod usage;

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
    let answer = world.consents().get_consent(request).await?;
    Ok(answer.into_inner().consent.unwrap())
}

async fn revoke(world: &World, request: pb::RevokeConsentRequest) -> Result<pb::Consent, Status> {
    let answer = world.consents().revoke_consent(request).await?;
    Ok(answer.into_inner().consent.unwrap())
}

async fn change(world: &World, request: pb::ChangeDesignatedUserRequest) -> Result<pb::Consent, Status> {
    let answer = world.consents().change_designated_user(request).await?;
    Ok(answer.into_inner().consent.unwrap())
}

#[track_caller]
fn assert_not_found<T>(answer: Result<T, Status>, resource: &str) {
    assert_eq!(
        assert_rejected(answer, Code::NotFound, "NOT_FOUND")["resource"],
        resource
    );
}

#[track_caller]
fn assert_wrong_state<T>(answer: Result<T, Status>, state: &str) {
    let metadata = assert_rejected(answer, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!((&*metadata["resource"], &*metadata["state"]), ("consent", state));
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
    assert_not_found(unknown, "consent");
    let bad = pb::GetConsentRequest {
        tenant_id: "A".into(),
        ..getting("grt_", &session)
    };
    assert_violations(get(&world, bad).await, &["tenant_id", "grant_id"]);

    let without = get(&world, getting(&grant_id, "")).await;
    assert_rejected(without, Code::Unauthenticated, "ADMIN_SESSION_INVALID");
    let foreign = world.sign_in_at("globex").await;
    let refused = get(&world, getting(&grant_id, &foreign)).await;
    assert_not_found(refused, "consent");
    let refused = world.list(listing(&foreign)).await;
    assert_not_found(refused, "tenant");
    let refused = revoke(&world, revoking(&grant_id, &foreign, "")).await;
    assert_rejected(refused, Code::NotFound, "NOT_FOUND");
    let refused = change(&world, changing(&grant_id, &foreign, world.api_user_name())).await;
    assert_rejected(refused, Code::NotFound, "NOT_FOUND");
    let own = pb::GetConsentRequest {
        tenant_id: "globex".into(),
        ..getting(&grant_id, &foreign)
    };
    assert_rejected(get(&world, own).await, Code::NotFound, "NOT_FOUND");
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
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let refused = consents.list_consents(listing(&session)).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let elsewhere = pb::ListConsentsRequest {
            tenant_id: "nobody".into(),
            ..listing("")
        };
        let refused = consents.list_consents(elsewhere).await;
        assert_not_found(refused, "tenant");
    }
    for role in [Role::Registrar, Role::Approver] {
        let refused = world.consents_of(role).get_consent(getting(&grant_id, "")).await;
        assert_rejected(refused, Code::PermissionDenied, "PERMISSION_DENIED");
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
    let changes: [Change; 3] = [
        |world, on| world.suspend("client", on),
        |world, on| world.suspend("tenant", on),
        |world, on| world.deactivate_api_user(on),
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
    assert_rejected::<()>(Err(refused), Code::Unavailable, "UNAVAILABLE");
}

#[tokio::test]
async fn a_consent_ends_for_good_when_the_client_loses_the_tenant() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let waiting = world.code().await;
    let listing = pb::ListConsentsRequest {
        tenant_id: "acme".into(),
        state: ConsentState::Revoked.into(),
        ..Default::default()
    };
    for tenant_id in ["globex", "acme"] {
        world.set_client_tenant(tenant_id);
        assert_eq!(
            world.consent(&tokens.grant_id).await.state(),
            ConsentState::Revoked,
            "{tenant_id}"
        );
        let refused = world.issue(world.by_client_credentials()).await;
        assert_rejected(refused, Code::PermissionDenied, "CONSENT_REQUIRED");
        let refused = world.refresh(&tokens.refresh_token).await;
        assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
        let refused = world.issue(world.by_code(&waiting)).await;
        assert_rejected(refused, Code::FailedPrecondition, "INVALID_GRANT");
        for token in [&tokens.access_token, &tokens.refresh_token] {
            assert!(!world.is_active(token).await, "{tenant_id}");
        }
        let mut auditor = world.consents_of(Role::Auditor);
        let listed = ok(auditor.list_consents(listing.clone()).await).consents;
        assert_eq!(listed.len(), 2, "{tenant_id}");
    }
    // A new consent covers the tenant again.
    let again = world.first_tokens().await;
    assert!(world.is_active(&again.access_token).await);
    world.refresh(&again.refresh_token).await.unwrap();
    assert_eq!(
        world.consent(&tokens.grant_id).await.state(),
        ConsentState::Superseded
    );
}

#[tokio::test]
async fn a_scope_that_the_client_lost_does_not_come_back_to_a_consent() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    assert_eq!(tokens.scope, "contacts.read contacts.write");
    world.change_client(|client| client.scopes.retain(|scope| scope.name == "contacts.read"));
    let left = world.refresh(&tokens.refresh_token).await.unwrap();
    assert_eq!(left.scope, "contacts.read");
    assert_eq!(world.consent(&tokens.grant_id).await.scopes, ["contacts.read"]);
    world.add_client_scope("contacts.write");
    assert_eq!(world.consent(&tokens.grant_id).await.scopes, ["contacts.read"]);
    let still = world.refresh(&left.refresh_token).await.unwrap();
    assert_eq!(still.scope, "contacts.read");
    for token in [&still.access_token, &still.refresh_token] {
        assert_eq!(world.introspect(token).await.scope, "contacts.read");
    }
    let mut beyond = world.by_client_credentials();
    beyond.scopes = vec!["contacts.write".into()];
    assert_rejected(world.issue(beyond).await, Code::InvalidArgument, "INVALID_SCOPE");
    let again = world.first_tokens().await;
    assert_eq!(again.scope, "contacts.read contacts.write");
}
