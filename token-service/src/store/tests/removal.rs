//! The removal of expired rows, on both databases.

#![allow(clippy::unwrap_used)]

use accord::testing::databases;
use sea_orm::{ActiveValue::Set, PaginatorTrait};

use super::*;
use crate::store::fixture::store;

#[tokio::test]
async fn all_expired_rows_go_also_if_they_are_more_than_one_transaction_deletes() {
    for database in databases() {
        let (store, _) = store(&database.url).await;
        let now = store.now();
        let assertions = |range: std::ops::RangeInclusive<u64>, expires_at: UnixMillis| {
            range.map(move |number| client_assertion::ActiveModel {
                client_id: Set("cli".into()),
                jti_hash: Set(number.to_be_bytes().to_vec()),
                expires_at: Set(expires_at.as_millis()),
            })
        };
        let expired = assertions(1..=2 * accord::store::removal::DELETED_AT_ONCE + 1, now);
        let live = assertions(9_001..=9_003, now.plus(std::time::Duration::from_millis(1)));
        let tx = store.db.write().await.unwrap();
        for rows in [expired.collect::<Vec<_>>(), live.collect()] {
            client_assertion::Entity::insert_many(rows)
                .exec(&tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();

        store.delete_ended_rows(now, now).await.unwrap();
        let left = client_assertion::Entity::find()
            .count(store.db.read())
            .await
            .unwrap();
        assert_eq!(left, 3, "{database:?}");
    }
}
