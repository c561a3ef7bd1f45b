//! Rows of `client_secrets`: a Client Secret, as a hash.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A Client Secret, as a hash.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "client_secrets")]
pub struct Model {
    /// `sec_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub secret_id: String,
    /// The client.
    pub client_id: String,
    /// argon2id in PHC form.
    pub secret_hash: String,
    /// Version of the pepper of that hash.
    pub pepper_version: i32,
    /// Version of the key of its tag.
    pub tag_key_version: i32,
    /// True until its one-time link is opened.
    pub awaiting_claim: bool,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When it expires.
    pub expires_at: Option<i64>,
    /// When it last authenticated the client.
    pub last_used_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// `rotated`, `compromised`, or `unclaimed` if its link ended before it was opened.
    pub revocation_reason: Option<String>,
    /// Shows that a holder of the keys has written the row.
    pub mac: Vec<u8>,
}

accord::no_relations!();

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const UNPROTECTED: &'static [Column] = &[Column::LastUsedAt];
    const RECORDED: Recorded<Model> = Recorded::Always;
    const NOUNS: &'static [&'static str] = &["client_secret"];
}
