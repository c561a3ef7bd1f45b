//! `UserService`.

mod enrolment;
mod listing;

use std::time::Duration;

use accord::{
    registry::v1::{self as pb, find_user_request::User as Which, user_service_client::UserServiceClient},
    rpc::auth::Role,
};
use tonic::{Code, Status};

use crate::harness::{
    CallerChannel, Harness, PUBLIC_BASE_URL, assert_rejected, assert_violations, ok, request_id,
};

const NAME: &str = "Ada.Admin@Firm.example";

pub const PASSWORD: &str = "a long enough password";

pub fn registrar(harness: &Harness) -> UserServiceClient<CallerChannel> {
    UserServiceClient::new(harness.operator(Role::Registrar))
}

pub fn security(harness: &Harness) -> UserServiceClient<CallerChannel> {
    UserServiceClient::new(harness.operator(Role::Security))
}

pub fn admin(account_name: &str) -> pb::RegisterUserRequest {
    pb::RegisterUserRequest {
        request_id: String::new(),
        tenant_id: "firm-one".into(),
        account_name: account_name.into(),
        label: "Administrator 1".into(),
        tenant_admin: true,
    }
}

pub async fn registered(harness: &Harness, request: pb::RegisterUserRequest) -> pb::RegisterUserResponse {
    ok(registrar(harness).register_user(request).await)
}

pub async fn enrol(harness: &Harness, token: &str, password: &str) -> Result<String, Status> {
    let mut anyone = UserServiceClient::new(harness.anonymous());
    let request = pb::CompleteEnrolmentRequest {
        enrolment_token: token.into(),
        password: password.into(),
        ..Default::default()
    };
    Ok(anyone.complete_enrolment(request).await?.into_inner().tenant_id)
}

async fn found(harness: &Harness, tenant_id: &str, which: Which) -> Result<pb::User, Status> {
    let request = pb::FindUserRequest {
        tenant_id: tenant_id.into(),
        user: Some(which),
    };
    Ok(registrar(harness)
        .find_user(request)
        .await?
        .into_inner()
        .user
        .unwrap())
}

pub async fn seeded() -> Harness {
    let harness = Harness::start().await;
    harness.tenant("firm-one").await;
    harness.tenant("firm-two").await;
    harness
}

#[tokio::test]
async fn a_name_is_found_in_every_spelling_and_never_shown() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    let user = created.user.clone().unwrap();
    assert!(
        !format!("{created:?}").contains("Admin@") && !format!("{user:?}").to_lowercase().contains("ada")
    );
    assert_eq!(
        created.enrolment_link,
        format!("{PUBLIC_BASE_URL}/firm-one/enrol/{}", created.enrolment_token)
    );
    assert!(!user.enrolled && user.tenant_admin);
    for written in [
        NAME,
        "ada.admin@firm.example",
        "ADA.ADMIN@FIRM.EXAMPLE",
        "ａda.admin@firm.example",
        " ada.admin@firm.example",
        "ada.admin@firm.example\u{a0}",
        "\tada.admin@firm.example\n",
        "\u{3000}ada.admin@firm.example\u{85}",
        "ada\u{200b}.admin@firm.example",
        "\u{feff}a\u{ad}da.admin@firm.example\u{2060}",
        "ada\u{180e}.admin@firm.example",
    ] {
        let same = found(&harness, "firm-one", Which::AccountName(written.into())).await;
        assert_eq!(same.unwrap(), user, "{written}");
        let taken = registrar(&harness).register_user(admin(written)).await;
        assert_rejected(taken, Code::AlreadyExists, "ALREADY_EXISTS");
    }
    assert_eq!(
        found(&harness, "firm-one", Which::UserId(user.user_id.clone()))
            .await
            .unwrap(),
        user
    );

    // The same name at another tenant belongs to another user. This user is not found there.
    let elsewhere = pb::RegisterUserRequest {
        tenant_id: "firm-two".into(),
        tenant_admin: false,
        ..admin(NAME)
    };
    let other = registered(&harness, elsewhere).await;
    assert!(other.enrolment_token.is_empty() && other.enrolment_link.is_empty());
    assert_ne!(other.user.unwrap().user_id, user.user_id);
    let foreign = found(&harness, "firm-two", Which::UserId(user.user_id.clone())).await;
    assert_rejected(foreign, Code::NotFound, "NOT_FOUND");
    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-two".into(),
        user_id: user.user_id,
        reason: "a test".into(),
    };
    let foreign = security(&harness).deactivate_user(deactivate).await;
    assert_rejected(foreign, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let harness = seeded().await;
    let bad = pb::RegisterUserRequest {
        request_id: "1".into(),
        tenant_id: "Firm".into(),
        account_name: "a\u{7}da".into(),
        label: "x".repeat(101),
        tenant_admin: true,
    };
    let result = registrar(&harness).register_user(bad).await;
    assert_violations(result, &["request_id", "tenant_id", "account_name", "label"]);
    for name in [
        "",
        "\u{200b}",
        "a\0b",
        "\u{378}",
        "ada\u{202e}@firm.example",
        "ada\u{200e}",
        &"\u{301}".repeat(1000),
        &"x".repeat(321),
    ] {
        let result = registrar(&harness).register_user(admin(name)).await;
        assert_violations(result, &["account_name"]);
    }
    let unknown = pb::RegisterUserRequest {
        tenant_id: "firm-nine".into(),
        ..admin(NAME)
    };
    let result = registrar(&harness).register_user(unknown).await;
    assert_rejected(result, Code::NotFound, "NOT_FOUND");
    let nobody = pb::FindUserRequest::default();
    assert_violations(
        registrar(&harness).find_user(nobody).await,
        &["tenant_id", "user"],
    );
    let list = pb::ListUsersRequest {
        tenant_id: "Firm".into(),
        state: 9,
        page_size: -1,
        page_token: "x".into(),
    };
    let result = registrar(&harness).list_users(list).await;
    assert_violations(result, &["tenant_id", "state", "page_size", "page_token"]);
    assert_violations(
        enrol(&harness, "ace_1", "short").await,
        &["enrolment_token", "password"],
    );
}

#[tokio::test]
async fn a_repeated_call_returns_the_same_link_and_other_content_is_rejected() {
    let harness = seeded().await;
    let request = pb::RegisterUserRequest {
        request_id: request_id(),
        ..admin(NAME)
    };
    let first = registered(&harness, request.clone()).await;
    assert_eq!(registered(&harness, request.clone()).await, first);
    let other = pb::RegisterUserRequest {
        label: "Another".into(),
        ..request
    };
    let result = registrar(&harness).register_user(other).await;
    assert_rejected(result, Code::AlreadyExists, "REQUEST_ID_REUSED");

    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: first.user.unwrap().user_id,
        request_id: request_id(),
    };
    let again = ok(registrar(&harness).reset_user_password(reset.clone()).await);
    let repeated = ok(registrar(&harness).reset_user_password(reset).await);
    assert_eq!(again, repeated);
    assert_ne!(again.enrolment_token, first.enrolment_token);
}

#[tokio::test]
async fn malformed_ids_and_filters_are_reported() {
    let harness = seeded().await;
    let find = |which| pb::FindUserRequest {
        tenant_id: "Firm".into(),
        user: Some(which),
    };
    let result = registrar(&harness)
        .find_user(find(Which::UserId("cli_01k9zzzzzzzzzzzzzzzzzzzzzz".into())))
        .await;
    assert_violations(result, &["tenant_id", "user_id"]);
    let result = registrar(&harness)
        .find_user(find(Which::AccountName("a\nda".into())))
        .await;
    assert_violations(result, &["tenant_id", "account_name"]);
    let result = security(&harness)
        .deactivate_user(pb::DeactivateUserRequest::default())
        .await;
    assert_violations(result, &["tenant_id", "user_id", "reason"]);
    let result = security(&harness)
        .reactivate_user(pb::ReactivateUserRequest::default())
        .await;
    assert_violations(result, &["tenant_id", "user_id"]);
    let bad = pb::ResetUserPasswordRequest {
        request_id: "1".into(),
        ..Default::default()
    };
    let result = registrar(&harness).reset_user_password(bad).await;
    assert_violations(result, &["tenant_id", "user_id", "request_id"]);
    // The last two are the account name, as names are compared.
    for label in ["", "line\nbreak", NAME, "ａda.admin@FIRM.example"] {
        let bad = pb::RegisterUserRequest {
            label: label.into(),
            ..admin(NAME)
        };
        assert_violations(registrar(&harness).register_user(bad).await, &["label"]);
    }
    assert!(listed(&harness, pb::UserState::Unspecified).await.is_empty());
    assert!(harness.audit_events("user.register").await.is_empty());
}

#[tokio::test]
async fn the_unknown_and_another_tenants_user_are_not_found() {
    let harness = seeded().await;
    let user_id = registered(&harness, admin(NAME)).await.user.unwrap().user_id;
    let position = harness.registry.store().position().await.unwrap();
    for (tenant_id, user_id) in [
        ("firm-one", "usr_01k9zzzzzzzzzzzzzzzzzzzzzz"),
        ("firm-two", user_id.as_str()),
        ("firm-nine", user_id.as_str()),
    ] {
        let (tenant_id, user_id) = (tenant_id.to_owned(), user_id.to_owned());
        let found = found(&harness, &tenant_id, Which::UserId(user_id.clone()))
            .await
            .map(drop);
        let deactivated = security(&harness)
            .deactivate_user(pb::DeactivateUserRequest {
                tenant_id: tenant_id.clone(),
                user_id: user_id.clone(),
                reason: "a test".into(),
            })
            .await
            .map(drop);
        let reactivated = security(&harness)
            .reactivate_user(pb::ReactivateUserRequest {
                tenant_id: tenant_id.clone(),
                user_id: user_id.clone(),
            })
            .await
            .map(drop);
        let reset = registrar(&harness)
            .reset_user_password(pb::ResetUserPasswordRequest {
                tenant_id,
                user_id,
                request_id: request_id(),
            })
            .await
            .map(drop);
        for refused in [found, deactivated, reactivated, reset] {
            assert_eq!(
                assert_rejected(refused, Code::NotFound, "NOT_FOUND")["resource"],
                "user"
            );
        }
    }
    for tenant_id in ["firm-two", "firm-nine"] {
        let refused = found(&harness, tenant_id, Which::AccountName(NAME.into())).await;
        assert_rejected(refused, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(harness.registry.store().position().await.unwrap(), position);
    let untouched = found(&harness, "firm-one", Which::UserId(user_id)).await.unwrap();
    assert_eq!(untouched.state(), pb::UserState::Active);
}

#[tokio::test]
async fn a_request_id_belongs_to_one_call() {
    let harness = seeded().await;
    let register = pb::RegisterUserRequest {
        request_id: request_id(),
        ..admin(NAME)
    };
    let first = registered(&harness, register.clone()).await;
    registered(&harness, register.clone()).await;
    let other = registered(&harness, admin("other@firm.example"))
        .await
        .user
        .unwrap();
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: first.user.unwrap().user_id,
        request_id: request_id(),
    };
    for _ in 0..2 {
        registrar(&harness)
            .reset_user_password(reset.clone())
            .await
            .unwrap();
    }
    let reused = [
        pb::ResetUserPasswordRequest {
            user_id: other.user_id,
            ..reset.clone()
        },
        pb::ResetUserPasswordRequest {
            request_id: register.request_id.clone(),
            ..reset.clone()
        },
    ];
    for reused in reused {
        let refused = registrar(&harness).reset_user_password(reused).await;
        assert_rejected(refused, Code::AlreadyExists, "REQUEST_ID_REUSED");
    }
    assert_eq!(harness.audit_events("user.register").await.len(), 2);
    assert_eq!(harness.audit_events("user.reset_password").await.len(), 1);

    harness.clock.advance(Duration::from_secs(601));
    let late = registrar(&harness).register_user(register).await;
    assert_rejected(late, Code::AlreadyExists, "REQUEST_ID_REUSED");
    let late = registrar(&harness).reset_user_password(reset).await;
    assert_rejected(late, Code::AlreadyExists, "REQUEST_ID_REUSED");
}

/// Users of `firm-one`.
async fn listed(harness: &Harness, state: pb::UserState) -> Vec<pb::User> {
    let request = pb::ListUsersRequest {
        tenant_id: "firm-one".into(),
        state: state.into(),
        ..Default::default()
    };
    ok(registrar(harness).list_users(request).await).users
}

#[tokio::test]
async fn no_name_password_or_token_is_in_the_audit_record_or_debug_output() {
    let harness = seeded().await;
    let request = admin(NAME);
    let created = registered(&harness, request.clone()).await;
    let complete = pb::CompleteEnrolmentRequest {
        enrolment_token: created.enrolment_token.clone(),
        password: PASSWORD.into(),
        ..Default::default()
    };
    UserServiceClient::new(harness.anonymous())
        .complete_enrolment(complete.clone())
        .await
        .unwrap();
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: created.user.as_ref().unwrap().user_id.clone(),
        request_id: String::new(),
    };
    let reset = ok(registrar(&harness).reset_user_password(reset).await);
    let find = pb::FindUserRequest {
        tenant_id: "firm-one".into(),
        user: Some(Which::AccountName(NAME.into())),
    };
    let taken = registrar(&harness)
        .register_user(request.clone())
        .await
        .unwrap_err();
    let shown = format!(
        "{request:?} {created:?} {complete:?} {reset:?} {find:?} {taken:?} {:?}",
        harness.audit_events("").await
    );
    assert!(shown.contains("user.enrol") && shown.contains("user.reset_password"));
    for secret in [
        "firm.example",
        PASSWORD,
        &created.enrolment_token,
        &reset.enrolment_token,
    ] {
        let shown = shown.to_lowercase();
        assert!(!shown.contains(&secret.to_lowercase()), "{secret}: {shown}");
    }
}
