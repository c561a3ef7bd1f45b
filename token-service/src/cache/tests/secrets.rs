//! Client Secrets: which are verified from memory, and which cost a call to the registry.

use std::sync::atomic::Ordering;

use accord::{
    testing::TEST_START,
    text::opaque::{ClientSecret, SecretTagKey},
};
use sea_orm::ConnectionTrait;

use super::*;
use crate::{cache::fixture::cache, model::client::LiveSecret};

#[test]
fn a_verified_secret_counts_while_its_client_lists_it() {
    let random = SeededRandom::new(4);
    let (facts, mut client) = (Facts::new(), client(&random));
    let id = client.client_id.clone();
    let ends = TEST_START.plus(Duration::from_secs(60));
    let secret_ids: Vec<_> = (0..40)
        .map(|_| SecretId::generate(&*test_clock(), &random))
        .collect();
    let live = |index: usize, expires_at| LiveSecret {
        secret_id: secret_ids[index].clone(),
        expires_at,
    };
    client.live_secrets = vec![live(0, None), live(1, Some(ends))];
    let known = KnownClient::new(client.clone(), None);
    let known = facts.clients.insert(id.clone(), known);
    for mac in 0..3 {
        known.verify(&[mac; 32], &secret_ids[usize::from(mac)]);
    }
    let verified = |known: &KnownClient, now| [0, 1, 2].map(|mac| known.verified(&[mac; 32], now).is_some());
    assert_eq!(
        verified(&known, TEST_START),
        [true, true, false],
        "the third is not listed"
    );
    assert_eq!(
        verified(&known, ends),
        [true, false, false],
        "the second has expired"
    );
    facts.apply(&Change::Client(id.clone()));
    assert!(!known.is_current());
    client.live_secrets = vec![live(1, None), live(2, None)];
    let again = KnownClient::new(client, facts.clients.get(&id).as_deref().map(|known| &**known));
    assert_eq!(
        verified(&again, ends),
        [false, true, true],
        "what was verified stays verified"
    );

    for (mac, secret_id) in secret_ids.iter().enumerate() {
        again.verify(&[mac as u8; 32], secret_id);
        again.reject(secret_id);
    }
    assert_eq!(verified(&again, ends), [false; 3], "memory is bounded");
    assert!(again.is_rejected(&secret_ids[39]) && !again.is_rejected(&secret_ids[0]));
}

#[test]
fn a_use_of_a_secret_is_reported_once_and_again_if_the_report_fails() {
    let random = SeededRandom::new(5);
    let live = LiveSecret {
        secret_id: SecretId::generate(&*test_clock(), &random),
        expires_at: None,
    };
    let client = Client {
        live_secrets: vec![live.clone()],
        ..client(&random)
    };
    let known = KnownClient::new(client, None);
    known.verify(&[1; 32], &live.secret_id);
    let secret = known.verified(&[1; 32], TEST_START).unwrap();
    let uses = SecretUses::default();
    let later = |seconds| TEST_START.plus(Duration::from_secs(seconds));
    let record = |at| uses.record(&known.client_id, secret.clone(), at);
    let take = || {
        let taken = uses.take(9);
        taken
            .into_iter()
            .map(|(_, used)| used.used_at)
            .collect::<Vec<_>>()
    };
    record(TEST_START);
    record(later(1));
    assert_eq!(take(), [later(1)]);
    assert!(take().is_empty());
    record(later(1));
    assert_eq!(take(), [later(1)], "the report failed");
    record(later(2));
    record(later(1));
    assert_eq!(take(), [later(2)], "the secret was used while a report failed");
}

#[tokio::test]
async fn a_stop_waits_a_moment_for_a_registry_that_hangs() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    for _ in 0..2 {
        let answer = cache.authenticate_client(&registry.client_id, registry.secret(), &tenant_id);
        answer.await.unwrap();
    }
    let _shut = registry.gate.acquire().await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::time::pause();
    let stopped_at = Instant::now();
    cache.report_secret_uses(&stop).await;
    let waited = stopped_at.elapsed();
    assert!(waited >= Duration::from_secs(2), "a report was due: {waited:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
}

#[tokio::test]
async fn checks_of_one_secret_wait_for_each_other() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    // With a valid tag, which the holder of a stolen tag key can make.
    let wrong = fixture::secret(&registry.client_id, registry.secret().secret_id().clone(), 2);
    for (secret, is_right, expected) in [(&wrong, false, 20), (registry.secret(), true, 1)] {
        let check = || cache.authenticate_client(&registry.client_id, secret, &tenant_id);
        let answers = futures_util::future::join_all((0..20).map(|_| check())).await;
        assert!(answers.iter().all(|answer| answer.is_ok() == is_right));
        let checks = registry.checks();
        assert_eq!((checks.all, checks.at_once), (expected, 1));
    }
}

#[tokio::test]
async fn a_guess_makes_no_call_and_an_ended_secret_one_for_each_description_of_its_client() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    let (client_id, secret) = (&registry.client_id, registry.secret());
    let random = SeededRandom::new(6);
    let unknown = ClientId::generate(&*test_clock(), &random);
    let other_key = SecretTagKey::new(1, &[8; 32]);
    let guess = ClientSecret::compose(&other_key, client_id, secret.secret_id().clone(), &[1; 32]);
    let without_lease = registry.replica(&cache, false).await;
    for cache in [&*cache, &without_lease] {
        for (client_id, secret) in [(client_id, &guess), (&unknown, &guess), (&unknown, secret)] {
            let answer = cache.authenticate_client(client_id, secret, &tenant_id).await;
            assert!(matches!(answer, Err(Error::InvalidClient(_))));
        }
        let checks = registry.checks();
        assert_eq!((checks.all, checks.profiles), (0, 0));
    }

    registry.ended.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        for _ in 0..5 {
            let answer = cache.authenticate_client(client_id, secret, &tenant_id).await;
            assert!(matches!(answer, Err(Error::InvalidClient(_))));
        }
        let checks = registry.checks();
        assert_eq!((checks.all, checks.profiles), (1, 1));
        cache.facts.apply(&Change::Client(client_id.clone()));
    }
    // The secret was claimed a moment ago, so memory does not list it yet.
    let client = cache.find_client(client_id).await.unwrap().unwrap();
    assert!(client.value.live_secrets.is_empty());
    registry.ended.store(false, Ordering::Relaxed);
    let claimed = cache.authenticate_client(client_id, secret, &tenant_id).await;
    assert_eq!((claimed.is_ok(), registry.checks().all), (true, 1));
}

#[tokio::test]
async fn a_secret_that_one_replica_verified_costs_no_other_a_check() {
    let (cache, registry, _database) = cache().await;
    let tenant_id = TenantId::parse(fixture::TENANT).unwrap();
    let (client_id, secret) = (&registry.client_id, registry.secret());
    let check = async |cache: &Cache| cache.authenticate_client(client_id, secret, &tenant_id).await;
    check(&cache).await.unwrap();
    assert_eq!(registry.checks().all, 1);
    for has_lease in [true, false] {
        let other = registry.replica(&cache, has_lease).await;
        for _ in 0..2 {
            check(&other).await.unwrap();
            other.facts.apply(&Change::Client(client_id.clone()));
        }
        assert_eq!(
            registry.checks().all,
            0,
            "no check, neither the first time nor after a change"
        );
    }

    // The row counts no longer than the secret.
    registry.ended.store(true, Ordering::Relaxed);
    cache.facts.apply(&Change::Client(client_id.clone()));
    for _ in 0..3 {
        assert!(matches!(check(&cache).await, Err(Error::InvalidClient(_))));
    }
    assert_eq!(registry.checks().all, 1);
    cache.retain_verified_secrets().await;
    assert!(!cache.store.is_verified_secret(client_id, secret).await.unwrap());

    // A row that can't be written fails no call.
    registry.ended.store(false, Ordering::Relaxed);
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON verified_secrets BEGIN SELECT RAISE(FAIL, 'refused'); END";
    cache.store.db.read().execute_unprepared(refuse).await.unwrap();
    for _ in 0..2 {
        check(&registry.replica(&cache, true).await).await.unwrap();
        assert_eq!(registry.checks().all, 1);
    }
}

#[tokio::test]
async fn calls_at_the_same_time_read_a_fact_once() {
    let (cache, registry, _database) = cache().await;
    registry.checks();
    let calls = (0..100).map(|_| cache.find_client(&registry.client_id));
    for client in futures_util::future::join_all(calls).await {
        assert_eq!(client.unwrap().unwrap().value.client_id, registry.client_id);
    }
    assert_eq!(registry.checks().profiles, 1);
}

#[tokio::test]
async fn a_failed_removal_of_ended_secrets_is_repeated_for_every_client() {
    let (cache, registry, _database) = cache().await;
    let other = ClientId::generate(&*test_clock(), &SeededRandom::new(8));
    for client_id in [&registry.client_id, &other] {
        cache.facts.note_changed_client(client_id);
    }
    let drop = "DROP TABLE verified_secrets";
    cache.store.db.read().execute_unprepared(drop).await.unwrap();
    cache.retain_verified_secrets().await;
    assert_eq!(cache.facts.take_changed_clients().len(), 2);
}
