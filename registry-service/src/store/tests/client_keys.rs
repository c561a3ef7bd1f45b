//! Clients' public keys, on both databases.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use accord::{store::Database, testing::databases};
use sea_orm::ConnectionTrait;
use sea_orm_migration::prelude::*;
use tokio::task::JoinSet;

use super::*;
use crate::{
    model::{change_kind, client::profile, delivery::Method},
    store::{
        client::tests::{registered, seeded},
        migration::Migrator,
        testing::{audited, origin},
    },
};

/// A set of one key.
fn keys(kid: &str) -> ClientKeys {
    let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    let text =
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"{kid}","x":"{x}"}}]}}"#);
    ClientKeys::parse(&text).unwrap()
}

#[tokio::test]
async fn new_keys_are_a_change_that_ends_no_token_and_no_setup() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        assert_eq!(client.json_web_key_set, "", "{database:?}");
        for keys in [keys("one"), keys("two"), ClientKeys::default()] {
            clock.advance(Duration::from_secs(1));
            let before = store.position().await.unwrap();
            let set = store.set_client_keys(&origin(), &client.client_id, &keys).await;
            let expected = Client {
                json_web_key_set: keys.as_str().to_owned(),
                updated_at: store.now(),
                ..client.clone()
            };
            assert_eq!(set.unwrap(), expected, "{database:?}");
            let found = store.find_client(&client.client_id).await.unwrap();
            assert_eq!(found, Some(expected), "{database:?}");
            let seen = profile(&store, &client.client_id).await.unwrap();
            assert_eq!(seen.json_web_key_set, keys.as_str(), "{database:?}");
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
async fn the_same_keys_again_are_no_change() {
    for database in databases() {
        let (store, clock) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        for keys in [ClientKeys::default(), keys("one")] {
            let first = store.set_client_keys(&origin(), &client.client_id, &keys).await;
            clock.advance(Duration::from_secs(1));
            let before = (store.position().await.unwrap(), audited(&store).await);
            let again = store.set_client_keys(&origin(), &client.client_id, &keys).await;
            assert_eq!(again.unwrap(), first.unwrap(), "{database:?}");
            let after = (store.position().await.unwrap(), audited(&store).await);
            assert_eq!(after, before, "{database:?}");
        }
        let nobody = ClientId::generate(&*store.clock, &*store.random);
        let unknown = store.set_client_keys(&origin(), &nobody, &keys("one")).await;
        assert!(matches!(unknown, Err(Error::NotFound("client"))), "{database:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_racing_calls_with_the_same_keys_one_is_a_change() {
    for database in databases() {
        let (store, _) = seeded(&database.url).await;
        let (client, _) = registered(&store, Method::Inline).await;
        let before = store.position().await.unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..8 {
            let (store, client_id) = (store.clone(), client.client_id.clone());
            calls.spawn(async move { store.set_client_keys(&origin(), &client_id, &keys("one")).await });
        }
        for result in calls.join_all().await {
            assert_eq!(
                result.unwrap().json_web_key_set,
                keys("one").as_str(),
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

/// The first release's migrations.
struct FirstRelease;

#[async_trait::async_trait]
impl MigratorTrait for FirstRelease {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        Migrator::migrations().into_iter().take(1).collect()
    }

    fn migration_table_name() -> DynIden {
        Migrator::migration_table_name()
    }
}

#[tokio::test]
async fn clients_of_the_first_release_have_no_keys() {
    for database in databases() {
        let db = Database::connect(&database.url).await.unwrap();
        db.migrate::<FirstRelease>().await.unwrap();
        let tx = db.write().await.unwrap();
        let row = "INSERT INTO clients (client_id, integration_request_id, display_name, partner_name, purpose, \
             scopes, redirect_uris, state, version, tokens_ended_seq, families_ended_seq, created_at, updated_at) \
             VALUES ('cli_old', 'irq_old', 'Old', 'Partner', 'Goals', '[]', '[]', 'active', 1, 0, 0, 0, 0)";
        tx.execute_unprepared(row).await.unwrap();
        tx.commit().await.unwrap();
        db.migrate::<Migrator>().await.unwrap();
        let kept = Entity::find_by_id("cli_old")
            .one(db.read())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (kept.display_name.as_str(), kept.json_web_key_set.as_str()),
            ("Old", ""),
            "{database:?}"
        );
    }
}
