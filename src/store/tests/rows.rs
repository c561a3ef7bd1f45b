#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sea_orm::entity::prelude::*;
use sea_orm_migration::{SchemaManager, schema::*};

use super::*;
use crate::{
    keys::DataKey,
    random::SystemRandom,
    store::{
        Database,
        audit::{self, Event, Origin},
        create_table, fixture,
    },
    testing::test_clock,
    text::id::TenantId,
};

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "keepers")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub hash: Option<Vec<u8>>,
        pub content: Json,
        pub is_open: bool,
        pub version: Option<i32>,
        pub used_at: Option<i64>,
        pub mac: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;
        const UNPROTECTED: &'static [Column] = &[Column::UsedAt];
        const RECORDED: super::Recorded<Model> = super::Recorded::Never;
        const NOUNS: &'static [&'static str] = &["keeper"];
    }
}

use row::{Column, Entity, Model};

fn keeper(tenant_id: &str, name: &str) -> Model {
    Model {
        tenant_id: tenant_id.to_owned(),
        name: name.to_owned(),
        hash: Some(vec![1, 2]),
        content: serde_json::json!({"b": [1, {"z": null, "y": "ü"}], "a": 2}),
        is_open: true,
        version: None,
        used_at: None,
        mac: Vec::new(),
    }
}

async fn table(db: &Database) {
    let columns = [
        text("tenant_id"),
        text("name"),
        blob_null("hash"),
        json("content"),
        boolean("is_open"),
        integer_null("version"),
        big_integer_null("used_at"),
        blob("mac"),
    ];
    let connection = db.schema().await.unwrap();
    let manager = SchemaManager::new(&connection);
    create_table(&manager, "keepers", &["tenant_id", "name"], columns)
        .await
        .unwrap();
}

async fn edit(db: &Database, statement: &str) {
    db.read().execute_unprepared(statement).await.unwrap();
}

/// An id may be what another action has acted on, such as the purpose of a data key.
#[tokio::test]
async fn only_an_action_on_a_resource_says_that_its_row_was_removed() {
    for (place, db) in fixture::migrated().await {
        table(&db).await;
        for (action, is_known) in [
            ("key.rotate", false),
            ("keepers.list", false),
            ("keeper.add", true),
        ] {
            let tx = db.write().await.unwrap();
            let acme = TenantId::parse("acme").unwrap();
            let event = Event::test(action).tenant(&acme).subject("one");
            let origin = Origin::system("test");
            audit::record(&tx, &*test_clock(), &SystemRandom, &origin, event).await;
            tx.commit().await.unwrap();
            let tx = db.write().await.unwrap();
            let locked = lock_to_end::<Entity>(&tx, &["acme", "one"]).await;
            match is_known {
                true => assert!(matches!(locked, Err(StoreError::Altered("keepers"))), "{place:?}"),
                false => assert!(locked.unwrap().is_none(), "{place:?} {action}"),
            }
        }
    }
}

fn by_name(name: &str) -> Lookup<Entity> {
    Entity::look_up().equal(Column::Name, name)
}

#[tokio::test]
async fn a_row_is_read_changed_and_read_again() {
    for (place, db) in fixture::migrated().await {
        table(&db).await;
        let tx = db.write().await.unwrap();
        insert::<Entity>(&tx, keeper("acme", "one")).await.unwrap();
        tx.commit().await.unwrap();
        let read = by_name("one").read_one(db.read()).await.unwrap().unwrap();
        assert_eq!(read.content, keeper("acme", "one").content, "{place:?}");
        let tx = db.write().await.unwrap();
        let mut row = by_name("one").lock_one(&tx).await.unwrap().unwrap();
        row.is_open = false;
        row.save(&tx).await.unwrap();
        row.hash = None;
        row.version = Some(-3);
        row.save(&tx).await.unwrap();
        let saved = row.stored();
        tx.commit().await.unwrap();
        let rows = Entity::look_up().read_all(db.read()).await.unwrap();
        assert_eq!(rows.len(), 1, "{place:?}");
        assert_eq!(*rows[0], *saved, "{place:?}");
        assert_eq!((saved.is_open, saved.version), (false, Some(-3)), "{place:?}");
        assert_ne!(saved.mac, read.mac, "{place:?}");
    }
}

#[tokio::test]
async fn no_column_can_be_edited_but_those_of_use() {
    for (place, db) in fixture::migrated().await {
        table(&db).await;
        let tx = db.write().await.unwrap();
        for (tenant_id, name) in [("acme", "one"), ("acme", "two"), ("other", "one")] {
            insert::<Entity>(&tx, keeper(tenant_id, name)).await.unwrap();
        }
        tx.commit().await.unwrap();
        edit(&db, "UPDATE keepers SET used_at = 7").await;
        let untouched = Entity::look_up().read_all(db.read()).await.unwrap();
        assert_eq!(untouched.len(), 3, "{place:?}");
        let is_open = match db.backend() {
            sea_orm::DatabaseBackend::Sqlite => "0",
            _ => "false",
        };
        let of_two = "(SELECT mac FROM keepers WHERE name = 'two')";
        let of_other = "(SELECT mac FROM keepers WHERE tenant_id = 'other')";
        for (column, value) in [
            ("tenant_id", "'else'"),
            ("name", "'three'"),
            ("hash", "NULL"),
            ("content", "'{\"a\":3}'"),
            ("is_open", is_open),
            ("version", "0"),
            // MACs of other rows, and none.
            ("mac", of_two),
            ("mac", of_other),
            ("mac", "''"),
        ] {
            let edit_one =
                format!("UPDATE keepers SET {column} = {value} WHERE tenant_id = 'acme' AND name = 'one'");
            edit(&db, &edit_one).await;
            let read = Entity::look_up().read_all(db.read()).await;
            assert!(
                matches!(read, Err(StoreError::Altered("keepers"))),
                "{place:?}: {column} = {value}"
            );
            let tx = db.write().await.unwrap();
            let locked = Entity::look_up().lock_all(&tx).await;
            assert!(
                matches!(locked, Err(StoreError::Altered("keepers"))),
                "{place:?}: {column}"
            );
            tx.rollback().await.unwrap();
            edit(
                &db,
                "DELETE FROM keepers WHERE tenant_id <> 'other' AND name <> 'two'",
            )
            .await;
            let original = untouched
                .iter()
                .find(|row| row.tenant_id == "acme" && row.name == "one");
            let original = original.unwrap().clone().into_row();
            let original = original.into_active_model().reset_all();
            Entity::insert(original)
                .exec_without_returning(db.read())
                .await
                .unwrap();
            Entity::look_up().read_all(db.read()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_mac_of_another_form_or_key_is_rejected() {
    let key = |version, byte| DataKey::new(version, &[byte; 32]).unwrap();
    let (place, db) = fixture::migrated().await.remove(0);
    let mut row = keeper("acme", "one");
    protect::<Entity>(&current(db.read()).unwrap(), &mut row).unwrap();
    authentic::<Entity>(db.read(), row.clone(), None).unwrap();
    for change in [0, 1, 4, 5, 36] {
        let mut row = row.clone();
        row.mac[change] ^= 1;
        assert!(
            authentic::<Entity>(db.read(), row, None).is_err(),
            "{place:?}: byte {change}"
        );
    }
    for length in 0..row.mac.len() {
        let mut row = row.clone();
        row.mac.truncate(length);
        assert!(
            authentic::<Entity>(db.read(), row, None).is_err(),
            "{place:?}: {length} bytes"
        );
    }
    // The key of another database, in the same version.
    protect::<Entity>(&key(1, 99), &mut row).unwrap();
    assert!(
        authentic::<Entity>(db.read(), row.clone(), None).is_err(),
        "{place:?}"
    );
    // A version that this database does not have.
    protect::<Entity>(&key(2, 8), &mut row).unwrap();
    assert!(authentic::<Entity>(db.read(), row, None).is_err(), "{place:?}");
}

#[tokio::test]
async fn a_row_that_another_transaction_has_changed_is_not_saved() {
    for (place, db) in fixture::migrated().await {
        table(&db).await;
        let tx = db.write().await.unwrap();
        insert::<Entity>(&tx, keeper("acme", "one")).await.unwrap();
        // As if it had been read without a lock.
        let row = Entity::find().filter(Column::Name.eq("one"));
        let row = row.one(&tx).await.unwrap().unwrap();
        let mut stale = locked(authentic::<Entity>(&tx, row, None).unwrap());
        let mut row = by_name("one").lock_one(&tx).await.unwrap().unwrap();
        row.version = Some(1);
        row.save(&tx).await.unwrap();
        stale.version = Some(2);
        assert!(
            matches!(stale.save(&tx).await, Err(StoreError::Busy)),
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn a_row_that_was_not_asked_for_is_rejected_although_it_is_authentic() {
    for (place, db) in fixture::migrated().await {
        table(&db).await;
        let tx = db.write().await.unwrap();
        for name in ["one", "two"] {
            insert::<Entity>(&tx, keeper("acme", name)).await.unwrap();
        }
        tx.commit().await.unwrap();
        // The database takes the condition for one that every row fulfils.
        let named = || Entity::look_up().filter(Column::TenantId.eq("acme"), |row| row.name == "one");
        let is_rejected = |error: Option<StoreError>| {
            assert!(
                matches!(error, Some(StoreError::Altered("keepers"))),
                "{place:?}: {error:?}"
            );
        };
        is_rejected(named().read_all(db.read()).await.err());
        is_rejected(
            named()
                .order_by_desc(Column::Name)
                .read_one(db.read())
                .await
                .err(),
        );
        let tx = db.write().await.unwrap();
        is_rejected(named().lock_all(&tx).await.err());
        is_rejected(named().order_by_desc(Column::Name).lock_one(&tx).await.err());
        let left = named().lock_authentic(&tx).await.unwrap();
        assert_eq!(left.len(), 1, "{place:?}");
        assert_eq!(left[0].name, "one", "{place:?}");
        let found = Entity::find().all(&tx).await.unwrap();
        is_rejected(
            check_locked::<Entity>(&tx, found, |row| row.name == "one")
                .await
                .err(),
        );
        tx.rollback().await.unwrap();
        let all = || Entity::look_up().equal(Column::TenantId, "acme");
        let version = keeper("acme", "one").version;
        let count = async |lookup: Lookup<Entity>| lookup.read_all(db.read()).await.unwrap().len();
        assert_eq!(
            count(all().one_of(Column::Name, ["one", "two", "three"])).await,
            2
        );
        assert_eq!(count(all().equal(Column::Name, "one")).await, 1);
        assert_eq!(
            count(all().null(Column::Version)).await,
            2 * usize::from(version.is_none())
        );
        assert_eq!(
            count(all().not_null(Column::Version)).await,
            2 * usize::from(version.is_some())
        );
    }
}
