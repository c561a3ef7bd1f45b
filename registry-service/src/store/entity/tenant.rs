//! Rows of `tenants`: a tenant of the cloud product.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A tenant of the cloud product.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "tenants")]
pub struct Model {
    /// The slug the operator chose.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// Name for people.
    pub display_name: String,
    /// Audience of the tenant's tokens.
    pub cloud_api_url: String,
    /// `active` or `suspended`.
    pub state: String,
    /// Feed position of the last suspension; 0 if none.
    pub tokens_ended_seq: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
    /// Grows with every change of a returned field.
    pub etag: i64,
    /// Shows that a holder of the keys has written the row.
    pub mac: Vec<u8>,
}

accord::no_relations!();

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
    const NOUNS: &'static [&'static str] = &["tenant"];
}
