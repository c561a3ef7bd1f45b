//! Migrations that race, that belong to other builds, and that run beside writers.

#![allow(clippy::unwrap_used)]
use std::time::Duration;

use sea_orm_migration::{MigrationName, MigrationTrait};
use tokio::time::{sleep, timeout};

use super::*;
use crate::testing::{databases, execute_on};

struct Empty(&'static str);

impl MigrationName for Empty {
    fn name(&self) -> &str {
        self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Empty {
    async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
        Ok(())
    }
}

/// The migrations of one build: `FIRST`, and `ADDED` from `m3` on.
struct Build<const FIRST: u8, const ADDED: usize>;

impl<const FIRST: u8, const ADDED: usize> MigratorTrait for Build<FIRST, ADDED> {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let first = if FIRST == 1 { "m1" } else { "m2" };
        let mut all: Vec<Box<dyn MigrationTrait>> = vec![Box::new(Empty(first))];
        for name in ["m3", "m4"].into_iter().take(ADDED) {
            all.push(Box::new(Empty(name)));
        }
        all
    }
}

#[tokio::test]
async fn the_database_of_another_service_is_rejected() {
    for place in databases() {
        let db = place.connect().await;
        let create = format!("CREATE TABLE {COUNTER_TABLE} (id integer)");
        db.read().execute_unprepared(&create).await.unwrap();
        let migrated = db.is_migrated::<Build<1, 0>>().await;
        assert!(matches!(migrated, Err(StoreError::OtherService)));
        let rejected = db.migrate::<Build<1, 0>>().await.unwrap_err();
        assert!(matches!(rejected, StoreError::OtherService), "{rejected}");
    }
}

#[tokio::test]
async fn the_database_of_an_older_build_is_rejected_and_that_of_a_newer_one_is_not() {
    for place in databases() {
        let db = place.connect().await;
        db.migrate::<Build<1, 0>>().await.unwrap();
        let rejected = db.migrate::<Build<2, 0>>().await.unwrap_err();
        assert!(matches!(rejected, StoreError::OlderBuild), "{rejected}");
        assert!(rejected.to_string().contains("delete it"), "{rejected}");
        assert!(!db.is_migrated::<Build<1, 1>>().await.unwrap());

        db.migrate::<Build<1, 1>>().await.unwrap();
        db.migrate::<Build<1, 0>>().await.unwrap();
        assert!(
            db.is_migrated::<Build<1, 1>>().await.unwrap(),
            "nothing was taken back"
        );
    }
}

#[tokio::test]
async fn a_schema_two_versions_newer_is_rejected_and_one_version_newer_is_not() {
    for place in databases() {
        let db = place.connect().await;
        db.migrate::<Build<1, 2>>().await.unwrap();
        assert!(db.is_migrated::<Build<1, 1>>().await.unwrap());
        db.migrate::<Build<1, 1>>().await.unwrap();
        for rejected in [
            db.is_migrated::<Build<1, 0>>().await.map(drop),
            db.migrate::<Build<1, 0>>().await,
        ] {
            assert!(matches!(rejected, Err(StoreError::NewerSchema)), "{rejected:?}");
        }
    }
}

/// Adds an index to the table `people`, which may be large.
struct AddIndex;

impl MigrationName for AddIndex {
    fn name(&self) -> &str {
        "m2"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for AddIndex {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_index_beside_writers(manager, "people_by_name", "people", &["name"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }
}

/// Adds a column to `people`.
struct AddColumn;

impl MigrationName for AddColumn {
    fn name(&self) -> &str {
        "m3"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for AddColumn {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = integer("age").default(0).to_owned();
        let table = Table::alter().table("people").add_column(column).to_owned();
        manager.alter_table(table).await
    }
}

/// The first `N` of a table's migrations.
struct People<const N: usize>;

impl<const N: usize> MigratorTrait for People<N> {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let all: [Box<dyn MigrationTrait>; 3] =
            [Box::new(Empty("m1")), Box::new(AddIndex), Box::new(AddColumn)];
        all.into_iter().take(N).collect()
    }
}

async fn with_people(db: &Database) {
    db.migrate::<People<1>>().await.unwrap();
    let create = "CREATE TABLE people (name text NOT NULL)";
    db.read().execute_unprepared(create).await.unwrap();
}

const INSERT: &str = "INSERT INTO people (name) VALUES ('ada')";

#[tokio::test]
async fn an_index_is_built_while_others_write() {
    for place in databases() {
        let db = place.connect().await;
        with_people(&db).await;
        if db.backend() == DatabaseBackend::Postgres {
            // The build waits for a writer that came before it, and lets those pass that come after it.
            let earlier = db.write().await.unwrap();
            earlier.execute_unprepared(INSERT).await.unwrap();
            let migrating = tokio::spawn({
                let db = db.clone();
                async move { db.migrate::<People<2>>().await }
            });
            let waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()
                AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'";
            let is_waiting = async {
                let waits = || sea_orm::Statement::from_string(db.backend(), waits);
                while db.read().query_one_raw(waits()).await.unwrap().is_none() {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(Duration::from_secs(30), is_waiting).await.unwrap();
            let later = db.write().await.unwrap();
            later.execute_unprepared(INSERT).await.unwrap();
            later.commit().await.unwrap();
            earlier.commit().await.unwrap();
            migrating.await.unwrap().unwrap();
        } else {
            db.migrate::<People<2>>().await.unwrap();
        }
        assert!(db.is_migrated::<People<2>>().await.unwrap());
    }
}

/// A migration that takes longer than a transaction may be idle.
struct Slow;

impl MigrationName for Slow {
    fn name(&self) -> &str {
        "m1"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Slow {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let work = "SELECT pg_sleep(1.5)";
        manager.get_connection().execute_unprepared(work).await.map(drop)
    }
}

impl MigratorTrait for Slow {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Self)]
    }
}

/// Behind a pooler a session may have the settings of another client, whose transactions are short.
#[tokio::test]
async fn a_migration_does_not_depend_on_the_settings_of_its_session() {
    for place in databases() {
        let db = place.connect().await;
        if db.backend() != DatabaseBackend::Postgres {
            continue;
        }
        let short =
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = 1000',
            current_database()); END $$";
        execute_on(&place.url, short);
        db.migrate::<Slow>().await.unwrap();
        assert!(db.is_migrated::<Slow>().await.unwrap());
    }
}

#[tokio::test]
async fn an_index_that_was_left_invalid_is_built_again() {
    for place in databases() {
        let db = place.connect().await;
        with_people(&db).await;
        let left = "CREATE INDEX people_by_name ON people (name)";
        db.read().execute_unprepared(left).await.unwrap();
        db.migrate::<People<3>>().await.unwrap();
        assert!(db.is_migrated::<People<3>>().await.unwrap());
    }
}

#[tokio::test]
async fn a_migration_gives_up_when_a_lock_is_not_free_in_time() {
    for place in databases() {
        let db = place.connect().await;
        if db.backend() != DatabaseBackend::Postgres {
            continue;
        }
        with_people(&db).await;
        db.migrate::<People<2>>().await.unwrap();
        let reader = db.write().await.unwrap();
        // A session of somebody else, which PostgreSQL does not end after two seconds.
        reader
            .execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0; SELECT * FROM people")
            .await
            .unwrap();
        let rejected = db.migrate::<People<3>>().await.unwrap_err();
        assert!(matches!(rejected, StoreError::Busy), "{rejected}");
        reader.commit().await.unwrap();
        db.migrate::<People<3>>().await.unwrap();
    }
}
