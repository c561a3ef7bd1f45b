//! Rows of `enrolments`: a one-time enrolment link.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A one-time enrolment link.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "enrolments")]
pub struct Model {
    /// SHA-256 of the enrolment token.
    #[sea_orm(primary_key, auto_increment = false)]
    pub token_hash: Vec<u8>,
    /// The tenant.
    pub tenant_id: String,
    /// The Tenant Admin.
    pub user_id: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When a password was chosen with it.
    pub used_at: Option<i64>,
    /// MAC of the request id that used it.
    pub used_by: Option<Vec<u8>>,
    /// When a newer link replaced it, or five wrong codes ended it.
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
    const RECORDED: Recorded<Model> = Recorded::Always;
}
