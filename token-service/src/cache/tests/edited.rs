//! A feed and revocations that somebody has edited who holds no key.

use accord::store::audit::{Event, Origin, action};
use sea_orm::ConnectionTrait;

use super::*;
use crate::cache::fixture::{TENANT, cache};

async fn edit(cache: &Cache, statement: &str) {
    let edited = cache.store.db.read().execute_unprepared(statement).await;
    assert!(edited.unwrap().rows_affected() > 0, "{statement}");
}

#[tokio::test]
async fn an_edited_feed_hides_no_revocation() {
    let (cache, registry, _database) = cache().await;
    cache.insert_grant(&registry).await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let known = cache
        .current_grant(&registry.client_id, &tenant_id)
        .await
        .unwrap();
    let grant = known.value.unwrap();
    let (by, reason) = (Origin::system("test"), "no longer needed");
    let revoked = cache
        .store
        .revoke_grant(&by, &tenant_id, &grant.grant_id, reason, None);
    revoked.await.unwrap();
    edit(&cache, "UPDATE changes SET kind = 'signing-key', id = 'some-key'").await;

    // Memory is cleared, and not used while the feed can't be read.
    let caught_up = cache.own_changes.catch_up(&cache.facts).await;
    assert!(matches!(caught_up, Err(Error::Unavailable)), "{caught_up:?}");
    assert!(!grant.is_current());
    assert!(cache.own_changes.lease().is_none());
    let named = [(RevocationKind::Grant, grant.grant_id.as_str())];
    let found = cache.last_revocation_after(0, &named).await.map(|_| ());
    assert!(matches!(found, Err(Error::Unavailable)), "{found:?}");
    let feed = cache.own_revocations_after(0, 10).await.map(|_| ());
    assert!(matches!(feed, Err(Error::Unavailable)), "{feed:?}");
}

#[tokio::test]
async fn a_change_that_was_removed_hides_no_revocation() {
    let (cache, registry, _database) = cache().await;
    cache.insert_grant(&registry).await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let known = cache.current_grant(&registry.client_id, &tenant_id).await;
    let grant = known.unwrap().value.unwrap();
    cache.own_changes.catch_up(&cache.facts).await.unwrap();
    let by = Origin::system("test");
    let revoked = cache
        .store
        .revoke_grant(&by, &tenant_id, &grant.grant_id, "no longer needed", None);
    revoked.await.unwrap();
    // The last ones, so that no number is missing between others.
    edit(
        &cache,
        "DELETE FROM changes WHERE kind IN ('grant', 'revocation')",
    )
    .await;
    let _ = cache.own_changes.catch_up(&cache.facts).await;
    assert!(!grant.is_current());
    let named = [(RevocationKind::Grant, grant.grant_id.as_str())];
    // Even if the revocation itself is gone.
    edit(&cache, "DELETE FROM revocations").await;
    let found = cache.last_revocation_after(0, &named).await.map(|_| ());
    assert!(matches!(found, Err(Error::Unavailable)), "{found:?}");
}

#[tokio::test]
async fn a_revocation_that_was_removed_is_known_by_its_change() {
    let (first, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let ends = first.store.now().plus(Duration::from_secs(300));
    let (by, event) = (Origin::system("test"), Event::new(action::TOKEN_REVOKE));
    let revoked = first
        .store
        .revoke_access_token(&by, &tenant_id, "one", ends, event);
    revoked.await.unwrap();
    edit(&first, "DELETE FROM revocations").await;

    let cache = registry.replica(&first, false).await;
    cache.own_changes.catch_up(&cache.facts).await.unwrap();
    let named = [(RevocationKind::Jti, "one")];
    let last = cache.last_revocation_after(0, &named).await.unwrap();
    assert!(last.value.is_some());
    let feed = cache.own_revocations_after(0, 10).await.unwrap();
    assert_eq!(feed.value.len(), 1);
}

#[tokio::test]
async fn an_edited_revocation_stops_every_answer_about_revocations() {
    let (first, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let ends = first.store.now().plus(Duration::from_secs(300));
    let (by, event) = (Origin::system("test"), Event::test("token.revoke"));
    let revoked = first
        .store
        .revoke_access_token(&by, &tenant_id, "one", ends, event);
    revoked.await.unwrap();
    edit(&first, "UPDATE revocations SET id = 'two' WHERE id = 'one'").await;

    let cache = registry.replica(&first, false).await;
    let named = [(RevocationKind::Jti, "one")];
    for _ in 0..2 {
        let caught_up = cache.own_changes.catch_up(&cache.facts).await;
        assert!(matches!(caught_up, Err(Error::Internal(_))), "{caught_up:?}");
        assert!(cache.own_changes.lease().is_none());
        let last = cache.last_revocation_after(0, &named).await.map(|_| ());
        assert!(matches!(last, Err(Error::Internal(_))), "{last:?}");
        let feed = cache.own_revocations_after(0, 10).await.map(|_| ());
        assert!(matches!(feed, Err(Error::Internal(_))), "{feed:?}");
    }

    edit(&first, "UPDATE revocations SET id = 'one' WHERE id = 'two'").await;
    let last = cache.last_revocation_after(0, &named).await.unwrap();
    assert!(last.value.is_some());
}
