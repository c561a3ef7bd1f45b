//! Rows of `grants`: what a Tenant Admin allowed a client.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// What a Tenant Admin allowed a client.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "grants")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// `grt_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub grant_id: String,
    /// The client.
    pub client_id: String,
    /// The client's display info as the Tenant Admin saw it: `{display_name, partner_name, purpose}`.
    pub profile: Json,
    /// Array of scope names.
    pub scopes: Json,
    /// The user that API transactions run as.
    pub designated_user_id: String,
    /// The Tenant Admin.
    pub granted_by_user_id: String,
    /// `pending`, `active`, `revoked` or `superseded`; expiry and suspension are derived.
    pub state: String,
    /// The refresh family that began when its code was redeemed.
    pub family_id: Option<String>,
    /// The version of the client at the approval.
    pub client_version: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When a pending grant expires with its code.
    pub redeem_until: i64,
    /// When its code was redeemed.
    pub activated_at: Option<i64>,
    /// When it expires.
    pub expires_at: Option<i64>,
    /// When it was revoked or superseded.
    pub ended_at: Option<i64>,
    /// Array of the networks, in CIDR notation, that tokens may be requested from; empty for any.
    pub allowed_networks: Json,
    /// See [`Protected`].
    pub mac: Vec<u8>,
}

impl ActiveModelBehavior for ActiveModel {}

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
    const NOUNS: &'static [&'static str] = &["consent"];
}
