//! Rows of `pushed_requests`: authorization requests that clients have pushed.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A pushed authorization request.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pushed_requests")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// SHA-256 of the reference, the random part of the `request_uri`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub reference_hash: Vec<u8>,
    /// The client.
    pub client_id: String,
    /// The setup that it leads to, and that is stored when somebody signs in.
    pub setup_id: String,
    /// The parameters of the request.
    pub parameters: Json,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When it can no longer be opened. Unix milliseconds.
    pub expires_at: i64,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    /// It never changes.
    const RECORDED: Recorded<Model> = Recorded::Never;
}
