//! Rows of `admin_sessions`: a Tenant Admin's session.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A Tenant Admin's session.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "admin_sessions")]
pub struct Model {
    /// SHA-256 of the session token.
    #[sea_orm(primary_key, auto_increment = false)]
    pub session_hash: Vec<u8>,
    /// The tenant.
    pub tenant_id: String,
    /// The Tenant Admin.
    pub user_id: String,
    /// The workload that sent the sign-in.
    pub workload_id: String,
    /// The setup it was opened for.
    pub setup_id: Option<String>,
    /// The registry's epoch at the sign-in.
    pub registry_epoch: String,
    /// The registry's feed position at the sign-in.
    pub registry_seq: i64,
    /// Unix milliseconds.
    pub signed_in_at: i64,
    /// Unix milliseconds.
    pub last_used_at: i64,
    /// When it was ended.
    pub ended_at: Option<i64>,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::AtEnd(|row| row.ended_at.is_some());
}
