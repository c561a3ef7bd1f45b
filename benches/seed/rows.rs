//! Rows in bulk.

use accord::store::Database;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel};

use crate::progress::Progress;

/// Rows in one insert: SQLite allows 32,766 parameters.
const ROWS: usize = 1_000;
/// Inserts in one transaction.
const INSERTS: usize = 20;

/// Inserts rows as they are made; `progress` hears of each, if it wants to.
pub async fn insert<A>(
    db: &Database,
    rows: impl Iterator<Item = A>,
    progress: Option<&Progress>,
) -> anyhow::Result<()>
where
    A: ActiveModelTrait + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
{
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let tx = db.write().await?;
        for _ in 0..INSERTS {
            let some: Vec<A> = rows.by_ref().take(ROWS).collect();
            let count = some.len() as u64;
            if count == 0 {
                break;
            }
            A::Entity::insert_many(some).exec_without_returning(&tx).await?;
            if let Some(progress) = progress {
                progress.advance(count, None);
            }
        }
        tx.commit().await?;
    }
    Ok(())
}
