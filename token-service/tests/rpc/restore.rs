//! A database that was restored from a copy: nothing counts that may have ended or leaked after the copy.

use accord::token::v1::{self as pb, SigningKeyState};
use tonic::Code;

use crate::harness::ok;
use crate::{harness::assert_rejected, world::World};

/// The ids of the keys that verifiers get.
async fn published(world: &World) -> Vec<String> {
    let request = pb::GetJsonWebKeySetRequest {
        tenant_id: "acme".into(),
    };
    let keys = ok(world.tokens().get_json_web_key_set(request).await).keys;
    keys.into_iter().map(|key| key.kid).collect()
}

#[tokio::test]
async fn a_restored_copy_begins_with_new_signing_keys_and_without_old_tokens() {
    for world in World::start_on_all().await {
        let tokens = world.first_tokens().await;
        let by_itself = world.issue(world.by_client_credentials()).await.unwrap();
        let session = world.sign_in("").await;
        let before = published(&world).await;
        assert_eq!(before.len(), 2);

        world.restore().await;
        let after = published(&world).await;
        assert_eq!(after.len(), 2);
        assert!(after.iter().all(|kid| !before.contains(kid)), "{after:?}");
        let revoked = world.signing_keys(SigningKeyState::Revoked).await;
        let mut revoked: Vec<_> = revoked.into_iter().map(|key| key.kid).collect();
        revoked.sort_unstable();
        let mut expected = before;
        expected.sort_unstable();
        assert_eq!(revoked, expected);
        let events = world.audit_events("signing_key.revoke").await;
        let mut named: Vec<_> = events.iter().map(|event| event.subject.clone()).collect();
        named.sort_unstable();
        assert_eq!(named, expected);
        assert!(events.iter().all(|event| event.detail["reason"] == "restored"));

        for token in [
            &tokens.access_token,
            &tokens.refresh_token,
            &by_itself.access_token,
        ] {
            assert!(!world.is_active(token).await);
        }
        assert_rejected(
            world.refresh(&tokens.refresh_token).await,
            Code::FailedPrecondition,
            "INVALID_GRANT",
        );
        let listing = pb::ListConsentsRequest {
            tenant_id: "acme".into(),
            admin_session: session,
            ..Default::default()
        };
        assert_rejected(
            world.list(listing).await,
            Code::Unauthenticated,
            "ADMIN_SESSION_INVALID",
        );
        let new = world.issue(world.by_client_credentials()).await.unwrap();
        assert!(world.is_active(&new.access_token).await);
    }
}
