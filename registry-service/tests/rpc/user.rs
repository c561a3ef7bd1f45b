//! `UserService`: account names that nobody can read back, and enrolment by links that work once.

use std::time::Duration;

use accord::{
    auth::Role,
    registry::v1::{self as pb, find_user_request::User as Which, user_service_client::UserServiceClient},
    testing::databases,
};
use tonic::{Code, Status};

use crate::harness::{
    CallerChannel, Harness, PUBLIC_BASE_URL, assert_refused, assert_violations, request_id, strangers_token,
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
    registrar(harness)
        .register_user(request)
        .await
        .unwrap()
        .into_inner()
}

pub async fn enrol(harness: &Harness, token: &str, password: &str) -> Result<String, Status> {
    let mut anyone = UserServiceClient::new(harness.anonymous());
    let request = pb::CompleteEnrolmentRequest {
        enrolment_token: token.into(),
        password: password.into(),
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
async fn a_name_is_found_however_it_is_written_and_never_shown() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    let user = made.user.clone().unwrap();
    assert!(!format!("{made:?}").contains("Admin@") && !format!("{user:?}").to_lowercase().contains("ada"));
    assert_eq!(
        made.enrolment_link,
        format!("{PUBLIC_BASE_URL}/firm-one/enrol/{}", made.enrolment_token)
    );
    assert!(!user.enrolled && user.tenant_admin);
    for written in [
        NAME,
        "ada.admin@firm.example",
        "ADA.ADMIN@FIRM.EXAMPLE",
        "ａda.admin@firm.example",
    ] {
        let same = found(&harness, "firm-one", Which::AccountName(written.into())).await;
        assert_eq!(same.unwrap(), user, "{written}");
        let taken = registrar(&harness).register_user(admin(written)).await;
        assert_refused(taken, Code::AlreadyExists, "ALREADY_EXISTS");
    }
    assert_eq!(
        found(&harness, "firm-one", Which::UserId(user.user_id.clone()))
            .await
            .unwrap(),
        user
    );

    // The same name at another tenant is another user; this one is not to be had there.
    let elsewhere = pb::RegisterUserRequest {
        tenant_id: "firm-two".into(),
        tenant_admin: false,
        ..admin(NAME)
    };
    let other = registered(&harness, elsewhere).await;
    assert!(other.enrolment_token.is_empty() && other.enrolment_link.is_empty());
    assert_ne!(other.user.unwrap().user_id, user.user_id);
    let foreign = found(&harness, "firm-two", Which::UserId(user.user_id.clone())).await;
    assert_refused(foreign, Code::NotFound, "NOT_FOUND");
    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-two".into(),
        user_id: user.user_id,
    };
    let foreign = security(&harness).deactivate_user(deactivate).await;
    assert_refused(foreign, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn every_violation_comes_back_at_once() {
    let harness = seeded().await;
    let bad = pb::RegisterUserRequest {
        request_id: "1".into(),
        tenant_id: "Firm".into(),
        account_name: " ada".into(),
        label: "x".repeat(101),
        tenant_admin: true,
    };
    let result = registrar(&harness).register_user(bad).await;
    assert_violations(result, &["request_id", "tenant_id", "account_name", "label"]);
    for name in ["", "a\0b", "\u{378}", &"x".repeat(321)] {
        let result = registrar(&harness).register_user(admin(name)).await;
        assert_violations(result, &["account_name"]);
    }
    let unknown = pb::RegisterUserRequest {
        tenant_id: "firm-nine".into(),
        ..admin(NAME)
    };
    let result = registrar(&harness).register_user(unknown).await;
    assert_refused(result, Code::NotFound, "NOT_FOUND");
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
async fn a_repeated_call_gives_the_same_link_and_other_content_is_refused() {
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
    assert_refused(result, Code::AlreadyExists, "REQUEST_ID_REUSED");

    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: first.user.unwrap().user_id,
        request_id: request_id(),
    };
    let again = registrar(&harness)
        .reset_user_password(reset.clone())
        .await
        .unwrap()
        .into_inner();
    let repeated = registrar(&harness)
        .reset_user_password(reset)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, repeated);
    assert_ne!(again.enrolment_token, first.enrolment_token);
}

#[tokio::test]
async fn an_enrolment_link_works_once_in_its_time() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    let user_id = made.user.unwrap().user_id;
    let invalid = |result| assert_refused(result, Code::FailedPrecondition, "LINK_INVALID");
    invalid(
        enrol(
            &harness,
            &strangers_token(accord::opaque::TokenKind::Enrolment),
            PASSWORD,
        )
        .await,
    );
    assert_eq!(
        enrol(&harness, &made.enrolment_token, PASSWORD).await.unwrap(),
        "firm-one"
    );
    invalid(enrol(&harness, &made.enrolment_token, PASSWORD).await);
    assert!(
        found(&harness, "firm-one", Which::UserId(user_id.clone()))
            .await
            .unwrap()
            .enrolled
    );

    // A reset ends the password and every earlier link; a link ends after 72 hours.
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: user_id.clone(),
        request_id: String::new(),
    };
    let first = registrar(&harness)
        .reset_user_password(reset.clone())
        .await
        .unwrap()
        .into_inner();
    assert!(!first.user.unwrap().enrolled);
    let second = registrar(&harness)
        .reset_user_password(reset.clone())
        .await
        .unwrap()
        .into_inner();
    invalid(enrol(&harness, &first.enrolment_token, PASSWORD).await);
    harness.clock.advance(Duration::from_secs(72 * 3600));
    invalid(enrol(&harness, &second.enrolment_token, PASSWORD).await);

    // Deactivation ends links too, and nobody resets the deactivated or those who are no admins.
    let third = registrar(&harness)
        .reset_user_password(reset.clone())
        .await
        .unwrap()
        .into_inner();
    let deactivate = pb::DeactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id: user_id.clone(),
    };
    for _ in 0..2 {
        let answer = security(&harness)
            .deactivate_user(deactivate.clone())
            .await
            .unwrap();
        assert_eq!(
            answer.into_inner().user.unwrap().state(),
            pb::UserState::Deactivated
        );
    }
    assert_eq!(harness.audit_events("user.deactivate").await.len(), 1);
    invalid(enrol(&harness, &third.enrolment_token, PASSWORD).await);
    let refused = registrar(&harness).reset_user_password(reset).await;
    let metadata = assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE");
    assert_eq!(metadata["state"], "DEACTIVATED");
    let plain = pb::RegisterUserRequest {
        tenant_admin: false,
        ..admin("api@firm.example")
    };
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: registered(&harness, plain).await.user.unwrap().user_id,
        request_id: String::new(),
    };
    let refused = registrar(&harness).reset_user_password(reset).await;
    assert_refused(refused, Code::FailedPrecondition, "WRONG_STATE");
    let reactivate = pb::ReactivateUserRequest {
        tenant_id: "firm-one".into(),
        user_id,
    };
    let answer = security(&harness).reactivate_user(reactivate).await.unwrap();
    assert_eq!(answer.into_inner().user.unwrap().state(), pb::UserState::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_racing_enrolments_one_wins() {
    for database in databases() {
        let label = database.label;
        let harness = Harness::start_on(database).await;
        harness.tenant("firm-one").await;
        let token = registered(&harness, admin(NAME)).await.enrolment_token;
        let racing = (0..8).map(|index| {
            let mut anyone = UserServiceClient::new(harness.anonymous());
            let request = pb::CompleteEnrolmentRequest {
                enrolment_token: token.clone(),
                password: format!("{PASSWORD} {index}"),
            };
            tokio::spawn(async move { anyone.complete_enrolment(request).await })
        });
        let mut won = 0;
        for race in racing.collect::<Vec<_>>() {
            match race.await.unwrap() {
                Ok(_) => won += 1,
                refused => drop(assert_refused(refused, Code::FailedPrecondition, "LINK_INVALID")),
            }
        }
        assert_eq!(won, 1, "{label}");
        assert_eq!(harness.audit_events("user.enrol").await.len(), 1, "{label}");
    }
}

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
        let page = registrar(&harness)
            .list_users(request)
            .await
            .unwrap()
            .into_inner();
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
    assert!(
        registrar(&harness)
            .list_users(empty)
            .await
            .unwrap()
            .into_inner()
            .users
            .is_empty()
    );
    let unknown = pb::ListUsersRequest {
        tenant_id: "firm-nine".into(),
        ..Default::default()
    };
    assert_refused(
        registrar(&harness).list_users(unknown).await,
        Code::NotFound,
        "NOT_FOUND",
    );
}

#[tokio::test]
async fn malformed_ids_and_filters_are_named() {
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
        .find_user(find(Which::AccountName("ada\n".into())))
        .await;
    assert_violations(result, &["tenant_id", "account_name"]);
    let result = security(&harness)
        .deactivate_user(pb::DeactivateUserRequest::default())
        .await;
    assert_violations(result, &["tenant_id", "user_id"]);
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
    for label in ["", "line\nbreak"] {
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
                assert_refused(refused, Code::NotFound, "NOT_FOUND")["resource"],
                "user"
            );
        }
    }
    for tenant_id in ["firm-two", "firm-nine"] {
        let refused = found(&harness, tenant_id, Which::AccountName(NAME.into())).await;
        assert_refused(refused, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(harness.registry.store().position().await.unwrap(), position);
    let untouched = found(&harness, "firm-one", Which::UserId(user_id)).await.unwrap();
    assert_eq!(untouched.state(), pb::UserState::Active);
}

#[tokio::test]
async fn a_request_id_stands_for_one_call() {
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
        assert_refused(refused, Code::AlreadyExists, "REQUEST_ID_REUSED");
    }
    assert_eq!(harness.audit_events("user.register").await.len(), 2);
    assert_eq!(harness.audit_events("user.reset_password").await.len(), 1);

    harness.clock.advance(Duration::from_secs(601));
    let late = registrar(&harness).register_user(register).await;
    assert_refused(late, Code::AlreadyExists, "REQUEST_ID_REUSED");
    let late = registrar(&harness).reset_user_password(reset).await;
    assert_refused(late, Code::AlreadyExists, "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn a_refused_password_leaves_the_link_as_it_was() {
    let harness = seeded().await;
    let made = registered(&harness, admin(NAME)).await;
    let token = made.enrolment_token;
    for refused in ["", &"ä".repeat(14), &"x".repeat(1025)] {
        assert_violations(enrol(&harness, &token, refused).await, &["password"]);
    }
    let wrong_kind = strangers_token(accord::opaque::TokenKind::Claim);
    assert_violations(enrol(&harness, &wrong_kind, PASSWORD).await, &["enrolment_token"]);
    let stranger = strangers_token(accord::opaque::TokenKind::Enrolment);
    let refused = enrol(&harness, &stranger, PASSWORD).await;
    assert_refused(refused, Code::FailedPrecondition, "LINK_INVALID");
    let hasher = harness.registry.store().hasher();
    assert_eq!(hasher.runs(), 0, "what can't enrol costs no hash");
    assert!(harness.audit_events("user.enrol").await.is_empty());

    harness.clock.advance(Duration::from_millis(72 * 3_600_000 - 1));
    enrol(&harness, &token, &"ä".repeat(1024)).await.unwrap();
    assert_eq!(hasher.runs(), 1);
    let user_id = made.user.unwrap().user_id;
    let events = harness.audit_events("user.enrol").await;
    assert_eq!(
        (events.len(), &events[0].subject, events[0].tenant_id.as_str()),
        (1, &user_id, "firm-one")
    );
}

#[tokio::test]
async fn reactivation_gives_back_the_password_and_no_link() {
    let harness = seeded().await;
    let enrolled = registered(&harness, admin(NAME)).await;
    // Users are listed by id, and ids of one millisecond have no order.
    harness.clock.advance(Duration::from_millis(1));
    let invited = registered(&harness, admin("late@firm.example")).await;
    enrol(&harness, &enrolled.enrolment_token, PASSWORD)
        .await
        .unwrap();
    let ids: Vec<_> = [&enrolled, &invited]
        .map(|made| made.user.as_ref().unwrap().user_id.clone())
        .into();
    for user_id in &ids {
        let (tenant_id, user_id) = ("firm-one".to_owned(), user_id.clone());
        let deactivate = pb::DeactivateUserRequest {
            tenant_id: tenant_id.clone(),
            user_id: user_id.clone(),
        };
        security(&harness).deactivate_user(deactivate).await.unwrap();
        let reactivate = pb::ReactivateUserRequest { tenant_id, user_id };
        let first = security(&harness)
            .reactivate_user(reactivate.clone())
            .await
            .unwrap()
            .into_inner();
        harness.clock.advance(Duration::from_secs(1));
        let second = security(&harness).reactivate_user(reactivate).await.unwrap();
        assert_eq!(second.into_inner(), first);
    }
    assert_eq!(harness.audit_events("user.reactivate").await.len(), 2);
    let refused = enrol(&harness, &invited.enrolment_token, PASSWORD).await;
    assert_refused(refused, Code::FailedPrecondition, "LINK_INVALID");
    let users = listed(&harness, pb::UserState::Active).await;
    let enrolled: Vec<_> = users.iter().map(|user| (&user.user_id, user.enrolled)).collect();
    assert_eq!(enrolled, [(&ids[0], true), (&ids[1], false)]);
}

/// Users of `firm-one`.
async fn listed(harness: &Harness, state: pb::UserState) -> Vec<pb::User> {
    let request = pb::ListUsersRequest {
        tenant_id: "firm-one".into(),
        state: state.into(),
        ..Default::default()
    };
    registrar(harness)
        .list_users(request)
        .await
        .unwrap()
        .into_inner()
        .users
}

#[tokio::test]
async fn users_are_listed_by_state_and_a_page_belongs_to_its_filter() {
    let harness = seeded().await;
    let mut ids = Vec::new();
    for index in 0..3 {
        let made = registered(&harness, admin(&format!("user{index}@firm.example"))).await;
        ids.push(made.user.unwrap().user_id);
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
    let page = registrar(&harness)
        .list_users(first.clone())
        .await
        .unwrap()
        .into_inner();
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

#[tokio::test]
async fn neither_a_trail_nor_debug_shows_names_passwords_or_tokens() {
    let harness = seeded().await;
    let request = admin(NAME);
    let made = registered(&harness, request.clone()).await;
    let complete = pb::CompleteEnrolmentRequest {
        enrolment_token: made.enrolment_token.clone(),
        password: PASSWORD.into(),
    };
    UserServiceClient::new(harness.anonymous())
        .complete_enrolment(complete.clone())
        .await
        .unwrap();
    let reset = pb::ResetUserPasswordRequest {
        tenant_id: "firm-one".into(),
        user_id: made.user.as_ref().unwrap().user_id.clone(),
        request_id: String::new(),
    };
    let reset = registrar(&harness)
        .reset_user_password(reset)
        .await
        .unwrap()
        .into_inner();
    let find = pb::FindUserRequest {
        tenant_id: "firm-one".into(),
        user: Some(Which::AccountName(NAME.into())),
    };
    let taken = registrar(&harness)
        .register_user(request.clone())
        .await
        .unwrap_err();
    let shown = format!(
        "{request:?} {made:?} {complete:?} {reset:?} {find:?} {taken:?} {:?}",
        harness.audit_events("").await
    );
    assert!(shown.contains("user.enrol") && shown.contains("user.reset_password"));
    for secret in [
        "firm.example",
        PASSWORD,
        &made.enrolment_token,
        &reset.enrolment_token,
    ] {
        let shown = shown.to_lowercase();
        assert!(!shown.contains(&secret.to_lowercase()), "{secret}: {shown}");
    }
}
