//! How long a fact counts that no change affects.

use tokio::time::{advance, pause, resume};

use super::{super::cached::MAX_AGE, *};
use crate::cache::fixture::{TENANT, cache};

#[tokio::test]
async fn a_fact_that_no_change_affects_is_read_again_once_it_is_old() {
    let (cache, registry, _database) = cache().await;
    cache.insert_grant(&registry).await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let known = cache.current_grant(&registry.client_id, &tenant_id).await;
    let grant = known.unwrap().value.unwrap();
    let client = cache
        .find_client(&registry.client_id)
        .await
        .unwrap()
        .unwrap()
        .value;
    let later = async |time| {
        pause();
        advance(time).await;
        resume();
    };
    later(MAX_AGE / 4).await;
    cache.expire_old_facts().await;
    assert!(grant.is_current() && client.is_current());

    // The registry has not answered since. The facts of this service's own database are read again all the same.
    later(MAX_AGE).await;
    cache.expire_old_facts().await;
    assert!(!grant.is_current() && client.is_current());
    cache.registry_changes.catch_up(&cache.facts).await.unwrap();
    cache.expire_old_facts().await;
    assert!(!client.is_current());
}
