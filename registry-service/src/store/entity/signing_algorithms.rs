//! The row of `signing_algorithms`: by which algorithms token-service signs.

use sea_orm::entity::prelude::*;

/// By which algorithms token-service signs access tokens. There is one row.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "signing_algorithms")]
pub struct Model {
    /// 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// Their names, sorted, with a space between them; empty before the first report.
    pub algorithms: String,
}

accord::no_relations!();
