//! Rows of `callers`: an operator or a workload.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// An operator or a workload.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "callers")]
pub struct Model {
    /// `opr_...` or `wkl_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub caller_id: String,
    /// `operator` or `workload`.
    pub caller_type: String,
    /// Unique among live callers of the type.
    pub name: String,
    /// An operator's roles, separated by commas, or a workload's kind.
    pub authority: String,
    /// SHA-256 of the bearer token; `None` for a caller with a certificate.
    pub token_hash: Option<Vec<u8>>,
    /// The name in the client certificate, unique among live callers; `None` for a caller with a token.
    pub certificate_name: Option<String>,
    /// The person behind an operator: operators of one person count as one. A workload has none.
    pub person: String,
    /// The person who added it.
    pub created_by: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
    /// Shows that a holder of the keys has written the row.
    pub mac: Vec<u8>,
}

accord::no_relations!();

impl Protected for Entity {
    const MAC: Column = Column::Mac;
    const RECORDED: Recorded<Model> = Recorded::Always;
    const NOUNS: &'static [&'static str] = &["operator", "workload"];
}
