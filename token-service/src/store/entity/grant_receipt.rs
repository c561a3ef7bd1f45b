//! Rows of `grant_receipts`: what the receipt of a consent says beside its grant. Issuing reads grants, and does not need this.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// What a Tenant Admin saw and changed.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "grant_receipts")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// `grt_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub grant_id: String,
    /// The scopes granted, with their texts as the consent page showed them.
    pub scopes: Json,
    /// The changes of the designated user, the oldest first.
    pub user_changes: Json,
    /// Array of the changes of the allowed networks, the oldest first.
    pub network_changes: Json,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
}
