//! Rows of `scopes`: a scope of the catalogue.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A scope of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "scopes")]
pub struct Model {
    /// RFC 6749 scope-token.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// What it allows, for people.
    pub description: String,
    /// Whether clients can ask for it.
    pub enabled: bool,
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
}
