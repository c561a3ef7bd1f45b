#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sea_orm::{IntoActiveModel, QueryOrder};
use sea_orm_migration::{SchemaManager, schema::*};
use tokio::task::JoinSet;

use super::*;
use crate::{
    random::SystemRandom,
    store::{
        Database,
        audit::{self, Event, Origin},
        create_table, fixture,
        rows::{self, Lookup, ProtectedRows, check_locked, insert},
    },
    testing::{
        edited_rows::{put_back, remove, replace, version_of},
        test_clock,
    },
};

mod holder {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "holders")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub hash: Vec<u8>,
        pub state: i64,
        pub mac: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;
        const RECORDED: super::Recorded<Model> = super::Recorded::Always;
    }
}

fn holder(number: u8) -> holder::Model {
    holder::Model {
        tenant_id: "acme".to_owned(),
        hash: vec![0xab, number],
        state: 0,
        mac: Vec::new(),
    }
}

fn by_number(number: u8) -> Lookup<holder::Entity> {
    let row = holder(number);
    holder::Entity::look_up_by_id((row.tenant_id, row.hash))
}

fn all() -> Lookup<holder::Entity> {
    holder::Entity::look_up().order_by_asc(holder::Column::Hash)
}

async fn change(tx: &Transaction) {
    let event = Event::test("holder.change");
    audit::record(tx, &*test_clock(), &SystemRandom, &Origin::system("test"), event).await;
}

async fn set_state(db: &Database, number: u8, state: i64) {
    let tx = db.write().await.unwrap();
    let mut row = by_number(number).lock_one(&tx).await.unwrap().unwrap();
    row.state = state;
    row.save(&tx).await.unwrap();
    change(&tx).await;
    tx.commit().await.unwrap();
}

/// Creates the table with the rows 0 and 1, and changes row 0 once. Returns how it was before, with its version.
async fn changed_once(db: &Database) -> (holder::Model, Model) {
    let columns = [text("tenant_id"), blob("hash"), big_integer("state"), blob("mac")];
    let connection = db.schema().await.unwrap();
    let manager = SchemaManager::new(&connection);
    create_table(&manager, "holders", &["tenant_id", "hash"], columns)
        .await
        .unwrap();
    let tx = db.write().await.unwrap();
    for number in 0..2 {
        insert::<holder::Entity>(&tx, holder(number)).await.unwrap();
    }
    change(&tx).await;
    tx.commit().await.unwrap();
    let old = by_number(0)
        .read_one(db.read())
        .await
        .unwrap()
        .unwrap()
        .into_row();
    let version = version_of::<holder::Entity>(db, &old).await;
    set_state(db, 0, 1).await;
    (old, version)
}

async fn stored(db: &Database, number: u8) -> holder::Model {
    let row = holder(number);
    let row = holder::Entity::find_by_id((row.tenant_id, row.hash));
    row.one(db.read()).await.unwrap().unwrap()
}

/// Reads row 0 in each way, and requires that none accepts it.
async fn assert_rejected(db: &Database, table: &str) {
    let is_rejected = |error: Option<StoreError>| match error {
        Some(StoreError::Altered(found)) => assert_eq!(found, table, "{db:?}"),
        other => panic!("{db:?}: {other:?}"),
    };
    is_rejected(by_number(0).read_one(db.read()).await.err());
    is_rejected(all().read_all(db.read()).await.err());
    let tx = db.write().await.unwrap();
    is_rejected(by_number(0).read_one(&tx).await.err());
    is_rejected(all().read_all(&tx).await.err());
    is_rejected(by_number(0).lock_one(&tx).await.err());
    is_rejected(all().lock_all(&tx).await.err());
    let left = all().lock_authentic(&tx).await.unwrap();
    assert_eq!(left.len(), 1, "{db:?}");
    assert_eq!(left[0].hash, holder(1).hash, "{db:?}");
    tx.rollback().await.unwrap();
    by_number(1).read_one(db.read()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_older_row_is_rejected_by_every_read() {
    for (_place, db) in fixture::migrated().await {
        let (old, _) = changed_once(&db).await;
        let new = stored(&db, 0).await;
        assert_ne!(old, new);
        replace::<holder::Entity>(&db, &new, &old).await;
        assert_rejected(&db, "holders").await;
        replace::<holder::Entity>(&db, &old, &new).await;
        assert_eq!(all().read_all(db.read()).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_row_whose_version_is_older_removed_or_edited_is_rejected() {
    for (_place, db) in fixture::migrated().await {
        let (_, older) = changed_once(&db).await;
        let new = stored(&db, 0).await;
        let newest = version_of::<holder::Entity>(&db, &new).await;
        assert!(older.event_number < newest.event_number);
        replace::<Entity>(&db, &newest, &older).await;
        assert_rejected(&db, "holders").await;
        remove::<Entity>(&db, &older).await;
        assert_rejected(&db, "holders").await;
        let mut edited = newest.clone();
        edited.event_number += 1;
        let insert = Entity::insert(edited.clone().into_active_model().reset_all());
        insert.exec_without_returning(db.read()).await.unwrap();
        assert_rejected(&db, "row_versions").await;
        replace::<Entity>(&db, &edited, &newest).await;
        assert_eq!(all().read_all(db.read()).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_row_with_its_version_is_read_as_its_holder_has_left_it() {
    for (_place, db) in fixture::migrated().await {
        let (old, version) = changed_once(&db).await;
        let new = stored(&db, 0).await;
        put_back::<holder::Entity>(&db, &new, (&old, &version)).await;
        // Only a verification of the record finds this.
        let read = by_number(0).read_one(db.read()).await.unwrap().unwrap();
        assert_eq!(*read, old, "{db:?}");
    }
}

#[tokio::test]
async fn a_transaction_reads_what_it_has_written() {
    for (_place, db) in fixture::migrated().await {
        changed_once(&db).await;
        let tx = db.write().await.unwrap();
        insert::<holder::Entity>(&tx, holder(2)).await.unwrap();
        let mut row = by_number(0).lock_one(&tx).await.unwrap().unwrap();
        row.state = 2;
        row.save(&tx).await.unwrap();
        let rows = all().read_all(&tx).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [2, 0, 0]);
        let mut row = by_number(0).lock_one(&tx).await.unwrap().unwrap();
        row.state = 3;
        row.save(&tx).await.unwrap();
        change(&tx).await;
        tx.commit().await.unwrap();
        let read = by_number(0).read_one(db.read()).await.unwrap().unwrap();
        assert_eq!(read.state, 3, "{db:?}");
        let version = version_of::<holder::Entity>(&db, &read).await;
        assert_eq!(version.row_name, "holders/acme/ab00", "{db:?}");
        assert_eq!(
            version.row_digest,
            row_digest::<holder::Entity>(&read, &columns::<holder::Entity>(&read).unwrap()).unwrap(),
            "{db:?}"
        );
    }
}

#[tokio::test]
async fn a_version_is_not_written_by_a_transaction_that_rolls_back() {
    for (_place, db) in fixture::migrated().await {
        changed_once(&db).await;
        let tx = db.write().await.unwrap();
        let mut row = by_number(0).lock_one(&tx).await.unwrap().unwrap();
        row.state = 7;
        row.save(&tx).await.unwrap();
        change(&tx).await;
        tx.rollback().await.unwrap();
        let read = by_number(0).read_one(db.read()).await.unwrap().unwrap();
        assert_eq!(read.state, 1, "{db:?}");
        let tx = db.write().await.unwrap();
        insert::<holder::Entity>(&tx, holder(3)).await.unwrap();
        // Without an event.
        assert!(matches!(tx.commit().await, Err(StoreError::Corrupt(_))), "{db:?}");
        assert!(
            by_number(3).read_one(db.read()).await.unwrap().is_none(),
            "{db:?}"
        );
    }
}

#[tokio::test]
async fn what_was_removed_is_told_apart_from_what_never_was() {
    for (_place, db) in fixture::migrated().await {
        changed_once(&db).await;
        let tx = db.write().await.unwrap();
        assert!(!is_known::<holder::Entity>(&tx, &["acme", "ab07"]).await.unwrap());
        assert!(is_known::<holder::Entity>(&tx, &["acme", "ab00"]).await.unwrap());
        let locked = rows::lock_to_end::<Entity>(&tx, &["holders/acme/ab00"]).await;
        assert!(locked.unwrap().is_some(), "{db:?}");
        let locked = rows::lock_to_end::<Entity>(&tx, &["holders/acme/ab07"]).await;
        assert!(locked.unwrap().is_none(), "{db:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_changes_beside_reads_give_no_false_alarm() {
    const WRITERS: i64 = 4;
    const CHANGES: i64 = 250;

    for (_place, db) in fixture::migrated().await {
        changed_once(&db).await;
        let mut tasks = JoinSet::new();
        let done = Arc::new(AtomicUsize::new(0));
        for writer in 0..WRITERS {
            let (db, done) = (db.clone(), done.clone());
            tasks.spawn(async move {
                for round in 0..CHANGES {
                    // Two writers for each row. Every second change leaves the row as it was before.
                    set_state(&db, (writer % 2) as u8, round % 2 + writer).await;
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        for _ in 0..2 {
            let (db, done) = (db.clone(), done.clone());
            tasks.spawn(async move {
                let mut reads = 0;
                while done.load(Ordering::Relaxed) < WRITERS as usize {
                    by_number(0).read_one(db.read()).await.unwrap().unwrap();
                    assert_eq!(all().read_all(db.read()).await.unwrap().len(), 2);
                    reads += 1;
                }
                assert!(reads > 10, "{reads}");
            });
        }
        tasks.join_all().await;
        let tx = db.write().await.unwrap();
        let rows = holder::Entity::find().all(&tx).await.unwrap();
        assert_eq!(
            check_locked::<holder::Entity>(&tx, rows, |_| true)
                .await
                .unwrap()
                .len(),
            2
        );
    }
}
