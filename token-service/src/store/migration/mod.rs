//! token-service's migrations, in order. The same ones run on SQLite and on PostgreSQL.

use sea_orm_migration::prelude::*;

mod m20261123_000001_first_tables;
mod m20261124_000002_client_assertions;
mod m20261125_000003_issues_by_time;

/// Runs the migrations, recorded in a table of token-service's own.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_first_tables::Migration),
            Box::new(m20261124_000002_client_assertions::Migration),
            Box::new(m20261125_000003_issues_by_time::Migration),
        ]
    }

    fn migration_table_name() -> DynIden {
        "token_service_migrations".into_iden()
    }
}
