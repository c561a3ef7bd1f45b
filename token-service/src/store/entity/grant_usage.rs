//! Rows of `grant_usage`: how a grant was used on a day. A table of its own, because every row of `grants` confers
//! authority and changes only by a decision.

use sea_orm::entity::prelude::*;

/// How a grant was used on a day in UTC.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "grant_usage")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// The grant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub grant_id: String,
    /// Days since 1970-01-01.
    #[sea_orm(primary_key, auto_increment = false)]
    pub day: i32,
    /// How many tokens were issued.
    pub issued: i64,
    /// When the last one was; Unix milliseconds.
    pub last_used_at: i64,
    /// Their scopes, separated by spaces.
    pub scopes: String,
    /// The first addresses that they were requested from, separated by spaces.
    pub addresses: String,
    /// Whether there were more.
    pub has_more_addresses: bool,
}

impl ActiveModelBehavior for ActiveModel {}
