//! The tables that both services have.

use sea_orm::ExprTrait;
use sea_orm_migration::{DbErr, SchemaManager, prelude::Expr, schema::*};

use super::{
    change,
    database::heartbeat,
    log,
    migration::{COUNTER_TABLE, create_index, create_table, create_unique_index},
};

/// Creates the tables of [`crate::store`]. Each service's migration calls it.
///
/// The row of the change feed is created with the first keys, which its MAC needs.
pub async fn create_tables(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let is_only_row = Expr::col("id").eq(change::COUNTER);
    let columns = [
        integer("id").check(is_only_row).to_owned(),
        text("epoch"),
        big_integer("seq"),
        big_integer("event_number"),
        big_integer("log_id"),
        boolean("awaits_log"),
        blob("mac"),
    ];
    create_table(manager, COUNTER_TABLE, &["id"], columns).await?;

    let columns = [integer("id"), big_integer("beat")];
    create_table(manager, heartbeat::TABLE, &["id"], columns).await?;

    let columns = [
        big_integer("seq"),
        text("kind"),
        text("id"),
        text_null("tenant_id"),
        big_integer("changed_at"),
        blob("mac"),
    ];
    create_table(manager, "changes", &["seq"], columns).await?;

    let columns = [
        text("purpose"),
        integer("version"),
        blob("wrapped"),
        text("master_key_id"),
        big_integer("created_at"),
        big_integer("activate_at"),
    ];
    create_table(manager, "keyring", &["purpose", "version"], columns).await?;

    let columns = [
        blob("request_key"),
        blob("content"),
        blob_null("nonce"),
        integer("key_version"),
        text("resource_id"),
        big_integer("created_at"),
        blob("mac"),
    ];
    create_table(manager, "idempotency", &["request_key"], columns).await?;
    create_index(manager, "idempotency_created_at", "idempotency", &["created_at"]).await?;

    let columns = [
        big_integer("number"),
        text("event_id"),
        text("action"),
        text("outcome"),
        text("actor_id"),
        text_null("tenant_id"),
        text_null("client_id"),
        text_null("subject"),
        blob("record"),
        integer("key_version"),
        blob("mac"),
    ];
    create_table(manager, "audit_events", &["number"], columns).await?;
    create_unique_index(manager, "audit_events_event_id", "audit_events", &["event_id"]).await?;
    for column in ["tenant_id", "client_id", "action", "actor_id", "subject"] {
        let name = format!("audit_events_{column}");
        create_index(manager, &name, "audit_events", &[column, "number"]).await?;
    }

    let columns = [
        text("row_name"),
        big_integer("event_number"),
        blob("row_digest"),
        blob("mac"),
    ];
    create_table(manager, "row_versions", &["row_name"], columns).await?;

    let columns = [text("tenant_id"), text("event_id"), blob("mac")];
    let (actions, key) = ("audit_tenant_actions", ["tenant_id", "event_id"]);
    create_table(manager, actions, &key, columns).await?;
    create_index(manager, "audit_tenant_actions_by_event", actions, &["event_id"]).await?;

    let columns = [
        text("writer"),
        big_integer("number"),
        integer("size"),
        text("first_event_id"),
        text("last_event_id"),
        blob("root"),
        blob("events"),
        integer("key_version"),
        blob("mac"),
    ];
    create_table(manager, "audit_groups", &["writer", "number"], columns).await?;
    let columns = [text("writer"), big_integer("sealed")];
    create_table(manager, "audit_writers", &["writer"], columns).await?;
    let columns = [
        big_integer("log_id"),
        big_integer("leaf_index"),
        text("source"),
        big_integer("number"),
    ];
    create_table(manager, "audit_leaves", &["log_id", "leaf_index"], columns).await?;
    let row = ["source", "number"];
    create_unique_index(manager, "audit_leaves_rows", "audit_leaves", &row).await?;
    let is_only_row = Expr::col("id").eq(1);
    let columns = [
        integer("id").check(is_only_row).to_owned(),
        text("resume_id"),
        text("operator_id"),
        text("person"),
        text("reason"),
        text("fault"),
        text("pin"),
        text("origin"),
        big_integer("requested_at"),
        integer("key_version"),
        blob("mac"),
    ];
    create_table(manager, "audit_resume_requests", &["id"], columns).await?;
    // Thousands of tokens a second share a few entries.
    let times = ["last_event_id", "first_event_id"];
    create_index(manager, "audit_groups_times", "audit_groups", &times).await?;
    log::create_tables(manager).await
}

/// Ends the module of an entity without relations and hooks.
#[macro_export]
macro_rules! no_relations {
    () => {
        /// There are none. Queries join tables by hand.
        #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
        pub enum Relation {}

        impl ActiveModelBehavior for ActiveModel {}
    };
}
