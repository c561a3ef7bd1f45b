//! Rows of `client_tenants`: a tenant that a client may ask for consent.

use sea_orm::entity::prelude::*;

/// A tenant that a client may ask for consent.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "client_tenants")]
pub struct Model {
    /// The tenant.
    #[sea_orm(primary_key, auto_increment = false)]
    pub tenant_id: String,
    /// The client.
    #[sea_orm(primary_key, auto_increment = false)]
    pub client_id: String,
}

accord::no_relations!();
