//! `DirectoryService`: what token-service is told, and at which position of the change feed.

use accord::{
    auth::WorkloadKind,
    registry::v1::{
        self as pb, directory_service_client::DirectoryServiceClient, resolve_user_request::User as Which,
    },
};
use tonic::{Code, Status};

use crate::{
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
        ("firm-one", NAME, long.clone()),
        ("firm-one", NAME, "short".to_owned()),
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
    let token = harness
        .operator_token(accord::auth::Role::Auditor)
        .expose()
        .to_owned();
    let known = directory(&harness)
        .authenticate_caller(ask(&token))
        .await
        .unwrap()
        .into_inner();
    let Some(pb::authenticate_caller_response::Caller::Operator(operator)) = known.caller else {
        panic!("no operator");
    };
    assert_eq!(operator.roles().collect::<Vec<_>>(), [pb::OperatorRole::Auditor]);
    for unknown in ["", "x", &strangers_token(accord::opaque::TokenKind::Operator)] {
        let refused = directory(&harness).authenticate_caller(ask(unknown)).await;
        assert_refused(refused, Code::Unauthenticated, "UNAUTHENTICATED");
    }
    let mut operators = pb::operator_service_client::OperatorServiceClient::new(
        harness.operator(accord::auth::Role::Security),
    );
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
            epoch: "e".into(),
            seq: -1,
        }),
        page_size: -1,
    };
    let refused = directory(&harness).list_changes(negative).await;
    assert_violations(refused, &["after.seq", "page_size"]);
}

#[tokio::test]
async fn reported_uses_move_forward_only_and_unknown_ones_are_passed_over() {
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
