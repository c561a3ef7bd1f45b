//! How long a fact counts that no change affects.

use std::pin::pin;

use tokio::time::{advance, pause, resume, timeout};

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
    advance(MAX_AGE / 4).await;
    let mut expiry = pin!(cache.expire_old_facts());
    let _ = timeout(EXPIRY_PERIOD, &mut expiry).await;
    assert!(grant.is_current() && client.is_current());

    // The registry does not answer. The facts of this service's own database are read again all the same.
    let _ = timeout(MAX_AGE, &mut expiry).await;
    assert!(!grant.is_current() && client.is_current());
    resume();
    cache.registry_changes.catch_up(&cache.facts).await.unwrap();
    pause();
    let _ = timeout(LEASE, &mut expiry).await;
    assert!(!client.is_current());
}
