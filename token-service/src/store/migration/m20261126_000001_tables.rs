//! The tables of token-service. Until 0.2.0 this migration is edited in place and renamed.

use sea_orm_migration::{prelude::*, schema::*};

/// Creates every table of the first release.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        accord::store::create_tables(manager).await?;
        setup(manager).await?;
        admin_session(manager).await?;
        grant(manager).await?;
        code(manager).await?;
        family(manager).await?;
        revocation(manager).await?;
        signing_key(manager).await?;
        client_assertion(manager).await?;
        Ok(())
    }
}

async fn setup(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("setups")
                .col(text("setup_id"))
                .col(text("tenant_id"))
                .col(text("tenant_display_name"))
                .col(text("client_id"))
                .col(json("profile"))
                .col(json("scopes"))
                .col(text("redirect_uri"))
                .col(text("state_parameter"))
                .col(text("code_challenge"))
                .col(text("resource"))
                .col(big_integer("client_version"))
                .col(text("state"))
                .col(big_integer("created_at"))
                .col(big_integer("expires_at"))
                .col(big_integer_null("decided_at"))
                .primary_key(Index::create().col("setup_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("setups_by_expiry")
                .table("setups")
                .col("expires_at")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn admin_session(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("admin_sessions")
                .col(blob("session_hash"))
                .col(text("tenant_id"))
                .col(text("user_id"))
                .col(text("workload_id"))
                .col(text_null("setup_id"))
                .col(text("registry_epoch"))
                .col(big_integer("registry_seq"))
                .col(big_integer("signed_in_at"))
                .col(big_integer("last_used_at"))
                .col(big_integer_null("ended_at"))
                .primary_key(Index::create().col("session_hash"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("admin_sessions_by_sign_in")
                .table("admin_sessions")
                .col("signed_in_at")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn grant(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("grants")
                .col(text("tenant_id"))
                .col(text("grant_id"))
                .col(text("client_id"))
                .col(json("profile"))
                .col(json("scopes"))
                .col(text("designated_user_id"))
                .col(text("granted_by_user_id"))
                .col(text("state"))
                .col(big_integer("created_at"))
                .col(big_integer("redeem_until"))
                .col(big_integer_null("activated_at"))
                .col(big_integer_null("expires_at"))
                .col(big_integer_null("ended_at"))
                .primary_key(Index::create().col("tenant_id").col("grant_id"))
                .to_owned(),
        )
        .await?;
    // sea-query writes no partial indexes for both databases; this statement is the same on both.
    manager
        .get_connection()
        .execute_unprepared(
            "CREATE UNIQUE INDEX grants_active ON grants (tenant_id, client_id) WHERE state = 'active'",
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("grants_by_client")
                .table("grants")
                .col("tenant_id")
                .col("client_id")
                .col("grant_id")
                .to_owned(),
        )
        .await?;
    manager
        .create_table(
            Table::create()
                .table("grant_uses")
                .col(text("tenant_id"))
                .col(text("grant_id"))
                .col(big_integer("last_used_at"))
                .primary_key(Index::create().col("tenant_id").col("grant_id"))
                .to_owned(),
        )
        .await
}

async fn code(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("codes")
                .col(blob("code_hash"))
                .col(text("tenant_id"))
                .col(text("grant_id"))
                .col(text("client_id"))
                .col(text("redirect_uri"))
                .col(text("code_challenge"))
                .col(text("resource"))
                .col(big_integer("expires_at"))
                .col(big_integer_null("used_at"))
                .col(text_null("family_id"))
                .primary_key(Index::create().col("code_hash"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("codes_by_expiry")
                .table("codes")
                .col("expires_at")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn family(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("families")
                .col(text("tenant_id"))
                .col(text("family_id"))
                .col(text("grant_id"))
                .col(text("client_id"))
                .col(integer("used_generation"))
                .col(integer("current_generation"))
                .col(big_integer("handed_out_at"))
                .col(integer("key_version"))
                .col(text("registry_epoch"))
                .col(big_integer("registry_seq"))
                .col(big_integer("created_at"))
                .col(big_integer("expires_at"))
                .col(big_integer_null("ended_at"))
                .col(text_null("end_reason"))
                .primary_key(Index::create().col("tenant_id").col("family_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("families_by_grant")
                .table("families")
                .col("tenant_id")
                .col("grant_id")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn revocation(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("revocations")
                .col(big_integer("seq"))
                .col(text("kind"))
                .col(text("id"))
                .col(text_null("tenant_id"))
                .col(big_integer("revoked_at"))
                .col(big_integer("expires_at"))
                .primary_key(Index::create().col("seq"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("revocations_by_id")
                .table("revocations")
                .col("kind")
                .col("id")
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("revocations_by_expiry")
                .table("revocations")
                .col("expires_at")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn signing_key(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("signing_keys")
                .col(text("kid"))
                .col(text("algorithm"))
                .col(blob("sealed"))
                .col(integer("key_version"))
                .col(blob("public_key"))
                .col(text("state"))
                .col(big_integer("created_at"))
                .col(big_integer_null("activated_at"))
                .col(big_integer_null("retired_at"))
                .col(big_integer_null("revoked_at"))
                .primary_key(Index::create().col("kid"))
                .to_owned(),
        )
        .await?;
    // sea-query writes no partial indexes for both databases; this statement is the same on both.
    manager
        .get_connection()
        .execute_unprepared("CREATE UNIQUE INDEX signing_keys_in_use ON signing_keys (state) WHERE state in ('active', 'next')")
        .await?;
    Ok(())
}

async fn client_assertion(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
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
