//! Rows of `operators`: a person or script that operates Accord.

use sea_orm::entity::prelude::*;

/// A person or script that operates Accord.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "operators")]
pub struct Model {
    /// `opr_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub operator_id: String,
    /// Unique among live operators.
    pub name: String,
    /// Array of role names.
    pub roles: Json,
    /// SHA-256 of the bearer token.
    pub token_hash: Vec<u8>,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// Rows are joined by hand, where a join is needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
