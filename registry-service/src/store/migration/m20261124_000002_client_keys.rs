//! Public keys of clients, for private-key assertions. Clients of before have none.

use sea_orm_migration::{prelude::*, schema::*};

/// Adds the column to `clients`.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(
                Table::alter()
                    .table("clients")
                    .add_column(text("json_web_key_set").default(""))
                    .to_owned(),
            )
            .await
    }
}
