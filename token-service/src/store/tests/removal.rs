//! The removal of expired rows, on both databases.

#![allow(clippy::unwrap_used)]

use accord::{
    store::audit::{Verified, check_rows},
    testing::databases,
};
use sea_orm::{ActiveValue::Set, PaginatorTrait};

use super::*;
use crate::store::{fixture::store, recorded_tables};

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

#[tokio::test]
async fn a_revocation_that_is_removed_or_edited_is_named_for_as_long_as_it_has_to_be_there() {
    for database in databases() {
        let (store, clock) = store(&database.url).await;
        let named = async || {
            let (tables, nothing) = (recorded_tables(), Verified::default());
            let found = check_rows(store.db.read(), &tables, &nothing, store.now()).await;
            let faults = found.unwrap().faults.into_iter().map(|fault| fault.what);
            faults.collect::<Vec<_>>()
        };
        let (by, tenant_id) = (Origin::system("test"), TenantId::parse("acme").unwrap());
        let ends = store.now().plus(Duration::from_millis(1));
        for jti in ["one", "two"] {
            let event = Event::test("token.revoke");
            let revoked = store.revoke_access_token(&by, &tenant_id, jti, ends, event);
            revoked.await.unwrap();
        }
        assert!(named().await.is_empty(), "{database:?}");
        // It stays for an hour behind the end of its token, and is named until ten minutes before.
        clock.advance(KEPT);
        store
            .delete_ended_rows(store.now().minus(Duration::from_secs(3600)), store.now())
            .await
            .unwrap();
        assert!(named().await.is_empty(), "{database:?}");
        database.edit("DELETE FROM revocations WHERE id = 'one'").await;
        database
            .edit("UPDATE revocations SET id = 'three' WHERE id = 'two'")
            .await;
        let why = "is gone or was changed by somebody without the keys";
        let expected = [
            format!("the row revocations/1, which ends jti:one, {why}"),
            format!("the row revocations/2, which ends jti:two, {why}"),
        ];
        assert_eq!(named().await, expected, "{database:?}");
        clock.advance(Duration::from_millis(1));
        assert!(named().await.is_empty(), "{database:?}");
    }
}
