//! Rows of `revocations`: something that ended before its time.

use sea_orm::entity::prelude::*;
use serde::Serialize;

/// Something that ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, DeriveEntityModel)]
#[sea_orm(table_name = "revocations")]
pub struct Model {
    /// Feed position.
    #[sea_orm(primary_key, auto_increment = false)]
    pub seq: i64,
    /// `jti`, `family`, `grant` or `kid`.
    pub kind: String,
    /// Which one.
    pub id: String,
    /// The tenant.
    pub tenant_id: Option<String>,
    /// Unix milliseconds.
    pub revoked_at: i64,
    /// When the last token that it ends has ended anyway.
    pub expires_at: i64,
}

/// Rows are joined by hand, where a join is needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
