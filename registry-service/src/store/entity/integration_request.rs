//! Rows of `integration_requests`: an integration request.

use accord::store::rows::{Protected, Recorded};
use sea_orm::entity::prelude::*;

/// An integration request.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "integration_requests")]
pub struct Model {
    /// `irq_...`
    #[sea_orm(primary_key, auto_increment = false)]
    pub integration_request_id: String,
    /// The request, an object.
    pub content: Json,
    /// `submitted`, `approved`, `rejected` or `registered`.
    pub state: String,
    /// Empty unless rejected.
    pub rejection_reason: String,
    /// The person who submitted it.
    pub submitter: String,
    /// The operator who submitted it: one of that person's credentials.
    pub submitted_by: String,
    /// The operator who approved it; `None` before.
    pub approved_by: Option<String>,
    /// The client that was registered from it, or that it amends.
    pub client_id: Option<String>,
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
}
