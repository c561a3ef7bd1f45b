//! Rows of `clients`: a third-party client.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A third-party client.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "clients")]
pub struct Model {
    /// `cli_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub client_id: String,
    /// The request that it was registered from.
    pub integration_request_id: String,
    /// The texts that consent pages show, an object.
    pub presentation: Json,
    /// Array of the ids of tenants, sorted. `client_tenants` is an index of it.
    pub tenants: Json,
    /// Array of `{name, reason}`.
    pub scopes: Json,
    /// Since which feed positions: `{tenants: {id: seq}, scopes: {name: seq}}`.
    pub added: Json,
    /// Array of URIs.
    pub redirect_uris: Json,
    /// `active` or `suspended`.
    pub state: String,
    /// Feed position of the last change that a consent page would show.
    pub version: i64,
    /// Feed position at which its access tokens last ended; 0 if never.
    pub tokens_ended_seq: i64,
    /// Feed position at which its refresh tokens last ended; 0 if never.
    pub families_ended_seq: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
    /// Grows with every change of a returned field.
    pub etag: i64,
    /// JSON Web Key Set in canonical form; empty if there are no keys.
    pub json_web_key_set: String,
    /// How it authenticates, and what limits it, an object.
    pub security: Json,
    /// From when on it follows the FAPI 2.0 Security Profile, Unix milliseconds; null: not at all.
    pub fapi_from: Option<i64>,
    /// Shows that a holder of the keys has written the row.
    pub mac: Vec<u8>,
}

accord::no_relations!();

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
    const NOUNS: &'static [&'static str] = &["client"];
}
