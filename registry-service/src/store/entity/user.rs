//! Rows of `users`: a tenant's user, with a keyed hash of the account name.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// A tenant's user, with a keyed hash of the account name.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// `usr_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: String,
    /// HMAC-SHA-256 of the normalised account name.
    pub name_hash: Vec<u8>,
    /// Version of the key of that hash.
    pub name_key_version: i32,
    /// Version of the normalisation rules.
    pub name_rules_version: i32,
    /// Display name that identifies nobody.
    pub label: String,
    /// Whether the user may grant consent.
    pub tenant_admin: bool,
    /// `active` or `deactivated`.
    pub state: String,
    /// argon2id in PHC form. Null before enrolment and after a reset.
    pub password_hash: Option<String>,
    /// Version of the pepper of that hash.
    pub pepper_version: Option<i32>,
    /// Feed position of the last deactivation; 0 if none.
    pub tokens_ended_seq: i64,
    /// Feed position of the last deactivation or password reset; 0 if none.
    pub sessions_ended_seq: i64,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Unix milliseconds.
    pub updated_at: i64,
    /// Shows that a holder of the keys has written the row.
    pub mac: Vec<u8>,
}

accord::no_relations!();

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
    const NOUNS: &'static [&'static str] = &["user"];
}
