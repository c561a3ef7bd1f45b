//! Deletes rows that have had their time, with their versions.

use sea_orm::{
    DeleteMany, QueryTrait,
    entity::prelude::*,
    sea_query::{Query, SimpleExpr},
};

use super::{Protected, version};
use crate::store::{
    Database, StoreError,
    removal::{DELETED_AT_ONCE, first, some_where},
};

/// Deletes the rows that match the condition, and their versions. Replicas that delete at the same time take different rows.
pub async fn delete_ended<E: Protected>(db: &Database, condition: SimpleExpr) -> Result<(), StoreError> {
    delete::<E>(db, || some_where(condition.clone())).await
}

/// Deletes every row of a table, also those with a wrong MAC, and their versions.
pub async fn delete_all<E: Protected>(db: &Database) -> Result<(), StoreError> {
    delete::<E>(db, first).await
}

/// Deletes rows, [`DELETED_AT_ONCE`] in a transaction, until there are no more.
async fn delete<E: Protected>(db: &Database, some: impl Fn() -> DeleteMany<E>) -> Result<(), StoreError> {
    let name = version::named::<E>(db.backend());
    loop {
        let tx = db.write().await?;
        let mut rows = some().into_query();
        rows.returning(Query::returning().expr(name.clone()));
        let deleted = Box::pin(tx.query_all(&rows)).await?;
        let names = deleted.iter().map(|row| row.try_get_by_index(0));
        let names = names.collect::<Result<Vec<String>, _>>()?;
        let is_last = (names.len() as u64) < DELETED_AT_ONCE;
        version::remove(&tx, names).await?;
        tx.commit().await?;
        if is_last {
            return Ok(());
        }
    }
}
