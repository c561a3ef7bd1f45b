//! Rows of `revocations`.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// The end of tokens before their time.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
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
    /// When the last token that it ends has expired.
    pub expires_at: i64,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Never;
}
