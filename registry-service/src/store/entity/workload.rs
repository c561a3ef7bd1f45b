//! Rows of `workloads`: an internal service that calls Accord.

use sea_orm::entity::prelude::*;

/// An internal service that calls Accord.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "workloads")]
pub struct Model {
    /// `wkl_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub workload_id: String,
    /// Unique among live workloads.
    pub name: String,
    /// `gateway`, `token-service` or `internal-service`.
    pub kind: String,
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
