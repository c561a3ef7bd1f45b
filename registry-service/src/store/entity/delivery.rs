//! Rows of `deliveries`: a one-time link to credentials.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A one-time link to credentials.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub struct Model {
    /// `dlv_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub delivery_id: String,
    /// The client.
    pub client_id: String,
    /// The secret that it hands over.
    pub secret_id: String,
    /// SHA-256 of the claim token.
    pub claim_hash: Vec<u8>,
    /// Salt of the secret's derivation. Null when it ended, and soon after the minute in which it may be opened again.
    pub nonce: Option<Vec<u8>>,
    /// Version of the derivation's data key.
    pub key_version: i32,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When it was opened.
    pub claimed_at: Option<i64>,
    /// MAC of the request id that opened it.
    pub claimed_by: Option<Vec<u8>>,
    /// When a newer link replaced it, or it expired, or five wrong codes ended it.
    pub ended_at: Option<i64>,
    /// The person who created it.
    pub creator: String,
    /// Whether it opens only with a release code, whatever the setting is.
    pub needs_release: bool,
    /// The person who released it; `None` before.
    pub releaser: Option<String>,
    /// MAC of the release code; null before the release.
    pub release_mac: Option<Vec<u8>>,
    /// Version of the MAC's data key.
    pub release_key_version: Option<i32>,
    /// How many wrong codes were presented.
    pub wrong_codes: i32,
    /// Shows that a holder of the keys has written the row.
    pub mac: Vec<u8>,
}

accord::no_relations!();

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const UNPROTECTED: &'static [Column] = &[Column::Nonce];
    const RECORDED: Recorded<Model> = Recorded::Always;
}
