//! `ResolveUser`.

use accord::{
    registry::v1::{self as pb, resolve_user_request::User as Which},
    text::opaque::TokenKind,
};
use tonic::Code;

use super::{NAME, directory};
use crate::{
    harness::{assert_rejected, assert_violations, ok, strangers_token},
    user::{PASSWORD, admin, enrol, registered, registrar, security, seeded},
};

#[tokio::test]
async fn a_resolved_user_has_the_positions_at_which_tokens_and_sessions_ended() {
    let harness = seeded().await;
    let user = registered(&harness, admin(NAME)).await.user.unwrap();
    let resolve = |which| pb::ResolveUserRequest {
        tenant_id: "firm-one".into(),
        user: Some(which),
    };
    let first = ok(directory(&harness)
        .resolve_user(resolve(Which::AccountName(NAME.to_uppercase())))
        .await);
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
    let after_reset = ok(directory(&harness).resolve_user(by_id()).await);
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
        reason: "a test".into(),
    };
    security(&harness).deactivate_user(deactivate).await.unwrap();
    let deactivated = ok(directory(&harness).resolve_user(by_id()).await);
    let (profile, position) = (deactivated.user.unwrap(), deactivated.position.unwrap());
    assert_eq!(
        (profile.sessions_ended_seq, profile.tokens_ended_seq),
        (position.seq, position.seq)
    );
    assert_eq!(profile.state(), pb::UserState::Deactivated);

    let unknown = resolve(Which::AccountName("nobody@firm.example".into()));
    assert_rejected(
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
async fn an_enrolment_link_names_its_user_in_its_own_tenant_alone() {
    let harness = seeded().await;
    let created = registered(&harness, admin(NAME)).await;
    let resolve = async |tenant_id: &str, token: &str| {
        let request = pb::ResolveUserRequest {
            tenant_id: tenant_id.into(),
            user: Some(Which::EnrolmentToken(token.into())),
        };
        directory(&harness).resolve_user(request).await
    };
    let token = created.enrolment_token;
    for enrolled in [false, true] {
        let found = ok(resolve("firm-one", &token).await).user.unwrap();
        assert_eq!(found.user_id, created.user.as_ref().unwrap().user_id);
        if !enrolled {
            enrol(&harness, &token, PASSWORD).await.unwrap();
        }
    }
    let stranger = strangers_token(TokenKind::Enrolment);
    for (tenant_id, token) in [("firm-two", &token), ("firm-one", &stranger), ("nobody", &token)] {
        assert_rejected(resolve(tenant_id, token).await, Code::NotFound, "NOT_FOUND");
    }
    let cut = &token[..token.len() - 1];
    assert_violations(resolve("firm-one", cut).await, &["enrolment_token"]);
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
                assert_rejected(refused, Code::NotFound, "NOT_FOUND")["resource"],
                "user"
            );
        }
    }
    // There, the same name belongs to a user of that tenant.
    let elsewhere = pb::RegisterUserRequest {
        tenant_id: "firm-two".into(),
        tenant_admin: false,
        ..admin(NAME)
    };
    let other = registered(&harness, elsewhere).await.user.unwrap();
    for (tenant_id, expected) in [("firm-one", &user), ("firm-two", &other)] {
        let asked = ask(tenant_id, Which::AccountName(NAME.to_uppercase()));
        let profile = ok(directory(&harness).resolve_user(asked).await).user.unwrap();
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
