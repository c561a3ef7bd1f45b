//! Rows of `setups`: an authorization request as it was when it came in.

use sea_orm::entity::prelude::*;

/// An authorization request as it was when it came in.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "setups")]
pub struct Model {
    /// `set_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub setup_id: String,
    /// The tenant that is asked.
    pub tenant_id: String,
    /// Its name for people.
    pub tenant_display_name: String,
    /// The client that asks.
    pub client_id: String,
    /// What people see of the client: `{display_name, partner_name, purpose}`.
    pub profile: Json,
    /// Array of `{name, description, reason}`.
    pub scopes: Json,
    /// Where the decision goes.
    pub redirect_uri: String,
    /// The partner's `state`, given back with the decision.
    pub state_parameter: String,
    /// PKCE challenge, S256.
    pub code_challenge: String,
    /// The resource asked for, or empty.
    pub resource: String,
    /// The client's version when it was shown.
    pub client_version: i64,
    /// `pending`, `approved` or `denied`; expiry shows by `expires_at`.
    pub state: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When it was decided.
    pub decided_at: Option<i64>,
}

/// Rows are joined by hand, where a join is needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
