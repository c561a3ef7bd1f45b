//! Deletes rows that are no longer needed, beside other writers.

use sea_orm::{
    ColumnTrait, DeleteMany, EntityTrait, Iterable, PrimaryKeyToColumn, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, Select,
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
        deleted = some_where::<E>(condition.clone()).exec(&tx).await?.rows_affected;
        tx.commit().await?;
        all += deleted;
    }
    Ok(all)
}

/// Returns the deletion of at most [`DELETED_AT_ONCE`] rows that match the condition.
pub(super) fn some_where<E: EntityTrait>(condition: SimpleExpr) -> DeleteMany<E> {
    let keys: Vec<_> = E::PrimaryKey::iter().map(|key| key.into_column()).collect();
    let rows = E::find()
        .select_only()
        .columns(keys.iter().copied())
        .filter(condition)
        .limit(DELETED_AT_ONCE)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
    of_keys(rows)
}

/// Returns the deletion of the first [`DELETED_AT_ONCE`] rows, in the order of the primary key: however many were deleted before,
/// the next ones are found at once. Waits for rows that others have locked.
pub(super) fn first<E: EntityTrait>() -> DeleteMany<E> {
    let mut keys = E::find().select_only().limit(DELETED_AT_ONCE);
    for key in E::PrimaryKey::iter() {
        keys = keys.column(key.into_column()).order_by_asc(key.into_column());
    }
    of_keys(keys.lock_exclusive())
}

/// Makes room for rows that get the numbers after `counted`, up to `last`. The counter is locked, so that nobody with the keys has
/// written a row there: one that somebody else has put there goes. Returns whether there was one.
///
/// # Errors
/// [`StoreError::Altered`] if a row `is_ours`, written by a holder of the keys: then it is the counter that somebody has put back.
pub(super) async fn delete_forged<E: EntityTrait>(
    tx: &Transaction,
    number: E::Column,
    (counted, last): (i64, i64),
    is_ours: impl Fn(&E::Model) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let is_beyond = number.gt(counted).and(number.lte(last));
    let found = Box::pin(E::find().filter(is_beyond.clone()).all(tx)).await?;
    for row in &found {
        if is_ours(row)? {
            return Err(StoreError::Altered("change_counter"));
        }
    }
    if !found.is_empty() {
        Box::pin(E::delete_many().filter(is_beyond).exec(tx)).await?;
        let table = E::default().table_name();
        tracing::error!(
            table,
            "rows that somebody without the keys had put beyond the counter were removed"
        );
    }
    Ok(!found.is_empty())
}

/// Returns the deletion of the rows whose keys a query returns.
fn of_keys<E: EntityTrait>(keys: Select<E>) -> DeleteMany<E> {
    let columns = E::PrimaryKey::iter().map(|key| Expr::col(key.into_column()));
    E::delete_many().filter(Expr::tuple(columns).in_subquery(keys.into_query()))
}
