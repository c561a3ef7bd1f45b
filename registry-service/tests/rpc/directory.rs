//! `DirectoryService`: what token-service is told, and at which position of the change feed.

use std::time::Duration;

use accord::{
    audit::v1::AuditOutcome,
    auth::{Role, WorkloadKind},
    clock::Clock,
    opaque::TokenKind,
    registry::v1::{
        self as pb, authenticate_caller_response::Caller, client_service_client::ClientServiceClient,
        directory_service_client::DirectoryServiceClient, operator_service_client::OperatorServiceClient,
        resolve_user_request::User as Which, tenant_service_client::TenantServiceClient,
    },
};
use tonic::{Code, Status};

use crate::{
    client,
    harness::{CallerChannel, Harness, assert_refused, assert_violations, strangers_token},
    user::{PASSWORD, admin, enrol, registered, registrar, security, seeded},
};

const NAME: &str = "ada.admin@firm.example";

fn directory(harness: &Harness) -> DirectoryServiceClient<CallerChannel> {
    DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService))
}

async fn sign_in(
    harness: &Harness,
    tenant_id: &str,
    name: &str,
    password: &str,
) -> Result<pb::AuthenticateTenantAdminResponse, Status> {
    let request = pb::AuthenticateTenantAdminRequest {
        tenant_id: tenant_id.into(),
        account_name: name.into(),
        password: password.into(),
    };
    Ok(directory(harness)
        .authenticate_tenant_admin(request)
        .await?
        .into_inner())
}

async fn changes(harness: &Harness, epoch: &str, seq: i64, page_size: i32) -> pb::ListChangesResponse {
    let request = pb::ListChangesRequest {
        after: Some(pb::FeedPosition {
            epoch: epoch.into(),
            seq,
        }),
        page_size,
    };
    directory(harness)
        .list_changes(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn each_sign_in_costs_one_hash_whatever_the_answer() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    let not_enrolled = registered(&harness, admin("late@firm.example")).await;
    assert!(!not_enrolled.enrolment_token.is_empty());
    let long = format!("{}{PASSWORD}", "x".repeat(72));
    enrol(&harness, &made.enrolment_token, &format!("{long}\0tail"))
        .await
        .unwrap();
    let user_id = made.user.unwrap().user_id;

    let proven = sign_in(
        &harness,
        "firm-one",
        "ADA.ADMIN@firm.example",
        &format!("{long}\0tail"),
    )
    .await
    .unwrap();
    assert_eq!(proven.user.unwrap().user_id, user_id);
    assert_eq!(harness.audit_events("user.sign_in").await.len(), 1);

    let hasher = harness.registry.store().hasher().clone();
    let attempts = [
        ("firm-one", NAME, format!("{long}\0tale")),
        ("firm-one", NAME, format!("{long}.\0tail")),
        ("firm-one", NAME, long.clone()),
        ("firm-one", NAME, "x".repeat(72)),
        ("firm-one", NAME, "short".to_owned()),
        ("firm-one", NAME, String::new()),
        ("firm-one", NAME, "x".repeat(100_000)),
        ("firm-one", "nobody@firm.example", long.clone()),
        ("firm-one", "late@firm.example", long.clone()),
        ("firm-one", "not\0a name", long.clone()),
        ("firm-two", NAME, format!("{long}\0tail")),
        ("firm-nine", NAME, format!("{long}\0tail")),
    ];
    let mut messages = Vec::new();
    for (tenant_id, name, password) in attempts {
        let before = hasher.runs();
        let refused = sign_in(&harness, tenant_id, name, &password).await;
        messages.push(refused.as_ref().unwrap_err().message().to_owned());
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(hasher.runs() - before, 1, "{tenant_id} {name}");
    }
    messages.dedup();
    assert_eq!(messages.len(), 1);
    for event in harness.audit_events("user.sign_in").await {
        assert!(!format!("{event:?}").contains("firm.example"), "{event:?}");
    }

    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id,
    };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let before = hasher.runs();
    let refused = sign_in(&harness, "firm-one", NAME, &format!("{long}\0tail")).await;
    assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
    assert_eq!(hasher.runs() - before, 1);
}

#[tokio::test]
async fn users_are_resolved_with_the_positions_at_which_things_ended() {
    let harness = seeded().await;
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    let resolve = |which| pb::ResolveUserRequest {
        tenant_id: "firm-one".into(),
        user: Some(which),
    };
    let by_name = directory(&harness)
        .resolve_user(resolve(Which::AccountName(NAME.to_uppercase())))
        .await
        .unwrap();
    let first = by_name.into_inner();
    let profile = first.user.unwrap();
    assert_eq!(
        (profile.user_id.as_str(), profile.tokens_ended_seq),
        (user.user_id.as_str(), 0)
    );

    let ids = (user.tenant_id.clone(), user.user_id.clone());
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: ids.0.clone(),
        user_id: ids.1.clone(),
        request_id: String::new(),
    };
    registrar(&harness).reset_user_password(reset).await.unwrap();
    let by_id = || resolve(Which::UserId(ids.1.clone()));
    let after_reset = directory(&harness)
        .resolve_user(by_id())
        .await
        .unwrap()
        .into_inner();
    let (profile, position) = (after_reset.user.unwrap(), after_reset.position.unwrap());
    assert_eq!(
        (profile.sessions_ended_seq, profile.tokens_ended_seq),
        (position.seq, 0)
    );
    assert!(position.seq > first.position.as_ref().unwrap().seq);
    assert_eq!(position.epoch, first.position.unwrap().epoch);

    let deactivate = pb::DeactivateUserRequest {
        tenant_id: ids.0.clone(),
        user_id: ids.1.clone(),
    };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let deactivated = directory(&harness)
        .resolve_user(by_id())
        .await
        .unwrap()
        .into_inner();
    let (profile, position) = (deactivated.user.unwrap(), deactivated.position.unwrap());
    assert_eq!(
        (profile.sessions_ended_seq, profile.tokens_ended_seq),
        (position.seq, position.seq)
    );
    assert_eq!(profile.state(), pb::UserState::Deactivated);

    let unknown = resolve(Which::AccountName("nobody@firm.example".into()));
    assert_refused(
        directory(&harness).resolve_user(unknown).await,
        Code::NotFound,
        "NOT_FOUND",
    );
    let nothing = pb::ResolveUserRequest::default();
    assert_violations(
        directory(&harness).resolve_user(nothing).await,
        &["tenant_id", "user"],
    );
}

#[tokio::test]
async fn callers_are_known_until_they_are_revoked() {
    let harness = seeded().await;
    let ask = |token: &str| pb::AuthenticateCallerRequest { token: token.into() };
    let token = harness.operator_token(Role::Auditor).expose().to_owned();
    let known = directory(&harness)
        .authenticate_caller(ask(&token))
        .await
        .unwrap()
        .into_inner();
    let Some(Caller::Operator(operator)) = known.caller else {
        panic!("no operator");
    };
    assert_eq!(operator.roles().collect::<Vec<_>>(), [pb::OperatorRole::Auditor]);
    for unknown in ["", "x", &strangers_token(TokenKind::Operator)] {
        let refused = directory(&harness).authenticate_caller(ask(unknown)).await;
        assert_refused(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    }
    let mut operators = OperatorServiceClient::new(harness.operator(Role::Security));
    let revoke = pb::RevokeOperatorRequest {
        operator_id: operator.operator_id,
    };
    operators.revoke_operator(revoke).await.unwrap();
    let refused = directory(&harness).authenticate_caller(ask(&token)).await;
    assert_refused(refused, Code::Unauthenticated, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_tenants_profile_names_issuer_and_audience() {
    let harness = seeded().await;
    let ask = |tenant_id: &str| pb::GetTenantProfileRequest {
        tenant_id: tenant_id.into(),
    };
    let told = directory(&harness)
        .get_tenant_profile(ask("firm-one"))
        .await
        .unwrap()
        .into_inner();
    let profile = told.tenant.unwrap();
    assert_eq!(
        profile.tenant_authority_url,
        format!("{}/firm-one", crate::harness::PUBLIC_BASE_URL)
    );
    assert_eq!(profile.cloud_api_url, "https://api.example/firm-one");
    let unknown = directory(&harness).get_tenant_profile(ask("firm-nine")).await;
    assert_refused(unknown, Code::NotFound, "NOT_FOUND");
    let malformed = directory(&harness).get_tenant_profile(ask("Firm")).await;
    assert_violations(malformed, &["tenant_id"]);
}

#[tokio::test]
async fn the_feed_tells_what_changed_and_where_it_is() {
    let harness = seeded().await;
    let position = changes(&harness, "", 0, 0).await.position.unwrap();
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    harness.tenant("firm-three").await;

    let told = changes(&harness, &position.epoch, position.seq, 0).await;
    let kinds: Vec<_> = told
        .changes
        .iter()
        .map(|change| (change.kind(), change.id.as_str()))
        .collect();
    let expected = [
        (pb::ChangeKind::User, user.user_id.as_str()),
        (pb::ChangeKind::Tenant, "firm-three"),
    ];
    assert_eq!(kinds, expected);
    assert!(!told.reset && !told.more);
    assert_eq!(told.position.as_ref().unwrap().seq, position.seq + 2);

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
async fn unknown_reported_uses_are_passed_over() {
    let harness = seeded().await;
    let uses = |count: usize| pb::ReportSecretUseRequest {
        uses: vec![
            pb::SecretUse {
                client_id: "cli_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
                secret_id: "sec_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
                used_time: Some(accord::testing::TEST_START.to_timestamp()),
            };
            count
        ],
    };
    directory(&harness).report_secret_use(uses(3)).await.unwrap();
    assert_violations(directory(&harness).report_secret_use(uses(1001)).await, &["uses"]);
    let mut bad = uses(1);
    bad.uses[0] = pb::SecretUse::default();
    let refused = directory(&harness).report_secret_use(bad).await;
    assert_violations(
        refused,
        &["uses[0].client_id", "uses[0].secret_id", "uses[0].used_time"],
    );
}

#[tokio::test]
async fn who_may_not_sign_in_is_refused_like_a_stranger() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    enrol(&harness, &made.enrolment_token, PASSWORD).await.unwrap();
    let plain = pb::RegisterUserRequest {
        tenant_admin: false,
        ..admin("api@firm.example")
    };
    registered(&harness, plain).await;
    let hasher = harness.registry.store().hasher().clone();
    let refused = async |name: &str| {
        let before = hasher.runs();
        let refused = sign_in(&harness, "firm-one", name, PASSWORD).await;
        let message = refused.as_ref().unwrap_err().message().to_owned();
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(hasher.runs() - before, 1, "{name}");
        message
    };
    let mut messages = vec![refused("stranger").await, refused("api@firm.example").await];

    // A suspended tenant's admins are refused until it is reinstated.
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    let tenant_id = "firm-one".to_owned();
    let suspend = pb::SuspendTenantRequest {
        tenant_id: tenant_id.clone(),
    };
    tenants.suspend_tenant(suspend).await.unwrap();
    messages.push(refused(NAME).await);
    let reinstate = pb::ReinstateTenantRequest {
        tenant_id: tenant_id.clone(),
    };
    tenants.reinstate_tenant(reinstate).await.unwrap();
    let before = hasher.runs();
    sign_in(&harness, "firm-one", NAME, PASSWORD).await.unwrap();
    assert_eq!(hasher.runs() - before, 1);

    // A reset password is none; the one that is chosen then is another.
    let reset = pb::ResetUserPasswordRequest {
        tenant_id,
        user_id: made.user.unwrap().user_id,
        request_id: String::new(),
    };
    let reset = registrar(&harness).reset_user_password(reset).await.unwrap();
    messages.push(refused(NAME).await);
    let token = reset.into_inner().enrolment_token;
    enrol(&harness, &token, "another long password").await.unwrap();
    messages.push(refused(NAME).await);
    sign_in(&harness, "firm-one", NAME, "another long password")
        .await
        .unwrap();
    messages.dedup();
    assert_eq!(messages.len(), 1);

    let before = hasher.runs();
    assert_violations(sign_in(&harness, "Firm", NAME, PASSWORD).await, &["tenant_id"]);
    assert_eq!(
        hasher.runs(),
        before,
        "a text that can't be a tenant's id says nothing"
    );
}

#[tokio::test]
async fn the_trail_tells_who_failed_to_sign_in_where() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    enrol(&harness, &made.enrolment_token, PASSWORD).await.unwrap();
    let user_id = made.user.unwrap().user_id;
    sign_in(&harness, "firm-one", NAME, PASSWORD).await.unwrap();
    for (tenant_id, name) in [
        ("firm-one", NAME),
        ("firm-two", NAME),
        ("firm-nine", NAME),
        ("firm-one", "stranger"),
    ] {
        harness.clock.advance(Duration::from_millis(1));
        let refused = sign_in(&harness, tenant_id, name, "not the password of anybody").await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
    }
    let mut events = harness.audit_events("user.sign_in").await;
    events.reverse();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.outcome(), event.tenant_id.as_str(), event.subject.as_str()))
        .collect();
    let user_id = user_id.as_str();
    let expected = [
        (AuditOutcome::Success, "firm-one", user_id),
        (AuditOutcome::Refused, "firm-one", user_id),
        (AuditOutcome::Refused, "firm-two", ""),
        (AuditOutcome::Refused, "", ""),
        (AuditOutcome::Refused, "firm-one", ""),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn another_tenants_user_is_not_resolved() {
    let harness = seeded().await;
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    let ask = |tenant_id: &str, which: Which| pb::ResolveUserRequest {
        tenant_id: tenant_id.into(),
        user: Some(which),
    };
    for which in [
        Which::UserId(user.user_id.clone()),
        Which::AccountName(NAME.into()),
    ] {
        for tenant_id in ["firm-two", "firm-nine"] {
            let refused = directory(&harness)
                .resolve_user(ask(tenant_id, which.clone()))
                .await;
            assert_eq!(
                assert_refused(refused, Code::NotFound, "NOT_FOUND")["resource"],
                "user"
            );
        }
    }
    // The same name there is that tenant's user.
    let elsewhere = pb::RegisterUserRequest {
        tenant_id: "firm-two".into(),
        tenant_admin: false,
        ..admin(NAME)
    };
    let other = registered(&harness, elsewhere).await.user.unwrap();
    for (tenant_id, expected) in [("firm-one", &user), ("firm-two", &other)] {
        let asked = ask(tenant_id, Which::AccountName(NAME.to_uppercase()));
        let profile = directory(&harness).resolve_user(asked).await.unwrap();
        let profile = profile.into_inner().user.unwrap();
        assert_eq!(
            (&profile.user_id, &profile.label, profile.tenant_admin),
            (&expected.user_id, &expected.label, expected.tenant_admin)
        );
    }
    let malformed = ask("Firm", Which::UserId(user.tenant_id));
    let refused = directory(&harness).resolve_user(malformed).await;
    assert_violations(refused, &["tenant_id", "user_id"]);
    let malformed = ask("firm-one", Which::AccountName(String::new()));
    let refused = directory(&harness).resolve_user(malformed).await;
    assert_violations(refused, &["account_name"]);
}

#[tokio::test]
async fn a_workload_is_known_until_it_is_revoked() {
    let harness = Harness::start().await;
    let mut callers = OperatorServiceClient::new(harness.operator(Role::Admin));
    let new = pb::CreateWorkloadRequest {
        request_id: String::new(),
        name: "pages".into(),
        kind: pb::WorkloadKind::InternalService.into(),
    };
    let made = callers.create_workload(new).await.unwrap().into_inner();
    let ask = |token: &str| pb::AuthenticateCallerRequest { token: token.into() };
    let known = directory(&harness)
        .authenticate_caller(ask(&made.workload_token))
        .await
        .unwrap()
        .into_inner();
    let workload = made.workload.unwrap();
    assert_eq!(known.caller, Some(Caller::Workload(workload.clone())));
    let before = known.position.unwrap();

    let revoke = pb::RevokeWorkloadRequest {
        workload_id: workload.workload_id.clone(),
    };
    callers.revoke_workload(revoke).await.unwrap();
    let mut messages = Vec::new();
    for unknown in [
        made.workload_token.as_str(),
        &strangers_token(TokenKind::Workload),
        &strangers_token(TokenKind::Enrolment),
        "acw_",
    ] {
        let refused = directory(&harness).authenticate_caller(ask(unknown)).await;
        messages.push(refused.as_ref().unwrap_err().message().to_owned());
        assert_refused(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    }
    messages.dedup();
    assert_eq!(messages.len(), 1);
    // Who remembers callers is told.
    let told = changes(&harness, &before.epoch, before.seq, 0).await;
    assert_eq!(told.changes.len(), 1);
    assert_eq!(
        (told.changes[0].kind(), &told.changes[0].id),
        (pb::ChangeKind::Caller, &workload.workload_id)
    );
}

#[tokio::test]
async fn every_answer_is_at_the_position_of_what_it_reflects() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    enrol(&harness, &made.enrolment_token, PASSWORD).await.unwrap();
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    let token = harness.operator_token(Role::Auditor).expose().to_owned();
    let mut last = changes(&harness, "", 0, 0).await.position.unwrap();
    for round in 0..2 {
        let tenant_id = "firm-two".to_owned();
        if round == 0 {
            let suspend = pb::SuspendTenantRequest { tenant_id };
            tenants.suspend_tenant(suspend).await.unwrap();
        } else {
            let reinstate = pb::ReinstateTenantRequest { tenant_id };
            tenants.reinstate_tenant(reinstate).await.unwrap();
        }
        let mut directory = directory(&harness);
        let profile = pb::GetTenantProfileRequest {
            tenant_id: "firm-two".into(),
        };
        let profile = directory.get_tenant_profile(profile).await.unwrap().into_inner();
        let caller = pb::AuthenticateCallerRequest { token: token.clone() };
        let caller = directory.authenticate_caller(caller).await.unwrap().into_inner();
        let user = pb::ResolveUserRequest {
            tenant_id: "firm-one".into(),
            user: Some(Which::AccountName(NAME.into())),
        };
        let user = directory.resolve_user(user).await.unwrap().into_inner();
        let admin = sign_in(&harness, "firm-one", NAME, PASSWORD).await.unwrap();
        let feed = changes(&harness, &last.epoch, last.seq, 0).await;
        let expected = pb::FeedPosition {
            epoch: last.epoch.clone(),
            seq: last.seq + 1,
        };
        for position in [
            profile.position,
            caller.position,
            user.position,
            admin.position,
            feed.position,
        ] {
            assert_eq!(position, Some(expected.clone()));
        }
        let tenant = profile.tenant.unwrap();
        let suspended_at = if round == 0 { expected.seq } else { last.seq };
        assert_eq!(tenant.tokens_ended_seq, suspended_at, "what ended stays ended");
        let state = [pb::TenantState::Suspended, pb::TenantState::Active][round];
        assert_eq!(tenant.state(), state);
        last = expected;
    }
}

#[tokio::test]
async fn the_feed_is_followed_to_its_end_page_by_page() {
    let harness = seeded().await;
    let start = changes(&harness, "", 7, 0).await;
    assert!(start.changes.is_empty() && !start.reset && !start.more);
    let start = start.position.unwrap();
    let mut expected = Vec::new();
    for index in 0..5 {
        let made = registered(&harness, admin(&format!("user{index}@firm.example"))).await;
        expected.push(made.user.unwrap().user_id);
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
    // Exactly as many as asked for: nothing more waits.
    let all = changes(&harness, &start.epoch, start.seq, 5).await;
    assert!(all.changes.len() == 5 && !all.more);
    // No `after` at all asks for the position, and what changes nothing moves nothing.
    let nothing = pb::ListChangesRequest::default();
    let at = directory(&harness)
        .list_changes(nothing)
        .await
        .unwrap()
        .into_inner();
    assert!(at.changes.is_empty() && !at.reset);
    assert_eq!(at.position.unwrap().seq, seq);
}

#[tokio::test]
async fn the_feed_tells_which_changes_end_tokens() {
    let harness = seeded().await;
    client::seed(&harness).await;
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    let (made, _) = client::registered(&harness).await;
    let id = made.client_id.clone();
    let at = changes(&harness, "", 0, 0).await;
    let start = at.position.unwrap();
    assert_eq!(at.recent_seq, 0, "all of it is of the last hour");

    let mut clients = ClientServiceClient::new(harness.operator(Role::Admin));
    let mut update = async |names: &[&str]| {
        let scope = |name: &&str| pb::RequestedScope {
            name: (*name).to_owned(),
            reason: "as before".into(),
        };
        let request = pb::UpdateClientRequest {
            client: Some(pb::Client {
                client_id: id.clone(),
                scopes: names.iter().map(scope).collect(),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask {
                paths: vec!["scopes".into()],
            }),
        };
        clients.update_client(request).await.unwrap();
    };
    update(&["contacts.read"]).await;
    update(&["contacts.read", "contacts.write"]).await;
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
    let suspend = pb::SuspendClientRequest { client_id };
    clients.suspend_client(suspend).await.unwrap();
    let client_id = id.clone();
    let reinstate = pb::ReinstateClientRequest { client_id };
    clients.reinstate_client(reinstate).await.unwrap();

    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    let tenant_id = "firm-one".to_owned();
    let suspend = pb::SuspendTenantRequest { tenant_id };
    tenants.suspend_tenant(suspend).await.unwrap();
    let tenant_id = "firm-one".to_owned();
    let reinstate = pb::ReinstateTenantRequest { tenant_id };
    tenants.reinstate_tenant(reinstate).await.unwrap();

    let of_user = || ("firm-one".to_owned(), user.user_id.clone());
    let (tenant_id, user_id) = of_user();
    let deactivate = pb::DeactivateUserRequest { tenant_id, user_id };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let (tenant_id, user_id) = of_user();
    let reactivate = pb::ReactivateUserRequest { tenant_id, user_id };
    security(&harness).reactivate_user(reactivate).await.unwrap();

    let told = changes(&harness, &start.epoch, start.seq, 0).await;
    let (tenant, user, client) = (
        pb::ChangeKind::Tenant,
        pb::ChangeKind::User,
        pb::ChangeKind::Client,
    );
    let expected = [
        (client, true),
        (client, false),
        (client, false),
        (client, true),
        (client, true),
        (client, false),
        (tenant, true),
        (tenant, false),
        (user, true),
        (user, false),
    ];
    let seen: Vec<_> = told
        .changes
        .iter()
        .map(|change| (change.kind(), change.ends_tokens))
        .collect();
    assert_eq!(seen, expected);

    // An hour later nothing of it concerns a token that still lives.
    harness.clock.advance(Duration::from_millis(3_600_001));
    let reset = changes(&harness, "other", 7, 0).await;
    let end = told.position.unwrap();
    assert_eq!((reset.reset, reset.recent_seq), (true, end.seq));
}

#[tokio::test]
async fn a_reported_use_moves_forward_only() {
    let harness = Harness::start().await;
    client::seed(&harness).await;
    let (registered, _) = client::registered(&harness).await;
    let client_id = registered.client_id;
    let secret_id = client::secrets(&harness, &client_id).await[0].secret_id.clone();
    let start = harness.clock.now();
    harness.clock.advance(Duration::from_secs(3600));
    for (reported, expected) in [(600, 600), (300, 600), (900, 900)] {
        let at = |seconds| Some(start.plus(Duration::from_secs(seconds)).to_timestamp());
        let used = pb::SecretUse {
            client_id: client_id.clone(),
            secret_id: secret_id.clone(),
            used_time: at(reported),
        };
        let report = pb::ReportSecretUseRequest { uses: vec![used] };
        directory(&harness).report_secret_use(report).await.unwrap();
        let secret = &client::secrets(&harness, &client_id).await[0];
        assert_eq!(secret.last_used_time, at(expected), "{reported}");
    }
}

#[test]
fn questions_with_a_credential_show_none_of_it() {
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        pb::AuthenticateTenantAdminRequest {
            tenant_id: "firm-one".into(),
            account_name: NAME.into(),
            password: PASSWORD.into(),
        },
        pb::AuthenticateCallerRequest {
            token: "aco_secret".into(),
        },
        pb::AuthenticateClientRequest {
            client_id: String::new(),
            client_secret: "acs_secret".into(),
        },
        pb::ResolveUserRequest {
            tenant_id: "firm-one".into(),
            user: Some(Which::AccountName(NAME.into())),
        },
    );
    for secret in [NAME, PASSWORD, "aco_secret", "acs_secret"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
