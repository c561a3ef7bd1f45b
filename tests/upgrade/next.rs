//! The schema of a next version: this build's migrations and made-up ones, which add to a table that both services have, and that
//! is written all the time. No binary knows them: they are applied by what applies all migrations.

use std::marker::PhantomData;

use accord::{
    store::{Database, create_index_beside_writers},
    testing::TestDatabase,
};
use sea_orm::{ConnectionTrait, Statement};
use sea_orm_migration::{async_trait::async_trait, prelude::*, schema::integer};

const TABLE: &str = "changes";
const COLUMNS: [&str; 2] = ["weight", "height"];

/// The migrations of `M`, and `MORE` that come after them.
struct Next<M, const MORE: u8>(PhantomData<fn() -> M>);

impl<M: MigratorTrait, const MORE: u8> MigratorTrait for Next<M, MORE> {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let more = (0..MORE).map(|number| Box::new(Expand(number)) as Box<dyn MigrationTrait>);
        M::migrations().into_iter().chain(more).collect()
    }

    fn migration_table_name() -> DynIden {
        M::migration_table_name()
    }
}

/// Adds a column with a default, and an index of it while others write.
struct Expand(u8);

impl MigrationName for Expand {
    fn name(&self) -> &str {
        ["m99991231_000001_expand", "m99991231_000002_expand"][usize::from(self.0)]
    }
}

#[async_trait]
impl MigrationTrait for Expand {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let name = COLUMNS[usize::from(self.0)];
        let column = integer(name).default(1).to_owned();
        let table = Table::alter().table(TABLE).add_column(column).to_owned();
        manager.alter_table(table).await?;
        create_index_beside_writers(manager, &format!("changes_by_{name}"), TABLE, &[name]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }
}

/// Brings both databases to a schema that is so many versions newer than this build's.
pub async fn migrate<const MORE: u8>(databases: &[TestDatabase; 2]) {
    let [registry, token] = databases;
    let db = Database::connect(&registry.url).await.unwrap();
    type RegistryMigrator = registry_service::store::migration::Migrator;
    db.migrate::<Next<RegistryMigrator, MORE>>().await.unwrap();
    is_there(&db, MORE).await;
    let db = Database::connect(&token.url).await.unwrap();
    type TokenMigrator = token_service::store::migration::Migrator;
    db.migrate::<Next<TokenMigrator, MORE>>().await.unwrap();
    is_there(&db, MORE).await;
}

/// Asserts that all rows have the column's default, and that the index is whole.
async fn is_there(db: &Database, more: u8) {
    let column = COLUMNS[usize::from(more - 1)];
    let query = format!(
        "SELECT 1 FROM pg_index WHERE indexrelid = 'changes_by_{column}'::regclass AND indisvalid
            AND EXISTS (SELECT 1 FROM {TABLE}) AND NOT EXISTS (SELECT 1 FROM {TABLE} WHERE {column} <> 1)"
    );
    let query = Statement::from_string(db.backend(), query);
    assert!(db.read().query_one_raw(query).await.unwrap().is_some());
}
