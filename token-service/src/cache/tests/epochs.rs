//! Two registries of different databases, such as one and a copy of it.

use std::sync::atomic::Ordering;

use tokio::time::advance;

use super::*;
use crate::{cache::fixture::cache, registry::epochs::SILENCE};

#[tokio::test]
async fn no_answer_counts_while_registries_of_two_databases_answer_and_the_one_that_stays_counts_again() {
    for stays in ["epochone", "epochtwo"] {
        let (one, registry, _database) = cache().await;
        let (cache, copy) = registry.beside_a_copy(&one).await;
        let tenant_id = TenantId::parse("acme").unwrap();
        let is_rejected = async || {
            let caught_up = cache.registry_changes.catch_up(&cache.facts).await;
            let client = cache.find_client(&registry.client_id).await;
            let secret = cache.authenticate_client(&registry.client_id, registry.secret(), &tenant_id);
            matches!(caught_up, Err(Error::RegistryUnavailable))
                && matches!(client, Err(Error::RegistryUnavailable))
                && matches!(secret.await, Err(Error::RegistryUnavailable))
                && cache.registry_changes.lease().is_none()
        };
        for n in 0..10 {
            assert!(is_rejected().await, "{n}");
        }
        let leaves = if stays == "epochone" {
            copy
        } else {
            registry.clone()
        };
        leaves.is_down.store(true, Ordering::Relaxed);
        assert!(is_rejected().await, "the other one may answer again");

        tokio::time::pause();
        advance(SILENCE).await;
        tokio::time::resume();
        cache.registry_changes.catch_up(&cache.facts).await.unwrap();
        let client = cache.find_client(&registry.client_id).await.unwrap().unwrap();
        let lease = cache.registry_changes.lease().unwrap();
        for position in [client.position, lease.position] {
            assert_eq!(position.epoch.as_str(), stays);
        }
        assert!(client.value.is_current());
    }
}
