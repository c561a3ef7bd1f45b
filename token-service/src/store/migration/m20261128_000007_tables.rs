//! The tables of token-service. Until 0.2.0 this migration is edited in place and renamed.

use accord::store::{create_index, create_table};
use sea_orm_migration::{prelude::*, schema::*};

/// Creates every table of the first release.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        accord::store::create_tables(manager).await?;
        setups(manager).await?;
        pushed_requests(manager).await?;
        grants(manager).await?;
        codes(manager).await?;
        families(manager).await?;
        revocations(manager).await?;
        signing_keys(manager).await?;
        client_credentials(manager).await
    }
}

async fn setups(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        text("setup_id"),
        text("tenant_id"),
        text("tenant_display_name"),
        text("client_id"),
        json("profile"),
        json("scopes"),
        text("redirect_uri"),
        text("state_parameter"),
        text("code_challenge"),
        text("resource"),
        text_null("dpop_jkt"),
        boolean("pushed"),
        big_integer("client_version"),
        text("state"),
        big_integer("created_at"),
        big_integer("expires_at"),
        big_integer_null("decided_at"),
        blob("mac"),
    ];
    create_table(manager, "setups", &["setup_id"], columns).await?;
    create_index(manager, "setups_by_expiry", "setups", &["expires_at"]).await?;

    let columns = [
        blob("session_hash"),
        text("tenant_id"),
        text("user_id"),
        text("workload_id"),
        text_null("setup_id"),
        text("registry_epoch"),
        big_integer("registry_seq"),
        big_integer("signed_in_at"),
        big_integer("last_used_at"),
        big_integer_null("ended_at"),
        blob("mac"),
    ];
    create_table(manager, "admin_sessions", &["session_hash"], columns).await?;
    let by_sign_in = "admin_sessions_by_sign_in";
    create_index(manager, by_sign_in, "admin_sessions", &["signed_in_at"]).await
}

async fn pushed_requests(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        text("tenant_id"),
        blob("reference_hash"),
        text("client_id"),
        text("setup_id"),
        json("parameters"),
        big_integer("created_at"),
        big_integer("expires_at"),
        blob("mac"),
    ];
    let (table, key) = ("pushed_requests", ["tenant_id", "reference_hash"]);
    create_table(manager, table, &key, columns).await?;
    create_index(manager, "pushed_requests_by_expiry", table, &["expires_at"]).await
}

async fn grants(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        text("tenant_id"),
        text("grant_id"),
        text("client_id"),
        json("profile"),
        json("scopes"),
        text("designated_user_id"),
        text("granted_by_user_id"),
        text("state"),
        text_null("family_id"),
        big_integer("client_version"),
        big_integer("created_at"),
        big_integer("redeem_until"),
        big_integer_null("activated_at"),
        big_integer_null("expires_at"),
        big_integer_null("ended_at"),
        json("allowed_networks"),
        blob("mac"),
    ];
    create_table(manager, "grants", &["tenant_id", "grant_id"], columns).await?;
    // sea-query writes no partial indexes for both databases; this statement is the same on both.
    let active = "CREATE UNIQUE INDEX grants_active ON grants (tenant_id, client_id) WHERE state = 'active'";
    manager.get_connection().execute_unprepared(active).await?;
    let by_client = ["tenant_id", "client_id", "grant_id"];
    create_index(manager, "grants_by_client", "grants", &by_client).await?;

    let columns = [
        text("tenant_id"),
        text("grant_id"),
        json("scopes"),
        json("user_changes"),
        json("network_changes"),
        blob("mac"),
    ];
    create_table(manager, "grant_receipts", &["tenant_id", "grant_id"], columns).await?;

    usage(manager).await
}

async fn usage(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        text("tenant_id"),
        text("grant_id"),
        integer("day"),
        big_integer("issued"),
        big_integer("last_used_at"),
        text("scopes"),
        text("addresses"),
        boolean("has_more_addresses"),
    ];
    let key = ["tenant_id", "grant_id", "day"];
    create_table(manager, "grant_usage", &key, columns).await?;
    create_index(manager, "grant_usage_by_day", "grant_usage", &["day"]).await?;

    let columns = [
        text("tenant_id"),
        text("grant_id"),
        integer("day"),
        text("reason"),
        big_integer("rejected"),
    ];
    let key = ["tenant_id", "grant_id", "day", "reason"];
    create_table(manager, "grant_rejections", &key, columns).await?;
    create_index(manager, "grant_rejections_by_day", "grant_rejections", &["day"]).await
}

async fn codes(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        blob("code_hash"),
        text("tenant_id"),
        text("grant_id"),
        text("client_id"),
        text("redirect_uri"),
        text("code_challenge"),
        text("resource"),
        text_null("dpop_jkt"),
        big_integer("expires_at"),
        big_integer_null("used_at"),
        text_null("family_id"),
        blob("mac"),
    ];
    create_table(manager, "codes", &["code_hash"], columns).await?;
    create_index(manager, "codes_by_expiry", "codes", &["expires_at"]).await
}

async fn families(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        text("tenant_id"),
        text("family_id"),
        text("grant_id"),
        text("client_id"),
        integer("used_generation"),
        integer("current_generation"),
        big_integer("handed_out_at"),
        integer("key_version"),
        text("registry_epoch"),
        big_integer("registry_seq"),
        big_integer("created_at"),
        big_integer("expires_at"),
        big_integer_null("ended_at"),
        text_null("end_reason"),
        blob("mac"),
    ];
    create_table(manager, "families", &["tenant_id", "family_id"], columns).await?;
    let by_grant = ["tenant_id", "grant_id"];
    create_index(manager, "families_by_grant", "families", &by_grant).await
}

async fn revocations(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        big_integer("seq"),
        text("kind"),
        text("id"),
        text_null("tenant_id"),
        big_integer("revoked_at"),
        big_integer("expires_at"),
        blob("mac"),
    ];
    create_table(manager, "revocations", &["seq"], columns).await?;
    create_index(manager, "revocations_by_id", "revocations", &["kind", "id"]).await?;
    create_index(manager, "revocations_by_expiry", "revocations", &["expires_at"]).await
}

async fn signing_keys(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        text("kid"),
        text("algorithm"),
        blob("sealed"),
        integer("key_version"),
        text("public_key"),
        text("state"),
        big_integer("created_at"),
        big_integer_null("activated_at"),
        big_integer_null("retired_at"),
        big_integer_null("revoked_at"),
        blob("mac"),
    ];
    create_table(manager, "signing_keys", &["kid"], columns).await?;
    // One key signs and one comes next; see the index of `grants`.
    let in_use =
        "CREATE UNIQUE INDEX signing_keys_in_use ON signing_keys (state) WHERE state in ('active', 'next')";
    manager.get_connection().execute_unprepared(in_use).await?;
    Ok(())
}

async fn client_credentials(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [text("client_id"), blob("jti_hash"), big_integer("expires_at")];
    let (assertions, key) = ("client_assertions", ["client_id", "jti_hash"]);
    create_table(manager, assertions, &key, columns).await?;
    let by_expiry = "client_assertions_by_expiry";
    create_index(manager, by_expiry, assertions, &["expires_at"]).await?;

    let columns = [
        text("client_id"),
        text("secret_id"),
        integer("key_version"),
        blob("mac"),
        big_integer_null("expires_at"),
    ];
    let (secrets, key) = ("verified_secrets", ["client_id", "secret_id"]);
    create_table(manager, secrets, &key, columns).await?;
    create_index(manager, "verified_secrets_by_expiry", secrets, &["expires_at"]).await
}
