//! Rows of `grant_rejections`: how many requests for tokens under a grant were rejected on a day.

use sea_orm::entity::prelude::*;

/// How many requests for tokens were rejected for one reason on a day in UTC.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "grant_rejections")]
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
    /// The reason, by its name in the contract.
    #[sea_orm(primary_key, auto_increment = false)]
    pub reason: String,
    /// How many requests.
    pub rejected: i64,
}

impl ActiveModelBehavior for ActiveModel {}
