//! Rows of `grant_uses`: when a grant last yielded a token. A table of its own, because every row of
//! `grants` confers authority and changes only by a decision.

use sea_orm::entity::prelude::*;

/// When a grant last yielded a token.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "grant_uses")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// The grant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub grant_id: String,
    /// Unix milliseconds.
    pub last_used_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
