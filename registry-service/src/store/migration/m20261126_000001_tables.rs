//! The tables of registry-service. Until 0.2.0 this migration is edited in place and renamed.

use sea_orm_migration::{prelude::*, schema::*};

/// Creates every table of the first release.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        accord::store::create_tables(manager).await?;
        tenant(manager).await?;
        scope(manager).await?;
        user(manager).await?;
        enrolment(manager).await?;
        integration_request(manager).await?;
        client(manager).await?;
        client_tenant(manager).await?;
        client_secret(manager).await?;
        delivery(manager).await?;
        caller(manager).await?;
        Ok(())
    }
}

async fn tenant(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("tenants")
                .col(text("tenant_id"))
                .col(text("display_name"))
                .col(text("cloud_api_url"))
                .col(text("state"))
                .col(big_integer("tokens_ended_seq"))
                .col(big_integer("created_at"))
                .col(big_integer("updated_at"))
                .col(big_integer("etag"))
                .primary_key(Index::create().col("tenant_id"))
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn scope(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("scopes")
                .col(text("name"))
                .col(text("description"))
                .col(boolean("enabled"))
                .col(big_integer("created_at"))
                .col(big_integer("updated_at"))
                .col(big_integer("etag"))
                .primary_key(Index::create().col("name"))
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn user(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("users")
                .col(text("tenant_id"))
                .col(text("user_id"))
                .col(blob("name_hash"))
                .col(integer("name_key_version"))
                .col(integer("name_rules_version"))
                .col(text("label"))
                .col(boolean("tenant_admin"))
                .col(text("state"))
                .col(text_null("password_hash"))
                .col(integer_null("pepper_version"))
                .col(big_integer("tokens_ended_seq"))
                .col(big_integer("sessions_ended_seq"))
                .col(big_integer("created_at"))
                .col(big_integer("updated_at"))
                .primary_key(Index::create().col("tenant_id").col("user_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("users_by_name")
                .table("users")
                .col("tenant_id")
                .col("name_hash")
                .unique()
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn enrolment(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("enrolments")
                .col(blob("token_hash"))
                .col(text("tenant_id"))
                .col(text("user_id"))
                .col(big_integer("created_at"))
                .col(big_integer("expires_at"))
                .col(big_integer_null("used_at"))
                .col(big_integer_null("ended_at"))
                .primary_key(Index::create().col("token_hash"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("enrolments_by_user")
                .table("enrolments")
                .col("tenant_id")
                .col("user_id")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn integration_request(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("integration_requests")
                .col(text("integration_request_id"))
                .col(json("content"))
                .col(text("state"))
                .col(text("rejection_reason"))
                .col(text_null("client_id"))
                .col(big_integer("created_at"))
                .col(big_integer("updated_at"))
                .primary_key(Index::create().col("integration_request_id"))
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn client(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("clients")
                .col(text("client_id"))
                .col(text("integration_request_id"))
                .col(json("presentation"))
                .col(json("scopes"))
                .col(json("redirect_uris"))
                .col(text("json_web_key_set"))
                .col(text("state"))
                .col(big_integer("version"))
                .col(big_integer("tokens_ended_seq"))
                .col(big_integer("families_ended_seq"))
                .col(big_integer("created_at"))
                .col(big_integer("updated_at"))
                .col(big_integer("etag"))
                .primary_key(Index::create().col("client_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("clients_by_request")
                .table("clients")
                .col("integration_request_id")
                .unique()
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn client_tenant(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("client_tenants")
                .col(text("tenant_id"))
                .col(text("client_id"))
                .primary_key(Index::create().col("tenant_id").col("client_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("client_tenants_by_client")
                .table("client_tenants")
                .col("client_id")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn client_secret(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("client_secrets")
                .col(text("secret_id"))
                .col(text("client_id"))
                .col(text("secret_hash"))
                .col(integer("pepper_version"))
                .col(integer("tag_key_version"))
                .col(boolean("awaiting_claim"))
                .col(big_integer("created_at"))
                .col(big_integer_null("expires_at"))
                .col(big_integer_null("last_used_at"))
                .col(big_integer_null("revoked_at"))
                .col(text_null("revocation_reason"))
                .primary_key(Index::create().col("secret_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("client_secrets_by_client")
                .table("client_secrets")
                .col("client_id")
                .col("secret_id")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn delivery(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("deliveries")
                .col(text("delivery_id"))
                .col(text("client_id"))
                .col(text("secret_id"))
                .col(blob("claim_hash"))
                .col(blob_null("nonce"))
                .col(integer("key_version"))
                .col(big_integer("created_at"))
                .col(big_integer("expires_at"))
                .col(big_integer_null("claimed_at"))
                .col(big_integer_null("ended_at"))
                .primary_key(Index::create().col("delivery_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("deliveries_by_claim")
                .table("deliveries")
                .col("claim_hash")
                .unique()
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("deliveries_by_client")
                .table("deliveries")
                .col("client_id")
                .to_owned(),
        )
        .await?;
    Ok(())
}

async fn caller(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    manager
        .create_table(
            Table::create()
                .table("callers")
                .col(text("caller_id"))
                .col(text("caller_type"))
                .col(text("name"))
                .col(text("authority"))
                .col(blob("token_hash"))
                .col(big_integer("created_at"))
                .col(big_integer_null("revoked_at"))
                .primary_key(Index::create().col("caller_id"))
                .to_owned(),
        )
        .await?;
    manager
        .create_index(
            Index::create()
                .name("callers_by_token")
                .table("callers")
                .col("token_hash")
                .unique()
                .to_owned(),
        )
        .await?;
    // sea-query writes no partial indexes for both databases; this statement is the same on both.
    manager
        .get_connection()
        .execute_unprepared(
            "CREATE UNIQUE INDEX callers_by_live_name ON callers (caller_type, name) WHERE revoked_at is null",
        )
        .await?;
    Ok(())
}
