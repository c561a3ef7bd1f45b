//! Rows of `codes`: an authorization code, as a hash.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// An authorization code, as a hash.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "codes")]
pub struct Model {
    /// SHA-256 of the code.
    #[sea_orm(primary_key, auto_increment = false)]
    pub code_hash: Vec<u8>,
    /// The tenant.
    pub tenant_id: String,
    /// The grant that its redemption activates.
    pub grant_id: String,
    /// The client.
    pub client_id: String,
    /// The redirect URI of the authorization request.
    pub redirect_uri: String,
    /// PKCE challenge, S256.
    pub code_challenge: String,
    /// The requested resource, or empty.
    pub resource: String,
    /// The thumbprint of the key that it is bound to.
    pub dpop_jkt: Option<String>,
    /// When it expires; once it is redeemed, the end of its family. Unix milliseconds.
    pub expires_at: i64,
    /// When its client first presented it.
    pub used_at: Option<i64>,
    /// The refresh family of its redemption.
    pub family_id: Option<String>,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    // A redemption writes no version: the version of its grant says that the code was used.
    const RECORDED: Recorded<Model> = Recorded::AtEnd(|row| row.used_at.is_some());
}
