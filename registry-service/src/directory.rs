//! What token-service reads: facts with the position of the change feed at which they were read, and the feed itself.

use std::time::Duration;

use accord::{
    metrics::FEED_HEAD,
    position::Position,
    store::{
        audit,
        change::{self, FeedPage},
    },
    text::page::MAX_SIZE,
};
use metrics::gauge;
use zeroize::Zeroizing;

use crate::{error::Result, hashing::secret_tag, store::Store};

/// How far [`Changes::recent_seq`] looks back: four times the longest lifetime of an access token, so that the clocks
/// of replicas need not agree.
const RECENT: Duration = Duration::from_secs(3600);

/// Reads the position before the fact, so that the fact reflects all changes up to the position.
pub async fn read_at<T>(store: &Store, fact: impl Future<Output = Result<T>>) -> Result<(T, Position)> {
    let position = store.position().await?;
    Ok((fact.await?, position))
}

/// Changes after a position.
#[derive(Clone)]
pub struct Changes {
    /// The changes in commit order, and the position up to which they are complete.
    pub feed: FeedPage,
    /// The keys that Client Secrets may be tagged with, by version.
    pub secret_tag_keys: Vec<(i32, Zeroizing<[u8; 32]>)>,
    /// A position at or after which every access token that is still valid was issued. Set only if there was no usable
    /// `after`.
    pub recent_seq: Option<i64>,
}

/// Lists the changes after `after`, at most `limit`. A limit of 0 or above 500 means 500. Without `after`, returns only
/// the position of the feed.
pub async fn changes(store: &Store, after: Option<Position>, limit: u64) -> Result<Changes> {
    let limit = if limit == 0 { MAX_SIZE } else { limit.min(MAX_SIZE) };
    // After a failover, an old primary would answer with out-of-date rows.
    store.db.check_current().await?;
    let conn = store.db.read();
    let sealed = audit::sealed_number(conn).await?;
    let feed = change::read(conn, sealed, after.as_ref(), limit).await?;
    gauge!(FEED_HEAD, "feed" => "registry").set(feed.head as f64);
    let recent_seq = if after.is_none() || feed.reset {
        let recent_seq = change::seq_before(conn, store.now().minus(RECENT)).await?;
        Some(recent_seq.min(feed.position.seq))
    } else {
        None
    };
    // Whoever lacks a tag key takes right secrets for guesses.
    let keyring = store.keyring.complete().await?;
    Ok(Changes {
        feed,
        secret_tag_keys: secret_tag::exposed(&keyring),
        recent_seq,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use accord::{
        keys::FileMasterKey,
        store::{
            change::{self, Change},
            keyring,
        },
        testing::{databases, scraped},
        text::{
            id::{ClientId, SecretId},
            opaque::ClientSecret,
        },
    };

    use super::*;
    use crate::{
        authentication::client,
        error::Error,
        model::{change_kind, purpose},
        store::testing::store,
    };

    #[tokio::test]
    async fn an_answer_has_at_most_500_changes() {
        for database in databases() {
            let (store, _) = store(&database.url).await;
            let start = store.position().await.unwrap();
            let new: Vec<_> = (0..501)
                .map(|index| Change {
                    kind: change_kind::SCOPE,
                    id: index.to_string(),
                    tenant_id: None,
                })
                .collect();
            let tx = store.db.write().await.unwrap();
            change::publish(&tx, &new, store.now()).await.unwrap();
            tx.commit().await.unwrap();
            for limit in [0, 500, 501, u64::MAX] {
                let answer = changes(&store, Some(start.clone()), limit).await.unwrap();
                assert_eq!(answer.feed.changes.len(), 500, "{database:?} {limit}");
                assert!(answer.feed.more && !answer.feed.reset, "{database:?} {limit}");
                assert_eq!(answer.feed.position.seq, start.seq + 500, "{database:?} {limit}");
            }
        }
    }

    #[tokio::test]
    async fn a_replica_without_a_tag_key_in_use_neither_hands_out_keys_nor_rejects_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        for database in databases() {
            let (store, clock) = store(&database.url).await;
            let client_id = ClientId::generate(&*clock, &*store.random);
            let key = store.secret_tag_key().await.unwrap();
            let secret_id = SecretId::generate(&*clock, &*store.random);
            let secret = ClientSecret::compose(&key, &client_id, secret_id, &[7; 32]);
            let authenticate = async || {
                client::authenticate(&store, client_id.as_str(), secret.expose())
                    .await
                    .err()
                    .unwrap()
            };
            assert!(
                matches!(authenticate().await, Error::InvalidClient),
                "{database:?}"
            );
            // Another replica uses a key that this one can't open.
            let path = dir.path().join(client_id.as_str());
            let masters = FileMasterKey::create(&path, &*store.random).unwrap().into();
            keyring::add_version(&store.db, &masters, purpose::SECRET_TAG, &*clock, &*store.random)
                .await
                .unwrap();
            clock.advance(keyring::DISTRIBUTION);
            store.keyring.refresh().await.unwrap();
            let unavailable = |error: &Error| matches!(error, Error::Store(error) if error.is_temporary());
            let error = changes(&store, None, 0).await.err().unwrap();
            assert!(unavailable(&error), "{database:?}: {error}");
            let error = authenticate().await;
            assert!(unavailable(&error), "{database:?}: {error}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_behind_shows_by_how_much() {
        for database in databases() {
            let (store, _) = store(&database.url).await;
            let start = store.position().await.unwrap();
            let change = Change {
                kind: change_kind::SCOPE,
                id: "a".into(),
                tenant_id: None,
            };
            let tx = store.db.write().await.unwrap();
            change::publish(&tx, &[change.clone(), change.clone(), change], store.now())
                .await
                .unwrap();
            tx.commit().await.unwrap();
            let expected = format!("{FEED_HEAD}{{feed=\"registry\"}} {}\n", start.seq + 3);
            let scrape = scraped(async {
                let answer = changes(&store, Some(start.clone()), 1).await.unwrap();
                assert_eq!(answer.feed.position.seq, start.seq + 1, "{database:?}");
            });
            assert!(scrape.await.contains(&expected), "{database:?}");
        }
    }

    #[tokio::test]
    async fn a_new_epoch_is_a_reset_and_continues_the_numbers() {
        for database in databases() {
            let (store, _) = store(&database.url).await;
            let old = store.position().await.unwrap();
            let tx = store.db.write().await.unwrap();
            change::start_epoch(&tx, &*store.random).await.unwrap();
            tx.commit().await.unwrap();
            let answer = changes(&store, Some(old.clone()), 0).await.unwrap();
            assert!(
                answer.feed.reset && answer.feed.changes.is_empty() && !answer.feed.more,
                "{database:?}"
            );
            assert_ne!(answer.feed.position.epoch, old.epoch, "{database:?}");
            assert_eq!(answer.feed.position.seq, old.seq, "{database:?}");
        }
    }

    #[tokio::test]
    async fn a_reader_without_a_usable_position_learns_where_the_last_hour_begins() {
        for database in databases() {
            let (store, clock) = store(&database.url).await;
            let scope = || Change {
                kind: change_kind::SCOPE,
                id: "a".into(),
                tenant_id: None,
            };
            let change = async || {
                let tx = store.db.write().await.unwrap();
                change::publish(&tx, &[scope()], store.now()).await.unwrap();
                tx.commit().await.unwrap();
            };
            let start = store.position().await.unwrap();
            change().await;
            clock.advance(Duration::from_secs(3600));
            change().await;
            let foreign = Position {
                epoch: accord::testing::epoch("other"),
                seq: 0,
            };
            let ahead = Position {
                seq: start.seq + 3,
                ..start.clone()
            };
            // Includes a change of exactly an hour ago, and not one of a millisecond before.
            for recent_seq in [start.seq, start.seq + 1] {
                for unusable in [None, Some(foreign.clone()), Some(ahead.clone())] {
                    let answer = changes(&store, unusable.clone(), 0).await.unwrap();
                    assert_eq!(answer.recent_seq, Some(recent_seq), "{database:?} {unusable:?}");
                    assert_eq!(answer.feed.reset, unusable.is_some(), "{database:?}");
                }
                let answer = changes(&store, Some(start.clone()), 0).await.unwrap();
                assert_eq!(answer.recent_seq, None, "{database:?}");
                clock.advance(Duration::from_millis(1));
            }
            clock.advance(Duration::from_secs(3600));
            let answer = changes(&store, None, 0).await.unwrap();
            assert_eq!(answer.recent_seq, Some(answer.feed.position.seq), "{database:?}");
        }
    }

    #[tokio::test]
    async fn a_fact_counts_as_read_before_changes_that_come_meanwhile() {
        let database = accord::testing::sqlite();
        let (store, _) = store(&database.url).await;
        let start = store.position().await.unwrap();
        let answer = async {
            let new = Change {
                kind: change_kind::SCOPE,
                id: "a".into(),
                tenant_id: None,
            };
            let tx = store.db.write().await?;
            change::publish(&tx, &[new], store.now()).await?;
            tx.commit().await.unwrap();
            store.position().await
        };
        let (position_in_fact, position) = read_at(&store, answer).await.unwrap();
        assert_eq!(position, start);
        assert_eq!(position_in_fact.seq, start.seq + 1);
    }
}
