//! Clients' public keys, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::testing::databases;
use tokio::task::JoinSet;

use super::*;
use crate::{
    model::{change_kind, delivery::Method},
    store::{
        client::tests::{registered, registered_with_keys, seeded},
        testing::{audited, origin},
    },
};

/// A set of keys with these names.
fn keys(kids: &[&str]) -> ClientKeys {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let key =
        |kid: &&str| format!(r#"{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"{kid}","x":"{x}"}}"#);
    let keys: Vec<_> = kids.iter().map(key).collect();
    ClientKeys::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(","))).unwrap()
}

#[tokio::test]
async fn fewer_keys_are_a_change_that_ends_no_token_and_no_setup() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let all = keys(&["one", "two", "three"]);
        let (client, _) = registered_with_keys(&store, Method::Inline, all.as_str()).await;
        assert_eq!(client.json_web_key_set, all.as_str(), "{database:?}");
        for (keys, etag) in [keys(&["three", "one"]), keys(&["one"]), ClientKeys::default()]
            .into_iter()
            .zip(2..)
        {
            clock.advance(Duration::from_secs(1));
            let before = store.position().await.unwrap();
            let set = store.set_client_keys(&origin(), &client.client_id, &keys).await;
            let expected = Client {
                json_web_key_set: keys.as_str().to_owned(),
                updated_at: store.now(),
                etag,
                ..client.clone()
            };
            assert_eq!(set.unwrap(), expected, "{database:?}");
            let found = store.find_client(&client.client_id).await.unwrap();
            assert_eq!(found, Some(expected), "{database:?}");
            let changes = accord::store::change::list_after(store.db.read(), before.seq, 10)
                .await
                .unwrap();
            let changes: Vec<_> = changes
                .iter()
                .map(|row| (row.kind.as_str(), row.id.as_str()))
                .collect();
            assert_eq!(
                changes,
                [(change_kind::CLIENT, client.client_id.as_str())],
                "{database:?}"
            );
        }
    }
}

#[tokio::test]
async fn other_keys_are_rejected_and_the_same_ones_change_nothing() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (bare, _) = registered(&store, Method::Inline).await;
        let stored = keys(&["one", "two"]);
        let (keyed, _) = registered_with_keys(&store, Method::Inline, stored.as_str()).await;
        clock.advance(Duration::from_secs(1));
        let before = (store.position().await.unwrap(), audited(&store).await);
        for (client, same, other) in [
            (bare, ClientKeys::default(), keys(&["one"])),
            (keyed, stored, keys(&["one", "three"])),
        ] {
            let again = store.set_client_keys(&origin(), &client.client_id, &same).await;
            assert_eq!(again.unwrap(), client, "{database:?}");
            let refused = store.set_client_keys(&origin(), &client.client_id, &other).await;
            assert!(
                matches!(refused, Err(Error::Invalid(_))),
                "{database:?}: {refused:?}"
            );
        }
        let after = (store.position().await.unwrap(), audited(&store).await);
        assert_eq!(after, before, "{database:?}");
        let nobody = ClientId::generate(&*store.clock, &*store.random);
        let unknown = store.set_client_keys(&origin(), &nobody, &keys(&["one"])).await;
        assert!(matches!(unknown, Err(Error::NotFound("client"))), "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_calls_with_the_same_keys_one_makes_a_change() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let all = keys(&["one", "two"]);
        let (client, _) = registered_with_keys(&store, Method::Inline, all.as_str()).await;
        let before = store.position().await.unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let (store, client_id) = (store.clone(), client.client_id.clone());
            calls.spawn(async move {
                store
                    .set_client_keys(&origin(), &client_id, &keys(&["one"]))
                    .await
            });
        }
        for result in calls.join_all().await {
            assert_eq!(
                result.unwrap().json_web_key_set,
                keys(&["one"]).as_str(),
                "{database:?}"
            );
        }
        let after = store.position().await.unwrap();
        assert_eq!(after.seq, before.seq + 1, "{database:?}");
        let events = audited(&store).await;
        let events = events.iter().filter(|action| *action == "client.set_keys");
        assert_eq!(events.count(), 1, "{database:?}");
    }
}
