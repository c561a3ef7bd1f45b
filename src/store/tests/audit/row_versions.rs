#![allow(clippy::unwrap_used)]

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    random::SystemRandom,
    store::{
        Transaction,
        audit::{self, Event, Origin},
        fixture::migrated,
    },
    testing::test_clock,
};

const ROWS: u8 = 12;
const FIRST: Digest = [1; 16];
const SECOND: Digest = [2; 16];

fn version(row: u8, digest: Digest, before: Option<Digest>) -> RowVersion {
    RowVersion {
        row: format!("holders/{row}"),
        digest,
        before,
    }
}

/// Records an event that names all rows.
async fn change(tx: Transaction, digest: Digest, before: Option<Digest>) {
    for row in 0..ROWS {
        tx.wrote(version(row, digest, before));
    }
    let (clock, origin) = (test_clock(), Origin::system("test"));
    audit::record(&tx, &*clock, &SystemRandom, &origin, Event::test("holder.change")).await;
    tx.commit().await.unwrap();
}

/// Reads rows that are changed in the moment in which they are read first.
fn changed_when_read<'a>(
    conn: &'a Pool,
    each: &'a mut (dyn FnMut(StoredRow) + Send),
) -> BoxFuture<'a, Result<(), StoreError>> {
    Box::pin(async move {
        if row::Entity::find().all(conn).await?.len() == 1 {
            change(conn.begin().await?, SECOND, Some(FIRST)).await;
        }
        for row in 0..ROWS {
            each(StoredRow {
                version: version(row, SECOND, None),
                newest: Some((2, SECOND.to_vec())),
                is_altered: false,
                renewal: None,
            });
        }
        Ok(())
    })
}

#[tokio::test]
async fn a_row_that_changes_while_parts_of_the_names_are_compared_is_no_fault() {
    let table = RowTable {
        name: "holders",
        is_complete: true,
        is_renewed: false,
        rows: changed_when_read,
        compare: None,
    };
    for (place, db) in migrated().await {
        change(db.write().await.unwrap(), FIRST, None).await;
        let untrusted = Untrusted::default();
        let found = differences_in_parts(db.read(), &[table], &untrusted, 5)
            .await
            .unwrap();
        assert!(found.rows.is_empty(), "{place:?}: {:?}", found.rows);
        // All that changes from now on has a later event.
        assert!(found.last <= 2, "{place:?}: {}", found.last);
    }
}

#[tokio::test]
async fn events_that_retention_deletes_meanwhile_are_no_gap() {
    for (place, db) in migrated().await {
        for _ in 0..6 {
            change(db.write().await.unwrap(), FIRST, Some(FIRST)).await;
        }
        let delete = async |numbers: [i64; 2]| {
            let is_one = row::Column::Number.is_in(numbers);
            row::Entity::delete_many()
                .filter(is_one)
                .exec(db.writer())
                .await
                .unwrap();
        };
        let untrusted = Untrusted::default();
        let mut versions = Versions::new(&[], &untrusted, (0, 1), MOST_NAMES);
        // Somebody has removed those between: what was read before is there.
        delete([3, 4]).await;
        assert_eq!(versions.read(db.read(), 2).await.unwrap(), Some(6), "{place:?}");
        delete([1, 2]).await;
        assert_eq!(versions.read(db.read(), 2).await.unwrap(), None, "{place:?}");
        assert_eq!(
            versions.read(db.read(), i64::MIN).await.unwrap(),
            Some(6),
            "{place:?}"
        );
    }
}
