//! Rows of `client_assertions`: assertions that were used. A row takes authority away by being there, so that a MAC would protect
//! nothing: whoever could edit it can remove it.

use sea_orm::entity::prelude::*;

/// An assertion that was used.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "client_assertions")]
pub struct Model {
    /// The client that signed it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub client_id: String,
    /// SHA-256 of its `jti`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub jti_hash: Vec<u8>,
    /// When it expires, in Unix milliseconds.
    pub expires_at: i64,
}

impl ActiveModelBehavior for ActiveModel {}
