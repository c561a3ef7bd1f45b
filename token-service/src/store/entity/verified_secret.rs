//! Rows of `verified_secrets`. The HMAC over a secret is the row's protection: without the key nobody makes one for a secret of
//! their own. Whether the secret is live, the registry says.

use sea_orm::entity::prelude::*;

/// A Client Secret that a replica verified, as a MAC under a data key.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "verified_secrets")]
pub struct Model {
    /// The client.
    #[sea_orm(primary_key, auto_increment = false)]
    pub client_id: String,
    /// Which of its secrets.
    #[sea_orm(primary_key, auto_increment = false)]
    pub secret_id: String,
    /// Version of the key of the MAC.
    pub key_version: i32,
    /// HMAC-SHA-256 over Client ID, secret id and secret.
    pub mac: Vec<u8>,
    /// When the secret expires, in Unix milliseconds.
    pub expires_at: Option<i64>,
}

impl ActiveModelBehavior for ActiveModel {}
