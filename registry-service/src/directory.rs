//! What token-service reads: facts, and the position of the change feed that they were read at.

use accord::{position::Position, store::change::ChangeRow, text::page::MAX_SIZE};
use zeroize::Zeroizing;

use crate::{error::Error, store::Store};

/// Reads the position before the fact, so that the fact reflects all changes up to the position.
///
/// # Errors
/// Those of `fact`.
pub async fn read_at<T>(
    store: &Store,
    fact: impl Future<Output = Result<T, Error>>,
) -> Result<(T, Position), Error> {
    let position = store.position().await?;
    Ok((fact.await?, position))
}

/// Changes after a position.
#[derive(Clone)]
pub struct Changes {
    /// In commit order.
    pub changes: Vec<ChangeRow>,
    /// Up to where this is complete.
    pub position: Position,
    /// Whether the reader's position is of another epoch, or ahead of this database.
    pub reset: bool,
    /// Whether more changes follow `position`.
    pub more: bool,
    /// The keys that Client Secrets may be tagged with, by version.
    pub secret_tag_keys: Vec<(i32, Zeroizing<[u8; 32]>)>,
    /// Where the last hour begins; only when there was no usable `after`.
    pub recent_seq: Option<i64>,
}

/// Lists the changes after `after`, at most `limit`; 0 and more than 500 mean 500. Without `after`, only the position
/// of the feed and the beginning of its last hour.
pub async fn changes(store: &Store, after: Option<Position>, limit: u64) -> Result<Changes, Error> {
    let limit = if limit == 0 { MAX_SIZE } else { limit.min(MAX_SIZE) };
    let told = store.changes_after(after.as_ref(), limit).await?;
    let recent_seq = if after.is_none() || told.reset {
        Some(store.recent_seq().await?.min(told.position.seq))
    } else {
        None
    };
    Ok(Changes {
        changes: told.changes,
        position: told.position,
        reset: told.reset,
        more: told.more,
        recent_seq,
        secret_tag_keys: store.secret_tag_keys(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use accord::{
        store::change::{self, Change},
        testing::databases,
    };

    use super::*;
    use crate::{model::change_kind, store::testing::store};

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
                let told = changes(&store, Some(start.clone()), limit).await.unwrap();
                assert_eq!(told.changes.len(), 500, "{database:?} {limit}");
                assert!(told.more && !told.reset, "{database:?} {limit}");
                assert_eq!(told.position.seq, start.seq + 500, "{database:?} {limit}");
            }
        }
    }

    #[tokio::test]
    async fn a_new_epoch_is_a_reset_and_its_numbers_go_on() {
        for database in databases() {
            let (store, _) = store(&database.url).await;
            let old = store.position().await.unwrap();
            let tx = store.db.write().await.unwrap();
            change::start_epoch(&tx, &*store.random).await.unwrap();
            tx.commit().await.unwrap();
            let told = changes(&store, Some(old.clone()), 0).await.unwrap();
            assert!(
                told.reset && told.changes.is_empty() && !told.more,
                "{database:?}"
            );
            assert_ne!(told.position.epoch, old.epoch, "{database:?}");
            assert_eq!(told.position.seq, old.seq, "{database:?}");
        }
    }

    #[tokio::test]
    async fn who_has_no_usable_position_is_told_where_the_last_hour_begins() {
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
            // A change of exactly an hour ago is told, one of a moment before is not.
            for recent_seq in [start.seq, start.seq + 1] {
                for unusable in [None, Some(foreign.clone()), Some(ahead.clone())] {
                    let told = changes(&store, unusable.clone(), 0).await.unwrap();
                    assert_eq!(told.recent_seq, Some(recent_seq), "{database:?} {unusable:?}");
                    assert_eq!(told.reset, unusable.is_some(), "{database:?}");
                }
                let told = changes(&store, Some(start.clone()), 0).await.unwrap();
                assert_eq!(told.recent_seq, None, "{database:?}");
                clock.advance(Duration::from_millis(1));
            }
            clock.advance(Duration::from_secs(3600));
            let told = changes(&store, None, 0).await.unwrap();
            assert_eq!(told.recent_seq, Some(told.position.seq), "{database:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_claims_no_change_that_came_while_it_was_read() {
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
