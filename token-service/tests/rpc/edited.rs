//! A call that uses a row edited without the keys fails with an error id.

use std::fmt::Debug;

use accord::{rpc::auth::Role, token::v1 as pb};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::world::World;

/// Requires INTERNAL with an id, and no word about the row.
fn assert_internal<T: Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (status.code(), &*info.reason),
        (Code::Internal, "INTERNAL"),
        "{status:?}"
    );
    assert_eq!(
        status.message(),
        format!("internal error {}", info.metadata["error_id"])
    );
}

#[tokio::test]
async fn an_older_grant_that_was_put_back_is_rejected() {
    for world in World::start_on_all().await {
        let edit = |statement: &'static str| world.harness().edit(statement);
        let grant_id = world.active_grant().await;
        edit("CREATE TABLE older AS SELECT * FROM grants").await;
        world.revoke_consent(&grant_id).await;
        edit("DELETE FROM grants").await;
        edit("INSERT INTO grants SELECT * FROM older").await;

        assert_internal(world.issue(world.by_client_credentials()).await);
        let reading = pb::GetConsentRequest {
            tenant_id: "acme".into(),
            grant_id: grant_id.clone(),
            admin_session: String::new(),
        };
        let mut as_operator = world.consents_of(Role::Security);
        assert_internal(as_operator.get_consent(reading).await);
        // The revocation is recorded although it fails.
        let revoking = pb::RevokeConsentRequest {
            tenant_id: "acme".into(),
            grant_id,
            reason: "put back".into(),
            admin_session: String::new(),
        };
        assert_internal(as_operator.revoke_consent(revoking).await);
        let events = world.audit_events("consent.revoke").await;
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].detail["altered"], "grants");
    }
}

#[tokio::test]
async fn a_family_from_before_its_end_renews_nothing() {
    for world in World::start_on_all().await {
        let tokens = world.first_tokens().await;
        let edit = |statement: &'static str| world.harness().edit(statement);
        edit("CREATE TABLE older AS SELECT * FROM families").await;
        world.revoke(&tokens.refresh_token).await.unwrap();
        edit("DELETE FROM families").await;
        edit("INSERT INTO families SELECT * FROM older").await;
        assert_internal(world.refresh(&tokens.refresh_token).await);
    }
}

#[tokio::test]
async fn a_grant_that_was_edited_can_be_revoked() {
    for world in World::start_on_all().await {
        let tokens = world.first_tokens().await;
        assert!(world.is_active(&tokens.access_token).await);
        world
            .harness()
            .edit("UPDATE grants SET expires_at = 1 WHERE state = 'active'")
            .await;
        // The cache still holds the unedited grant.
        assert!(world.is_active(&tokens.access_token).await);
        let revoking = pb::RevokeConsentRequest {
            tenant_id: "acme".into(),
            grant_id: tokens.grant_id,
            reason: "edited".into(),
            admin_session: String::new(),
        };
        let mut as_operator = world.consents_of(Role::Security);
        assert_internal(as_operator.revoke_consent(revoking).await);
        assert_internal(world.issue(world.by_client_credentials()).await);
        let introspecting = pb::IntrospectTokenRequest {
            tenant_id: "acme".into(),
            token: tokens.access_token,
            ..Default::default()
        };
        let answer = world.internal_tokens().introspect_token(introspecting).await;
        assert_ne!(
            answer.ok().and_then(|answer| answer.into_inner().active),
            Some(true)
        );
    }
}

#[tokio::test]
async fn a_call_that_uses_an_edited_row_fails_with_an_id_and_says_nothing_else() {
    for world in World::start_on_all().await {
        let edit = |statement: &'static str| world.harness().edit(statement);
        let first = world.first_tokens().await;
        let setup_id = world.setup().await.setup_id;
        let session = world.sign_in(&setup_id).await;

        edit("UPDATE setups SET redirect_uri = 'https://thief.example/'").await;
        let getting = pb::GetSetupRequest {
            setup_id: setup_id.clone(),
        };
        assert_internal(world.setups().get_setup(getting).await);
        let approval = world.approval(&setup_id, &session);
        assert_internal(world.setups().approve_setup(approval).await);

        let code = world.code().await;
        edit("UPDATE codes SET redirect_uri = 'https://thief.example/'").await;
        assert_internal(world.issue(world.by_code(&code)).await);

        edit("UPDATE families SET expires_at = expires_at + 1").await;
        assert_internal(world.refresh(&first.refresh_token).await);
        assert_internal(world.revoke(&first.refresh_token).await);

        let consent = || pb::GetConsentRequest {
            tenant_id: "acme".into(),
            grant_id: first.grant_id.clone(),
            admin_session: String::new(),
        };
        edit("UPDATE grants SET scopes = '[\"api:write\"]'").await;
        let as_operator = world.consents_of(Role::Auditor);
        assert_internal(as_operator.clone().get_consent(consent()).await);
        let listing = pb::ListConsentsRequest {
            tenant_id: "acme".into(),
            ..Default::default()
        };
        assert_internal(as_operator.clone().list_consents(listing.clone()).await);
        let of_another = pb::ListConsentsRequest {
            tenant_id: "globex".into(),
            ..listing
        };
        as_operator.clone().list_consents(of_another).await.unwrap();

        edit("UPDATE admin_sessions SET signed_in_at = signed_in_at + 1").await;
        let as_admin = pb::GetConsentRequest {
            admin_session: session,
            ..consent()
        };
        assert_internal(world.consents().get_consent(as_admin).await);

        edit("UPDATE signing_keys SET state = 'retired' WHERE state = 'next'").await;
        let keys = pb::ListSigningKeysRequest::default();
        assert_internal(world.signing_key_service().list_signing_keys(keys).await);
    }
}
