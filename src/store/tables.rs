//! The tables that both services have.

use sea_orm::ExprTrait;
use sea_orm_migration::{DbErr, SchemaManager, prelude::Expr, schema::*};

use super::{
    audit::not_issued,
    change,
    database::heartbeat,
    log,
    migration::{COUNTER_TABLE, create_index, create_partial_index, create_table},
};

/// Creates the tables of [`crate::store`]. Each service's migration calls it.
///
/// A service calls [`change::ensure`] after its migrations: the feed's epoch is random, and migrations have no
/// randomness.
pub async fn create_tables(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let is_only_row = Expr::col("id").eq(change::COUNTER);
    let columns = [
        integer("id").check(is_only_row).to_owned(),
        text("epoch"),
        big_integer("seq"),
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
    ];
    create_table(manager, "idempotency", &["request_key"], columns).await?;
    create_index(manager, "idempotency_created_at", "idempotency", &["created_at"]).await?;

    let columns = [
        text("event_id"),
        big_integer("occurred_at"),
        text("action"),
        text("outcome"),
        text("actor_kind"),
        text("actor_id"),
        text_null("tenant_id"),
        text_null("client_id"),
        text_null("subject"),
        text("request_id"),
        text("detail"),
    ];
    create_table(manager, "audit_events", &["event_id"], columns).await?;
    // Without the events of issued tokens: there are thousands a second, and each index with scattered keys costs a
    // page for each of them.
    for column in ["tenant_id", "client_id", "action", "actor_id", "subject"] {
        let name = format!("audit_events_{column}");
        let columns = [column, "event_id"];
        create_partial_index(manager, &name, "audit_events", &columns, not_issued()).await?;
    }
    log::create_tables(manager).await
}
