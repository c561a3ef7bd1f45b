//! Rows of `integration_requests`: what a partner asks for.

use sea_orm::entity::prelude::*;

/// What a partner asks for.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "integration_requests")]
pub struct Model {
    /// `irq_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub integration_request_id: String,
    /// What the partner asks for, an object.
    pub content: Json,
    /// `submitted`, `approved`, `rejected` or `registered`.
    pub state: String,
    /// Empty unless rejected.
    pub rejection_reason: String,
    /// The client it became.
    pub client_id: Option<String>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
}

/// Rows are joined by hand, where a join is needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
