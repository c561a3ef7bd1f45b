//! The comparison of `client_tenants`, by which the clients of a tenant are found, with the rows of clients. No MAC covers it: a
//! client has the tenants of its own row.

use accord::store::{Pool, StoreError};
use sea_orm::{QueryOrder, QuerySelect, QueryTrait, entity::prelude::*, sea_query::ExprTrait};
use serde_json::json;

use super::{Column, Entity, client_tenant as index};

/// How many clients are compared at a time.
const PAGE: u64 = 500;

/// Names the clients that are not found by the tenants of their rows, or by others. One statement reads both, so that they are of
/// the same moment.
pub(in crate::store) async fn differences(conn: &Pool) -> Result<Vec<String>, StoreError> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = Entity::find()
            .select_only()
            .column(Column::ClientId)
            .filter(Column::ClientId.gt(&*after))
            .order_by_asc(Column::ClientId)
            .limit(PAGE);
        let mut both = Entity::find()
            .select_only()
            .columns([Column::ClientId, Column::Tenants])
            .column(index::Column::TenantId)
            .filter(Column::ClientId.in_subquery(page.into_query()))
            .order_by_asc(Column::ClientId);
        let is_of = Expr::col((index::Entity, index::Column::ClientId)).equals((Entity, Column::ClientId));
        QuerySelect::query(&mut both).left_join(index::Entity, is_of);
        let both: Vec<(String, Json, Option<String>)> = both.into_tuple().all(conn).await?;
        let last = both.last().map(|(id, ..)| id.clone());
        let Some(last) = last else { return Ok(found) };
        after = last;
        for client in both.chunk_by(|one, other| one.0 == other.0) {
            let mut indexed: Vec<_> = client.iter().filter_map(|row| row.2.as_deref()).collect();
            indexed.sort_unstable();
            let indexed = json!(indexed);
            if let Some((id, tenants, _)) = client.first().filter(|row| row.1 != indexed) {
                let what = format!("client_tenants says {indexed} of the client {id}, and its row {tenants}");
                found.push(what);
            }
        }
    }
}
