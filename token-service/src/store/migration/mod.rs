//! token-service's one migration, which runs on SQLite and on PostgreSQL.

use sea_orm_migration::prelude::*;

mod m20261128_000007_tables;

/// Runs the migrations, recorded in a table of token-service's own.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261128_000007_tables::Migration)]
    }

    fn migration_table_name() -> DynIden {
        "token_service_migrations".into_iden()
    }
}
