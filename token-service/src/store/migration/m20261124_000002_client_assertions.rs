//! Assertions that were used (RFC 7523 §3, `jti`).

use sea_orm_migration::{prelude::*, schema::*};

/// Creates `client_assertions`.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("client_assertions")
                    .col(text("client_id"))
                    .col(blob("jti_hash"))
                    .col(big_integer("expires_at"))
                    .primary_key(Index::create().col("client_id").col("jti_hash"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_index(
                Index::create()
                    .name("client_assertions_by_expiry")
                    .table("client_assertions")
                    .col("expires_at")
                    .to_owned(),
            )
            .await
    }
}
