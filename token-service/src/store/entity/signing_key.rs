//! Rows of `signing_keys`.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A key that access tokens are signed with.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "signing_keys")]
pub struct Model {
    /// Key id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub kid: String,
    /// `EdDSA`, `ES256`, `RS256` or `PS256`.
    pub algorithm: String,
    /// The private key (PKCS#8), sealed by a data key.
    pub sealed: Vec<u8>,
    /// Version of that data key.
    pub key_version: i32,
    /// The public key: the JWK members that its thumbprint covers (RFC 7638), as JSON.
    pub public_key: String,
    /// `next`, `active`, `retired` or `revoked`.
    pub state: String,
    /// Unix milliseconds. The key is published since then.
    pub created_at: i64,
    /// When it began to sign.
    pub activated_at: Option<i64>,
    /// When it stopped signing.
    pub retired_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
}
