//! `DirectoryService`: the facts that token-service reads, with their positions in the change feed.

mod actions;
mod callers;
mod feed;
mod sign_in;
mod user;

use std::time::Duration;

use accord::{
    clock::Clock,
    registry::v1::{
        self as pb, authenticate_caller_response::Caller, directory_service_client::DirectoryServiceClient,
        operator_service_client::OperatorServiceClient, resolve_user_request::User as Which,
        tenant_service_client::TenantServiceClient,
    },
    rpc::auth::{Role, WorkloadKind},
    text::opaque::TokenKind,
};
use tonic::{Code, Status};

use crate::{
    client,
    harness::{CallerChannel, Harness, assert_rejected, assert_violations, ok, strangers_token},
    user::{PASSWORD, admin, enrol, registered, seeded},
};

const NAME: &str = "ada.admin@firm.example";

fn directory(harness: &Harness) -> DirectoryServiceClient<CallerChannel> {
    DirectoryServiceClient::new(harness.workload(WorkloadKind::TokenService))
}

pub async fn sign_in(
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
    ok(directory(harness).list_changes(request).await)
}

#[tokio::test]
async fn the_origin_of_a_client_comes_when_it_is_asked_for() {
    let harness = seeded().await;
    client::seed(&harness).await;
    let (client, _) = client::registered(&harness).await;
    let ask = async |with_origin| {
        let request = pb::GetClientProfileRequest {
            client_id: client.client_id.clone(),
            with_origin,
        };
        ok(directory(&harness).get_client_profile(request).await).origin
    };
    assert_eq!(ask(false).await, None);
    let origin = ask(true).await.unwrap();
    let registration = origin.registration.unwrap();
    assert_eq!(registration.integration_request_id, client.integration_request_id);
    assert_eq!(registration.apply_time, client.create_time);
    assert_eq!(origin.amendments, []);
    let actor = async |action: &str| {
        let events = harness.audit_events(action).await;
        let mut ids: Vec<_> = events
            .into_iter()
            .map(|event| (event.subject, event.actor_id))
            .collect();
        ids.reverse();
        ids
    };
    for name in ["First", "Second"] {
        harness.clock.advance(Duration::from_secs(1));
        let additions = pb::SubmitIntegrationRequestRequest {
            display_name: name.into(),
            ..Default::default()
        };
        harness.amend(&client.client_id, additions).await;
    }
    let origin = ask(true).await.unwrap();
    let mut applied = origin.amendments;
    applied.reverse();
    applied.insert(0, origin.registration.unwrap());
    let by_submitter: Vec<_> = applied
        .iter()
        .map(|request| {
            (
                request.integration_request_id.clone(),
                request.submitted_by_operator_id.clone(),
            )
        })
        .collect();
    assert_eq!(by_submitter, actor("integration_request.submit").await);
    let by_approver: Vec<_> = applied
        .iter()
        .map(|request| {
            (
                request.integration_request_id.clone(),
                request.approved_by_operator_id.clone(),
            )
        })
        .collect();
    assert_eq!(by_approver, actor("integration_request.approve").await);
    let times: Vec<_> = applied.iter().map(|request| request.apply_time).collect();
    assert!(times.is_sorted_by_key(|time| time.map(|time| time.seconds)) && times[0] != times[1]);
}

#[tokio::test]
async fn profiles_come_together_and_without_those_that_do_not_exist() {
    let harness = seeded().await;
    client::seed(&harness).await;
    let (client, _) = client::registered(&harness).await;
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    let key = pb::UserKey {
        tenant_id: user.tenant_id.clone(),
        user_id: user.user_id.clone(),
    };
    let elsewhere = pb::UserKey {
        tenant_id: "acme".into(),
        ..key.clone()
    };
    let request = pb::GetProfilesRequest {
        client_ids: vec![client.client_id.clone(), "cli_01arz3ndektsv4rrffq69g5fav".into()],
        tenant_ids: vec!["acme".into(), "nowhere".into()],
        users: vec![key, elsewhere],
    };
    let found = ok(directory(&harness).get_profiles(request).await);
    let resolved = pb::ResolveUserRequest {
        tenant_id: user.tenant_id,
        user: Some(Which::UserId(user.user_id)),
    };
    let resolved = ok(directory(&harness).resolve_user(resolved).await);
    assert_eq!(found.users, [resolved.user.unwrap()]);
    assert_eq!(found.position, resolved.position);
    let tenant = pb::GetTenantProfileRequest {
        tenant_id: "acme".into(),
    };
    let tenant = ok(directory(&harness).get_tenant_profile(tenant).await);
    assert_eq!(found.tenants, [tenant.tenant.unwrap()]);
    let one = pb::GetClientProfileRequest {
        client_id: client.client_id.clone(),
        ..Default::default()
    };
    let one = ok(directory(&harness).get_client_profile(one).await);
    assert_eq!(found.clients, [one.client.unwrap()]);

    let nothing = pb::GetProfilesRequest::default();
    let nothing = ok(directory(&harness).get_profiles(nothing).await);
    let only_position = pb::GetProfilesResponse {
        position: found.position,
        ..Default::default()
    };
    assert_eq!(nothing, only_position);
    let malformed = pb::GetProfilesRequest {
        client_ids: vec![client.client_id.clone(), client.client_id, "x".into()],
        tenant_ids: (0..1001).map(|n| format!("tenant-{n}")).collect(),
        users: vec![pb::UserKey::default()],
    };
    let fields = [
        "client_ids[1]",
        "client_ids[2]",
        "tenant_ids",
        "users[0].tenant_id",
        "users[0].user_id",
    ];
    assert_violations(directory(&harness).get_profiles(malformed).await, &fields);
}

#[tokio::test]
async fn a_tenants_profile_has_issuer_and_audience() {
    let harness = seeded().await;
    let ask = |tenant_id: &str| pb::GetTenantProfileRequest {
        tenant_id: tenant_id.into(),
    };
    let answer = ok(directory(&harness).get_tenant_profile(ask("firm-one")).await);
    let profile = answer.tenant.unwrap();
    assert_eq!(
        profile.tenant_authority_url,
        format!("{}/firm-one", crate::harness::PUBLIC_BASE_URL)
    );
    assert_eq!(profile.cloud_api_url, "https://api.example/firm-one");
    let unknown = directory(&harness).get_tenant_profile(ask("firm-nine")).await;
    assert_rejected(unknown, Code::NotFound, "NOT_FOUND");
    let malformed = directory(&harness).get_tenant_profile(ask("Firm")).await;
    assert_violations(malformed, &["tenant_id"]);
}

#[tokio::test]
async fn reported_uses_of_unknown_secrets_are_ignored() {
    let harness = seeded().await;
    let uses = |count: usize| pb::ReportSecretUseRequest {
        uses: vec![
            pb::SecretUse {
                client_id: "cli_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
                secret_id: "sec_01k9zzzzzzzzzzzzzzzzzzzzzz".into(),
                use_time: Some(accord::testing::TEST_START.to_timestamp()),
            };
            count
        ],
    };
    directory(&harness).report_secret_use(uses(3)).await.unwrap();
    for count in [0, 1001] {
        assert_violations(
            directory(&harness).report_secret_use(uses(count)).await,
            &["uses"],
        );
    }
    let mut bad = uses(1);
    bad.uses[0] = pb::SecretUse::default();
    let refused = directory(&harness).report_secret_use(bad).await;
    assert_violations(
        refused,
        &["uses[0].client_id", "uses[0].secret_id", "uses[0].use_time"],
    );
}

#[tokio::test]
async fn every_response_has_the_position_that_it_reflects() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    enrol(&harness, &created.enrolment_token, PASSWORD).await.unwrap();
    let mut tenants = TenantServiceClient::new(harness.operator(Role::Admin));
    let token = harness.operator_token(Role::Auditor).expose().to_owned();
    let mut last = changes(&harness, "", 0, 0).await.position.unwrap();
    for round in 0..2 {
        let tenant_id = "firm-two".to_owned();
        if round == 0 {
            let suspend = pb::SuspendTenantRequest {
                tenant_id,
                reason: "a test".into(),
            };
            tenants.suspend_tenant(suspend).await.unwrap();
        } else {
            let reinstate = pb::ReinstateTenantRequest { tenant_id };
            tenants.reinstate_tenant(reinstate).await.unwrap();
        }
        let mut directory = directory(&harness);
        let profile = pb::GetTenantProfileRequest {
            tenant_id: "firm-two".into(),
        };
        let profile = ok(directory.get_tenant_profile(profile).await);
        let caller = pb::AuthenticateCallerRequest {
            token: token.clone(),
            ..Default::default()
        };
        let caller = ok(directory.authenticate_caller(caller).await);
        let user = pb::ResolveUserRequest {
            tenant_id: "firm-one".into(),
            user: Some(Which::AccountName(NAME.into())),
        };
        let user = ok(directory.resolve_user(user).await);
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
            use_time: at(reported),
        };
        let report = pb::ReportSecretUseRequest { uses: vec![used] };
        directory(&harness).report_secret_use(report).await.unwrap();
        let secret = &client::secrets(&harness, &client_id).await[0];
        assert_eq!(secret.last_use_time, at(expected), "{reported}");
    }
}

#[test]
fn messages_with_credentials_show_none_in_debug_output() {
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        pb::AuthenticateTenantAdminRequest {
            tenant_id: "firm-one".into(),
            account_name: NAME.into(),
            password: PASSWORD.into(),
        },
        pb::AuthenticateCallerRequest {
            token: "aco_secret".into(),
            ..Default::default()
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
