//! Rows of `setups`: snapshots of authorization requests.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A snapshot of an authorization request.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "setups")]
pub struct Model {
    /// `set_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub setup_id: String,
    /// The tenant.
    pub tenant_id: String,
    /// The tenant's display name.
    pub tenant_display_name: String,
    /// The client.
    pub client_id: String,
    /// The client's display info: `{display_name, partner_name, purpose}`.
    pub profile: Json,
    /// Array of `{name, description, reason}`.
    pub scopes: Json,
    /// The URI that the response goes to.
    pub redirect_uri: String,
    /// The partner's `state`, returned with the response.
    pub state_parameter: String,
    /// PKCE challenge, S256.
    pub code_challenge: String,
    /// The requested resource, or empty.
    pub resource: String,
    /// The thumbprint of the key that the code is bound to.
    pub dpop_jkt: Option<String>,
    /// Whether the client has pushed the request.
    pub pushed: bool,
    /// The client's version when it was shown.
    pub client_version: i64,
    /// `pending`, `approved` or `denied`; expiry follows from `expires_at`.
    pub state: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When it was decided.
    pub decided_at: Option<i64>,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::AtEnd(|row| row.decided_at.is_some());
}
