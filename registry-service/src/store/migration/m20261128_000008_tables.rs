//! The tables of registry-service. Until 0.2.0 this migration is edited in place and renamed.

use accord::store::{create_index, create_table, create_unique_index};
use sea_orm_migration::{prelude::*, schema::*};

/// Creates the tables of the first release.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        accord::store::create_tables(manager).await?;

        let columns = [
            text("tenant_id"),
            text("display_name"),
            text("cloud_api_url"),
            text("state"),
            big_integer("tokens_ended_seq"),
            big_integer("created_at"),
            big_integer("updated_at"),
            big_integer("etag"),
            blob("mac"),
        ];
        create_table(manager, "tenants", &["tenant_id"], columns).await?;

        let columns = [
            text("tenant_id"),
            text("user_id"),
            blob("name_hash"),
            integer("name_key_version"),
            integer("name_rules_version"),
            text("label"),
            boolean("tenant_admin"),
            text("state"),
            text_null("password_hash"),
            integer_null("pepper_version"),
            big_integer("tokens_ended_seq"),
            big_integer("sessions_ended_seq"),
            big_integer("created_at"),
            big_integer("updated_at"),
            blob("mac"),
        ];
        create_table(manager, "users", &["tenant_id", "user_id"], columns).await?;
        create_unique_index(manager, "users_by_name", "users", &["tenant_id", "name_hash"]).await?;

        let columns = [
            blob("token_hash"),
            text("tenant_id"),
            text("user_id"),
            big_integer("created_at"),
            big_integer("expires_at"),
            big_integer_null("used_at"),
            blob_null("used_by"),
            big_integer_null("ended_at"),
            text("creator"),
            boolean("needs_release"),
            text_null("releaser"),
            blob_null("release_mac"),
            integer_null("release_key_version"),
            integer("wrong_codes"),
            blob("mac"),
        ];
        create_table(manager, "enrolments", &["token_hash"], columns).await?;
        let key = ["tenant_id", "user_id"];
        create_index(manager, "enrolments_by_user", "enrolments", &key).await?;

        let columns = [
            text("name"),
            text("description"),
            boolean("enabled"),
            big_integer("created_at"),
            big_integer("updated_at"),
            big_integer("etag"),
            blob("mac"),
        ];
        create_table(manager, "scopes", &["name"], columns).await?;

        let columns = [
            text("integration_request_id"),
            json("content"),
            text("state"),
            text("rejection_reason"),
            text("submitter"),
            text("submitted_by"),
            text_null("approved_by"),
            text_null("client_id"),
            big_integer("created_at"),
            big_integer("updated_at"),
            blob("mac"),
        ];
        let key = ["integration_request_id"];
        create_table(manager, "integration_requests", &key, columns).await?;
        let (by_client, key) = ("integration_requests_by_client", ["client_id", "updated_at"]);
        create_index(manager, by_client, "integration_requests", &key).await?;

        let columns = [
            text("client_id"),
            text("integration_request_id"),
            json("presentation"),
            json("tenants"),
            json("scopes"),
            json("added"),
            json("redirect_uris"),
            text("json_web_key_set"),
            json("security"),
            big_integer_null("fapi_from"),
            text("state"),
            big_integer("version"),
            big_integer("tokens_ended_seq"),
            big_integer("families_ended_seq"),
            big_integer("created_at"),
            big_integer("updated_at"),
            big_integer("etag"),
            blob("mac"),
        ];
        create_table(manager, "clients", &["client_id"], columns).await?;
        let key = ["integration_request_id"];
        create_unique_index(manager, "clients_by_request", "clients", &key).await?;

        // No MAC covers it: it confers nothing, since token-service looks at its own keys whenever it signs.
        let is_only_row = Expr::col("id").eq(1);
        let columns = [integer("id").check(is_only_row).to_owned(), text("algorithms")];
        create_table(manager, "signing_algorithms", &["id"], columns).await?;
        for statement in [
            "INSERT INTO signing_algorithms (id, algorithms) VALUES (1, '')",
            "CREATE INDEX clients_with_profile ON clients (fapi_from) WHERE fapi_from is not null",
        ] {
            manager.get_connection().execute_unprepared(statement).await?;
        }

        let columns = [text("tenant_id"), text("client_id")];
        create_table(manager, "client_tenants", &["tenant_id", "client_id"], columns).await?;
        let key = ["client_id"];
        create_index(manager, "client_tenants_by_client", "client_tenants", &key).await?;

        let columns = [
            text("secret_id"),
            text("client_id"),
            text("secret_hash"),
            integer("pepper_version"),
            integer("tag_key_version"),
            boolean("awaiting_claim"),
            big_integer("created_at"),
            big_integer_null("expires_at"),
            big_integer_null("last_used_at"),
            big_integer_null("revoked_at"),
            text_null("revocation_reason"),
            blob("mac"),
        ];
        create_table(manager, "client_secrets", &["secret_id"], columns).await?;
        let key = ["client_id", "secret_id"];
        create_index(manager, "client_secrets_by_client", "client_secrets", &key).await?;

        let columns = [
            text("delivery_id"),
            text("client_id"),
            text("secret_id"),
            blob("claim_hash"),
            blob_null("nonce"),
            integer("key_version"),
            big_integer("created_at"),
            big_integer("expires_at"),
            big_integer_null("claimed_at"),
            blob_null("claimed_by"),
            big_integer_null("ended_at"),
            text("creator"),
            boolean("needs_release"),
            text_null("releaser"),
            blob_null("release_mac"),
            integer_null("release_key_version"),
            integer("wrong_codes"),
            blob("mac"),
        ];
        create_table(manager, "deliveries", &["delivery_id"], columns).await?;
        create_unique_index(manager, "deliveries_by_claim", "deliveries", &["claim_hash"]).await?;
        create_index(manager, "deliveries_by_client", "deliveries", &["client_id"]).await?;

        let columns = [
            text("caller_id"),
            text("caller_type"),
            text("name"),
            text("authority"),
            blob_null("token_hash"),
            text_null("certificate_name"),
            text("person"),
            text("created_by"),
            big_integer("created_at"),
            big_integer_null("revoked_at"),
            blob("mac"),
        ];
        create_table(manager, "callers", &["caller_id"], columns).await?;
        create_unique_index(manager, "callers_by_token", "callers", &["token_hash"]).await?;
        // sea-query writes no partial indexes. These statements are the same on both databases.
        for unique in [
            "CREATE UNIQUE INDEX callers_by_live_name ON callers (caller_type, name) WHERE revoked_at is null",
            "CREATE UNIQUE INDEX callers_by_certificate ON callers (certificate_name) WHERE revoked_at is null",
        ] {
            manager.get_connection().execute_unprepared(unique).await?;
        }
        Ok(())
    }
}
