//! Applies a service's migrations once, however many replicas start together. Knows only its lock's table and the
//! migrator's.

use std::collections::BTreeSet;

use futures_util::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DbErr, ExprTrait, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use sea_orm_migration::{
    IntoSchemaManagerConnection, MigratorTrait, SchemaManager,
    prelude::{ColumnDef, Expr, Index, IndexCreateStatement, OnConflict, Query, Table},
    schema::integer,
};

use super::{Database, StoreError, Transaction};

const LOCK_TABLE: &str = "migration_lock";
/// The row that is locked.
const LOCK: i32 = 1;
/// The row that exists while a new epoch is unfinished.
const UNFINISHED_EPOCH: i32 = 2;
/// A table that every service has, whatever its migrations are called.
pub(super) const COUNTER_TABLE: &str = "change_counter";
/// How many versions a schema may be newer than the program that serves from it. Its version is the number of applied
/// migrations.
const MOST_NEWER: usize = 1;
/// The settings of the transaction that holds the lock of migrations: it waits for that of another replica, and is idle
/// while the migrations run. Behind a pooler the session's settings may be those of another client.
const HOLD_LOCK: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
    SET LOCAL idle_in_transaction_session_timeout = 0";
/// The settings of a migration's transaction: it waits for a lock at most three seconds.
const MIGRATE: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '3s'; \
    SET LOCAL idle_in_transaction_session_timeout = '30s'";
/// How often the lock table's creation is tried: PostgreSQL's CREATE TABLE IF NOT EXISTS fails in a race.
const LOCK_ATTEMPTS: usize = 5;

impl Database {
    /// Applies all pending migrations of `M` under a lock: of racing replicas one migrates, and the others find nothing
    /// left to do.
    ///
    /// Each migration is a transaction of its own, on SQLite one for all. On PostgreSQL other replicas write meanwhile, so
    /// a migration waits for their locks at most three seconds, because everybody else waits behind it; and one whose
    /// `use_transaction` returns false runs outside of a transaction, as [`create_index_beside_writers`] needs.
    ///
    /// Accepts a database whose schema is one version newer, so that an older replica can restart while a newer version
    /// rolls out. Rejects one that is newer still, and one with older migrations that `M` does not know.
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), StoreError> {
        if self.is_migrated::<M>().await? {
            return Ok(());
        }
        self.create_lock().await?;
        let schema = self.schema().await?;
        let tx = schema.begin_with_options(immediate()).await?;
        if self.backend() == DatabaseBackend::Postgres {
            tx.execute_unprepared(HOLD_LOCK).await?;
        }
        let lock = Query::select()
            .column("id")
            .from(LOCK_TABLE)
            .and_where(Expr::col("id").eq(LOCK))
            .lock_exclusive()
            .to_owned();
        let locked = tx.query_one(&lock).await?;
        locked.ok_or(StoreError::Corrupt("the migration lock is missing"))?;
        let pending = pending::<M>(&tx).await?;
        match self.backend() {
            // There is one writer, which holds the lock.
            DatabaseBackend::Sqlite if !pending.is_empty() => M::up(&tx, None).await?,
            DatabaseBackend::Sqlite => {}
            _ => self.migrate_beside_writers::<M>(&pending).await?,
        }
        tx.commit().await?;
        Ok(schema.close().await?)
    }

    async fn migrate_beside_writers<M: MigratorTrait>(
        &self,
        pending: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let schema = self.schema().await?;
        for migration in M::migrations() {
            if !pending.contains(migration.name()) {
                continue;
            }
            if migration.use_transaction() == Some(false) {
                M::up(&schema, Some(1)).await?;
            } else {
                let tx = schema.begin().await?;
                tx.execute_unprepared(MIGRATE).await?;
                M::up(&tx, Some(1)).await?;
                tx.commit().await?;
            }
        }
        Ok(schema.close().await?)
    }

    /// Returns whether every migration of `M` has been applied. Only reads.
    pub async fn is_migrated<M: MigratorTrait>(&self) -> Result<bool, StoreError> {
        let schema = self.schema().await?;
        let pending = pending::<M>(&schema).await?;
        schema.close().await?;
        Ok(pending.is_empty())
    }

    /// Returns whether a service of Accord uses the database. Only reads.
    pub async fn has_tables(&self) -> Result<bool, StoreError> {
        let schema = self.schema().await?;
        let has_tables = SchemaManager::new(&schema).has_table(COUNTER_TABLE).await?;
        schema.close().await?;
        Ok(has_tables)
    }

    async fn create_lock(&self) -> Result<(), StoreError> {
        for _ in 1..LOCK_ATTEMPTS {
            match self.try_create_lock().await {
                // PostgreSQL reports the race as a duplicate type or relation name.
                Err(StoreError::Conflict | StoreError::Database(_)) => {}
                other => return other,
            }
        }
        self.try_create_lock().await
    }

    async fn try_create_lock(&self) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let table = Table::create()
            .table(LOCK_TABLE)
            .if_not_exists()
            .col(integer("id").primary_key())
            .to_owned();
        tx.execute(&table).await?;
        insert_row(&tx, LOCK).await?;
        tx.commit().await
    }
}

/// Inserts a row, unless it is there.
async fn insert_row(tx: &Transaction, id: i32) -> Result<(), StoreError> {
    let row = Query::insert()
        .into_table(LOCK_TABLE)
        .columns(["id"])
        .values_panic([id.into()])
        .on_conflict(OnConflict::column("id").do_nothing().to_owned())
        .to_owned();
    tx.execute(&row).await?;
    Ok(())
}

/// Marks a new epoch as unfinished: ending what the copy holds takes several transactions, and nothing may serve in between.
pub async fn mark_epoch_unfinished(tx: &Transaction) -> Result<(), StoreError> {
    insert_row(tx, UNFINISHED_EPOCH).await
}

/// Returns whether a new epoch was begun and is not finished.
pub async fn is_epoch_unfinished(conn: &impl ConnectionTrait) -> Result<bool, StoreError> {
    let mark = Query::select()
        .column("id")
        .from(LOCK_TABLE)
        .and_where(Expr::col("id").eq(UNFINISHED_EPOCH))
        .to_owned();
    Ok(conn.query_one(&mark).await?.is_some())
}

/// Removes the mark of [`mark_epoch_unfinished`].
pub async fn mark_epoch_finished(tx: &Transaction) -> Result<(), StoreError> {
    let mark = Query::delete()
        .from_table(LOCK_TABLE)
        .and_where(Expr::col("id").eq(UNFINISHED_EPOCH))
        .to_owned();
    tx.execute(&mark).await?;
    Ok(())
}

/// The first statement of a migration's transaction takes the write lock of SQLite.
fn immediate() -> TransactionOptions {
    TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..Default::default()
    }
}

/// Returns the names of the migrations of `M` that are not applied.
///
/// # Errors
/// [`StoreError::OlderBuild`] if an applied migration is unknown to `M` and older than its newest one;
/// [`StoreError::NewerSchema`] if more than [`MOST_NEWER`] are unknown and newer;
/// [`StoreError::OtherService`] if there are tables, and no migration of `M` created them.
async fn pending<'c, M: MigratorTrait>(
    conn: impl IntoSchemaManagerConnection<'c>,
) -> Result<BTreeSet<String>, StoreError> {
    let manager = SchemaManager::new(conn);
    let migrations = M::migrations();
    let mut names: BTreeSet<_> = migrations.iter().map(|m| m.name().to_owned()).collect();
    let record = M::migration_table_name();
    if !manager.has_table(record.to_string()).await? {
        // All tables are created in one transaction with the record.
        return match manager.has_table(COUNTER_TABLE).await? {
            true => Err(StoreError::OtherService),
            false => Ok(names),
        };
    }
    let applied = Query::select().column("version").from(record).to_owned();
    let newest = names.last().cloned();
    let mut newer = 0;
    for row in manager.get_connection().query_all(&applied).await? {
        let version: String = row.try_get("", "version")?;
        if !names.remove(&version) {
            if Some(version) < newest {
                return Err(StoreError::OlderBuild);
            }
            newer += 1;
        }
    }
    if newer > MOST_NEWER {
        return Err(StoreError::NewerSchema);
    }
    Ok(names)
}

/// Creates a table with the primary key `key`.
///
/// The future does not hold the columns: that of a migration, which creates many tables, would overflow the stack of a thread.
pub fn create_table<'a>(
    manager: &'a SchemaManager<'_>,
    name: &'static str,
    key: &[&'static str],
    columns: impl IntoIterator<Item = ColumnDef>,
) -> BoxFuture<'a, Result<(), DbErr>> {
    let mut table = Table::create();
    let mut primary_key = Index::create();
    for column in columns {
        table.col(column);
    }
    for column in key {
        primary_key.col(*column);
    }
    let table = table.table(name).primary_key(&mut primary_key).to_owned();
    Box::pin(manager.create_table(table))
}

/// Creates an index.
pub fn create_index<'a>(
    manager: &'a SchemaManager<'_>,
    name: &str,
    table: &'static str,
    columns: &[&'static str],
) -> BoxFuture<'a, Result<(), DbErr>> {
    Box::pin(manager.create_index(index(name, table, columns)))
}

/// Creates an index of a table that may be large, while others write to it. For a migration whose `use_transaction`
/// returns false.
///
/// PostgreSQL leaves an invalid index behind when it is interrupted, which the next attempt replaces. SQLite builds the
/// index as any other.
pub async fn create_index_beside_writers(
    manager: &SchemaManager<'_>,
    name: &str,
    table: &'static str,
    columns: &[&'static str],
) -> Result<(), DbErr> {
    let invalid = Index::drop().name(name).if_exists().concurrently().to_owned();
    manager.drop_index(invalid).await?;
    manager
        .create_index(index(name, table, columns).concurrently().to_owned())
        .await
}

/// Creates an index that allows no two rows with the same values.
pub fn create_unique_index<'a>(
    manager: &'a SchemaManager<'_>,
    name: &str,
    table: &'static str,
    columns: &[&'static str],
) -> BoxFuture<'a, Result<(), DbErr>> {
    let index = index(name, table, columns).unique().to_owned();
    Box::pin(manager.create_index(index))
}

fn index(name: &str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    for column in columns {
        index.col(*column);
    }
    index.name(name).table(table).to_owned()
}

#[cfg(test)]
#[path = "tests/migration.rs"]
mod tests;
