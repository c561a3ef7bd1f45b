//! How long a fact counts that no change affects.

use tokio::time::{advance, pause};

use super::{super::cached::MAX_AGE, *};
use crate::cache::fixture::{TENANT, cache};

#[tokio::test]
async fn a_fact_that_no_change_affects_is_read_again_once_it_is_old() {
    let (cache, registry, _database) = cache().await;
    cache.insert_grant(&registry).await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let known = cache.current_grant(&registry.client_id, &tenant_id).await;
    let grant = known.unwrap().value.unwrap();
    let client = cache.client(&registry.client_id).await.unwrap().value;
    pause();
    advance(MAX_AGE / 2 - Duration::from_secs(1)).await;
    cache.facts.expire_old();
    assert!(grant.is_current() && client.is_current());
    advance(MAX_AGE / 2 + Duration::from_secs(1)).await;
    cache.facts.expire_old();
    assert!(!grant.is_current() && !client.is_current());
}
