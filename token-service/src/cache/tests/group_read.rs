//! Facts that are not in memory are read in groups.

use accord::{position::Position, text::id::UserId};
use futures_util::{FutureExt, future::join_all};
use tokio::task::JoinHandle;
use tonic::Code;

use super::*;
use crate::cache::fixture::{FakeRegistry, TENANT, cache};

/// Closes the gate, begins to read the client, and returns once the answer waits at the gate.
async fn reading(
    cache: &Arc<Cache>,
    registry: &FakeRegistry,
) -> JoinHandle<Result<Option<FactAsOf<KnownClient>>, Error>> {
    registry.checks();
    registry.gate.forget_permits(1);
    let (cache, client_id) = (cache.clone(), registry.client_id.clone());
    let reading = tokio::spawn(async move { cache.find_client(&client_id).await });
    while registry.checks().profile_calls == 0 {
        tokio::task::yield_now().await;
    }
    reading
}

#[tokio::test]
async fn one_call_reads_all_facts_that_callers_wait_for() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let random = SeededRandom::new(9);
    let unknown = ClientId::generate(&*test_clock(), &random);
    let first = reading(&cache, &registry).await;
    let calls = (0..20).map(|_| async {
        tokio::join!(
            cache.find_client(&registry.client_id),
            cache.find_client(&unknown),
            cache.find_tenant(&tenant_id),
            cache.find_user(&tenant_id, &registry.user_id),
        )
    });
    let mut calls = Box::pin(join_all(calls));
    assert!((&mut calls).now_or_never().is_none());
    registry.gate.add_permits(1);
    first.await.unwrap().unwrap();
    for (client, nobody, tenant, user) in calls.await {
        assert_eq!(client.unwrap().unwrap().value.client_id, registry.client_id);
        assert!(matches!(nobody, Ok(None)));
        assert_eq!(tenant.unwrap().unwrap().value.tenant_id, tenant_id);
        assert_eq!(user.unwrap().unwrap().value.user_id, registry.user_id);
    }
    let checks = registry.checks();
    assert_eq!((checks.profile_calls, checks.profiles), (1, 2), "both clients");
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_stop_its_group() {
    let (cache, registry, _database) = cache().await;
    let first = reading(&cache, &registry).await;
    first.abort();
    assert!(first.await.is_err(), "it has left");
    registry.gate.add_permits(1);
    let is_known = || cache.facts.clients.get(&registry.client_id).is_some();
    while !is_known() {
        tokio::task::yield_now().await;
    }
    cache.find_client(&registry.client_id).await.unwrap();
    assert_eq!(registry.checks().profile_calls, 0, "the first call has read it");
}

#[tokio::test]
async fn a_fact_that_spoils_an_answer_does_not_fail_the_others() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(TENANT).unwrap();
    let read_both = async || {
        let first = reading(&cache, &registry).await;
        let calls = async {
            let other = UserId::generate(&*test_clock(), &SeededRandom::new(9));
            tokio::join!(cache.find_tenant(&tenant_id), cache.find_user(&tenant_id, &other))
        };
        let mut calls = Box::pin(calls);
        assert!((&mut calls).now_or_never().is_none());
        registry.gate.add_permits(1);
        first.await.unwrap().unwrap();
        let answers = calls.await;
        (answers, registry.checks().profile_calls)
    };
    *registry.fails.lock().unwrap() = Some((Code::OutOfRange, 1));
    let ((tenant, user), calls) = read_both().await;
    assert!(matches!(tenant, Ok(Some(_))) && matches!(user, Ok(None)));
    assert_eq!(calls, 3, "both together, then each alone");

    cache.facts.clear();
    *registry.fails.lock().unwrap() = Some((Code::Unavailable, 1));
    let ((tenant, user), calls) = read_both().await;
    assert!(matches!(tenant, Err(Error::RegistryUnavailable)));
    assert!(matches!(user, Err(Error::RegistryUnavailable)));
    assert_eq!(calls, 1, "a registry that does not answer is not asked again");
}

#[tokio::test]
async fn a_change_during_a_call_is_not_hidden_by_its_answer() {
    let (cache, registry, _database) = cache().await;
    let begun = Instant::now();
    let first = reading(&cache, &registry).await;
    let answered = Instant::now();
    let change = Changes {
        changes: vec![Change::Client(registry.client_id.clone())],
        position: Position {
            epoch: accord::testing::epoch("epochone"),
            seq: 2,
        },
        recent_seq: 0,
        reset: false,
        more: false,
    };
    cache.registry_changes.apply(&cache.facts, change, Instant::now());
    registry.gate.add_permits(1);
    let first = first.await.unwrap().unwrap().unwrap();
    assert!(
        !first.value.is_current() && first.position.seq == 1,
        "it was read before the change"
    );
    assert!(
        begun <= first.sent_at && first.sent_at <= answered,
        "its lease starts with the question"
    );
    cache.find_client(&registry.client_id).await.unwrap();
    assert_eq!(
        registry.checks().profile_calls,
        1,
        "the first answer was not kept"
    );
}

#[tokio::test]
async fn a_registry_that_hangs_fails_its_callers_within_the_wait_limit() {
    let (cache, registry, _database) = cache().await;
    let first = reading(&cache, &registry).await;
    tokio::time::pause();
    assert!(matches!(
        cache.find_client(&registry.client_id).await,
        Err(Error::RegistryUnavailable)
    ));
    assert!(matches!(first.await.unwrap(), Err(Error::RegistryUnavailable)));
    tokio::time::resume();
    registry.gate.add_permits(1);
    cache.find_client(&registry.client_id).await.unwrap();
}
