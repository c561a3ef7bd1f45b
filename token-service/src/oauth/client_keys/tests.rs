//! When keys are fetched, and how long they count.

#![allow(clippy::unwrap_used)]

use accord::{
    random::SystemRandom,
    testing::{
        TEST_START,
        certificates::{KeyKind, Pair, Subject},
        test_clock,
    },
};
use futures_util::future::join_all;

use super::{
    fetch::tests::{KeyServer, key_set, ok},
    *,
};

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
    assert!(none.is_due(at(0), false) && none.usable(at(0)).is_none());
    let fetched = Fetched {
        keys: Some((Arc::default(), at(0))),
        tried_at: Some(at(0)),
    };
    for (secs, are_wanting, is_due) in [
        (0, true, false),
        (59, true, false),
        (60, true, true),
        (60, false, false),
        (899, false, false),
        (900, false, true),
    ] {
        assert_eq!(
            fetched.is_due(at(secs), are_wanting),
            is_due,
            "{secs} {are_wanting}"
        );
    }
    let failed = Fetched {
        tried_at: Some(at(900)),
        ..fetched
    };
    assert!(!failed.is_due(at(959), false) && failed.is_due(at(960), false));
    let day = 24 * 3600;
    assert!(failed.usable(at(day - 1)).is_some() && failed.usable(at(day)).is_none());
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
