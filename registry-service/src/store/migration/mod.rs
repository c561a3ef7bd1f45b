//! registry-service's migrations, in order. The same ones run on SQLite and on PostgreSQL.

use sea_orm_migration::prelude::*;

mod m20261123_000001_first_tables;
mod m20261124_000002_client_keys;

/// Runs the migrations, recorded in a table of registry-service's own.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_first_tables::Migration),
            Box::new(m20261124_000002_client_keys::Migration),
        ]
    }

    fn migration_table_name() -> DynIden {
        "registry_service_migrations".into_iden()
    }
}
