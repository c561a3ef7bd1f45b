//! Deletes rows that are no longer needed, beside other writers.

use sea_orm::{
    EntityTrait, Iterable, PrimaryKeyToColumn, QueryFilter, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait, LockBehavior, LockType, SimpleExpr},
};

use super::{Database, StoreError, Transaction};

/// The most rows that one transaction deletes. More would not be deleted within the time limit of a statement, and hold
/// up other writers on SQLite.
pub const DELETED_AT_ONCE: u64 = 1_000;

/// Deletes the rows that match the condition. Returns how many there were. Replicas that delete at the same time take
/// different rows.
pub async fn delete_where<E: EntityTrait>(db: &Database, condition: SimpleExpr) -> Result<u64, StoreError> {
    let (mut deleted, mut all) = (DELETED_AT_ONCE, 0);
    while deleted == DELETED_AT_ONCE {
        let tx = db.write().await?;
        deleted = delete_some::<E>(&tx, condition.clone()).await?;
        tx.commit().await?;
        all += deleted;
    }
    Ok(all)
}

/// Deletes at most [`DELETED_AT_ONCE`] rows that match the condition. Returns how many there were.
pub(super) async fn delete_some<E: EntityTrait>(
    tx: &Transaction,
    condition: SimpleExpr,
) -> Result<u64, StoreError> {
    let keys: Vec<_> = E::PrimaryKey::iter().map(|key| key.into_column()).collect();
    let rows = E::find()
        .select_only()
        .columns(keys.iter().copied())
        .filter(condition)
        .limit(DELETED_AT_ONCE)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_query();
    let rows = Expr::tuple(keys.iter().map(|key| Expr::col(*key))).in_subquery(rows);
    let deleted = E::delete_many().filter(rows).exec(tx).await?;
    Ok(deleted.rows_affected)
}
