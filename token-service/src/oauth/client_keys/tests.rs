//! When keys are fetched, and how long they count.

#![allow(clippy::unwrap_used)]

use accord::{
    random::SystemRandom,
    testing::{
        TEST_START,
        certificates::{KeyKind, Pair, Subject},
        dpop::ProofKey,
        https::ok,
        test_clock,
    },
};
use futures_util::{FutureExt, future::join_all};
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::{
    fetch::tests::{KeyServer, key_set},
    *,
};
use crate::model::client::key_set::Signed;

fn client(jwks_uri: String) -> Client {
    Client {
        jwks_uri,
        ..Client::without_anything(ClientId::generate(&*test_clock(), &SystemRandom))
    }
}

fn certificate() -> Vec<u8> {
    Pair::self_signed(&Subject::default(), KeyKind::P256).der()
}

#[test]
fn keys_are_fetched_once_they_are_old_or_wanting_and_at_most_once_a_minute() {
    let at = |secs: u64| TEST_START.plus(Duration::from_secs(secs));
    let none = Fetched::default();
    assert!(none.is_due(at(0), false) && none.younger_than(KEEP, at(0)).is_none());
    let fetched = Fetched {
        keys: Some((Arc::default(), at(0))),
        tried_at: Some(at(0)),
        failed_at: None,
    };
    for (secs, must_refresh, is_due) in [
        (0, true, false),
        (59, true, false),
        (60, true, true),
        (60, false, false),
        (599, false, false),
        (600, false, true),
    ] {
        assert_eq!(
            fetched.is_due(at(secs), must_refresh),
            is_due,
            "{secs} {must_refresh}"
        );
    }
    let failed = Fetched {
        tried_at: Some(at(900)),
        failed_at: Some(at(900)),
        ..fetched
    };
    assert!(!failed.is_due(at(959), false) && failed.is_due(at(960), false));
    let day = 24 * 3600;
    let usable = |secs| failed.younger_than(KEEP, at(secs)).is_some();
    assert!(usable(day - 1) && !usable(day));
    // The clock was set back: nobody knows how old the keys are.
    let ahead = Fetched {
        keys: Some((Arc::default(), at(1_000))),
        tried_at: Some(at(1_000)),
        failed_at: None,
    };
    assert!(ahead.is_due(at(999), false) && ahead.younger_than(KEEP, at(999)).is_none());
}

#[tokio::test]
async fn a_replaced_certificate_is_found_and_an_outage_survived() {
    let (old, new) = (certificate(), certificate());
    let server = KeyServer::start(ok(&key_set(&old)), false).await;
    let (clock, client) = (test_clock(), client(server.url()));
    let keys = ClientKeySets::new(server.fetcher(), clock.clone());
    let has = async |certificate: &[u8]| {
        let found = keys.check(&client, |keys| keys.has_certificate(certificate));
        found.await.ok()
    };
    assert_eq!(has(&old).await, Some(true));
    server.set_answer(ok(&key_set(&new)));
    // A stranger can't make it ask again and again.
    for _ in 0..3 {
        assert_eq!(has(&new).await, Some(false));
    }
    assert_eq!(server.connections(), 1);
    clock.advance(PAUSE);
    assert_eq!(has(&new).await, Some(true));
    assert_eq!(has(&old).await, Some(false));
    assert_eq!(server.connections(), 2);
    server.set_answer(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_vec());
    clock.advance(FRESH);
    assert_eq!(has(&new).await, Some(true));
    assert_eq!(server.connections(), 3);
    clock.advance(KEEP);
    assert_eq!(has(&new).await, None);
    server.set_answer(ok(&key_set(&new)));
    assert_eq!(has(&new).await, None, "within the pause");
    clock.advance(PAUSE);
    assert_eq!(has(&new).await, Some(true));
}

/// A key set of this key, by this name.
fn signing_set(key: &ProofKey, kid: &str) -> String {
    let mut jwk = key.jwk.clone();
    jwk["kid"] = kid.into();
    json!({ "keys": [jwk] }).to_string()
}

#[tokio::test]
async fn an_unknown_name_and_a_wrong_signature_under_a_known_one_fetch_again() {
    let (old, new) = (ProofKey::es256(), ProofKey::es256());
    let server = KeyServer::start(ok(&signing_set(&old, "one")), false).await;
    let (clock, client) = (test_clock(), client(server.url()));
    let keys = ClientKeySets::new(server.fetcher(), clock.clone());
    let verifies = async |key: &ProofKey, kid: &str| {
        let jwt = key.sign(&json!({"alg": "ES256"}), &json!({}));
        let (message, signature) = jwt.rsplit_once('.').unwrap();
        let signed = Signed {
            algorithm: Algorithm::ES256,
            kid: Some(kid),
            message,
            signature,
        };
        keys.check(&client, |keys| keys.verify(&signed)).await.unwrap()
    };
    assert!(verifies(&old, "one").await);
    // The partner replaces the key, by another name and then by the same.
    for (fetches, key, kid) in [(2, &new, "two"), (3, &old, "two")] {
        server.set_answer(ok(&signing_set(key, kid)));
        assert!(!verifies(key, kid).await, "within the pause");
        assert_eq!(server.connections(), fetches - 1);
        clock.advance(PAUSE);
        assert!(verifies(key, kid).await);
        assert_eq!(server.connections(), fetches);
    }
}

#[tokio::test]
async fn calls_of_one_moment_share_a_fetch() {
    let certificate = certificate();
    let server = KeyServer::start(ok(&key_set(&certificate)), false).await;
    let client = client(server.url());
    let keys = ClientKeySets::new(server.fetcher(), test_clock());
    let checks = (0..16).map(|_| keys.check(&client, |keys| keys.has_certificate(&certificate)));
    for checked in join_all(checks).await {
        assert!(checked.unwrap());
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_fetch_that_hangs_delays_only_calls_that_need_other_keys() {
    let certificate = certificate();
    let server = KeyServer::start(ok(&key_set(&certificate)), false).await;
    let client = client(server.url());
    let keys = ClientKeySets::new(server.fetcher(), test_clock());
    let has = |keys: &ClientKeySet| keys.has_certificate(&certificate);
    assert!(keys.check(&client, has).await.unwrap());
    let slot = keys
        .fetched
        .get(&(client.client_id.clone(), client.jwks_uri.clone()));
    let slot = slot.unwrap();
    let _hangs = slot.fetching.lock().await;
    assert!(keys.check(&client, has).now_or_never().unwrap().unwrap());
    assert!(keys.check(&client, |_| false).now_or_never().is_none());
}

/// Failed once: after fifteen minutes a call of each minute waited for the fetch that hung.
#[tokio::test]
async fn old_keys_are_fetched_beside_the_calls_and_count_while_fetches_fail() {
    let certificate = certificate();
    let server = KeyServer::start(ok(&key_set(&certificate)), false).await;
    let (clock, client) = (test_clock(), client(server.url()));
    let keys = ClientKeySets::new(server.fetcher(), clock.clone());
    let check = || keys.check(&client, |keys| keys.has_certificate(&certificate));
    let at_once = || check().now_or_never().map(Result::unwrap);
    assert!(check().await.unwrap());
    let slot = keys
        .fetched
        .get(&(client.client_id.clone(), client.jwks_uri.clone()));
    let slot = slot.unwrap();

    clock.advance(EARLY);
    assert_eq!(at_once(), Some(true));
    while server.connections() < 2 {
        tokio::task::yield_now().await;
    }
    drop(slot.fetching.lock().await);
    // A key that was removed counts no longer than the keys are fresh, also for a call beside the one that fetches.
    server.set_answer(ok(r#"{"keys": []}"#));
    clock.advance(FRESH);
    for checked in join_all([check(), check()]).await {
        assert!(!checked.unwrap());
    }
    assert_eq!(server.connections(), 3);

    server.set_answer(ok(&key_set(&certificate)));
    clock.advance(PAUSE);
    assert!(check().await.unwrap());
    server.set_answer(b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n".to_vec());
    clock.advance(FRESH);
    assert!(check().await.unwrap());
    clock.advance(PAUSE);
    assert_eq!(at_once(), Some(true));
    drop(slot.fetching.lock().await);
    // Nobody knows any more whether fetches fail: one call waits.
    clock.advance(FAILS);
    assert_eq!(at_once(), None);
    assert_eq!(at_once(), Some(true));
}

#[tokio::test]
async fn keys_in_the_registry_are_not_fetched() {
    let certificate = certificate();
    let server = KeyServer::start(ok("{}"), false).await;
    let client = Client {
        json_web_key_set: key_set(&certificate),
        ..client(String::new())
    };
    let keys = ClientKeySets::new(server.fetcher(), test_clock());
    let has = |keys: &ClientKeySet| keys.has_certificate(&certificate);
    assert!(keys.check(&client, has).await.unwrap());
    assert_eq!(server.connections(), 0);
}
