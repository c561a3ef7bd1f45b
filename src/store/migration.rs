//! Applies a service's migrations once, however many replicas start together. Knows only its lock's table and the
//! migrator's.

use std::collections::BTreeSet;

use sea_orm::{
    ConnectionTrait, DbErr, ExprTrait, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::{
    IntoSchemaManagerConnection, MigratorTrait, SchemaManager,
    prelude::{ColumnDef, ConditionalStatement, Expr, Index, IndexCreateStatement, OnConflict, Query, Table},
    schema::integer,
};

use super::{Database, StoreError};

const LOCK_TABLE: &str = "migration_lock";
/// A table that every service has, whatever its migrations are called.
pub(super) const COUNTER_TABLE: &str = "change_counter";
/// How often the lock table's creation is tried: PostgreSQL's CREATE TABLE IF NOT EXISTS fails in a race.
const LOCK_ATTEMPTS: usize = 5;

impl Database {
    /// Applies all pending migrations of `M` in one transaction, under a lock: of racing replicas one migrates, and
    /// the others find nothing left to do.
    ///
    /// Accepts a database with newer migrations, so that an older replica can restart while a newer version rolls
    /// out. Rejects one with older migrations that `M` does not know.
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), StoreError> {
        if self.is_migrated::<M>().await? {
            return Ok(());
        }
        self.create_lock().await?;
        let schema = self.schema().await?;
        let tx = schema.begin_with_options(immediate()).await?;
        let lock = Query::select()
            .column("id")
            .from(LOCK_TABLE)
            .and_where(Expr::col("id").eq(1))
            .lock_exclusive()
            .to_owned();
        let locked = tx.query_one(&lock).await?;
        locked.ok_or(StoreError::Corrupt("the migration lock is missing"))?;
        if !pending::<M>(&tx).await?.is_empty() {
            M::up(&tx, None).await?;
        }
        tx.commit().await?;
        Ok(schema.close().await?)
    }

    /// Returns whether every migration of `M` has been applied. Only reads.
    pub async fn is_migrated<M: MigratorTrait>(&self) -> Result<bool, StoreError> {
        let schema = self.schema().await?;
        let pending = pending::<M>(&schema).await?;
        schema.close().await?;
        Ok(pending.is_empty())
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
        let row = Query::insert()
            .into_table(LOCK_TABLE)
            .columns(["id"])
            .values_panic([1.into()])
            .on_conflict(OnConflict::column("id").do_nothing().to_owned())
            .to_owned();
        tx.execute(&row).await?;
        tx.commit().await
    }
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
    for row in manager.get_connection().query_all(&applied).await? {
        let version: String = row.try_get("", "version")?;
        if !names.remove(&version) && Some(version) < newest {
            return Err(StoreError::OlderBuild);
        }
    }
    Ok(names)
}

/// Creates a table with the primary key `key`.
pub async fn create_table(
    manager: &SchemaManager<'_>,
    name: &'static str,
    key: &[&'static str],
    columns: impl IntoIterator<Item = ColumnDef>,
) -> Result<(), DbErr> {
    let mut table = Table::create();
    let mut primary_key = Index::create();
    for column in columns {
        table.col(column);
    }
    for column in key {
        primary_key.col(*column);
    }
    let table = table.table(name).primary_key(&mut primary_key).to_owned();
    manager.create_table(table).await
}

/// Creates an index.
pub async fn create_index(
    manager: &SchemaManager<'_>,
    name: &str,
    table: &'static str,
    columns: &[&'static str],
) -> Result<(), DbErr> {
    manager.create_index(index(name, table, columns)).await
}

/// Creates an index that allows no two rows with the same values.
pub async fn create_unique_index(
    manager: &SchemaManager<'_>,
    name: &str,
    table: &'static str,
    columns: &[&'static str],
) -> Result<(), DbErr> {
    let index = index(name, table, columns).unique().to_owned();
    manager.create_index(index).await
}

/// Creates an index of the rows for which `condition` holds.
pub(super) async fn create_partial_index(
    manager: &SchemaManager<'_>,
    name: &str,
    table: &'static str,
    columns: &[&'static str],
    condition: Expr,
) -> Result<(), DbErr> {
    let index = index(name, table, columns).and_where(condition).to_owned();
    manager.create_index(index).await
}

fn index(name: &str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    for column in columns {
        index.col(*column);
    }
    index.name(name).table(table).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sea_orm_migration::{MigrationName, MigrationTrait};

    use super::*;
    use crate::testing::databases;

    struct Empty(&'static str);

    impl MigrationName for Empty {
        fn name(&self) -> &str {
            self.0
        }
    }

    #[async_trait::async_trait]
    impl MigrationTrait for Empty {
        async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
            Ok(())
        }
    }

    /// The migrations of one build: `FIRST` alone, or `FIRST` and `m3`.
    struct Build<const FIRST: u8, const ADDS: bool>;

    impl<const FIRST: u8, const ADDS: bool> MigratorTrait for Build<FIRST, ADDS> {
        fn migrations() -> Vec<Box<dyn MigrationTrait>> {
            let first = if FIRST == 1 { "m1" } else { "m2" };
            let mut all: Vec<Box<dyn MigrationTrait>> = vec![Box::new(Empty(first))];
            if ADDS {
                all.push(Box::new(Empty("m3")));
            }
            all
        }
    }

    #[tokio::test]
    async fn the_database_of_another_service_is_rejected() {
        for place in databases() {
            let db = place.connect().await;
            let create = format!("CREATE TABLE {COUNTER_TABLE} (id integer)");
            db.read().execute_unprepared(&create).await.unwrap();
            let migrated = db.is_migrated::<Build<1, false>>().await;
            assert!(matches!(migrated, Err(StoreError::OtherService)));
            let rejected = db.migrate::<Build<1, false>>().await.unwrap_err();
            assert!(matches!(rejected, StoreError::OtherService), "{rejected}");
        }
    }

    #[tokio::test]
    async fn the_database_of_an_older_build_is_rejected_and_that_of_a_newer_one_is_not() {
        for place in databases() {
            let db = place.connect().await;
            db.migrate::<Build<1, false>>().await.unwrap();
            let rejected = db.migrate::<Build<2, false>>().await.unwrap_err();
            assert!(matches!(rejected, StoreError::OlderBuild), "{rejected}");
            assert!(rejected.to_string().contains("delete it"), "{rejected}");
            assert!(!db.is_migrated::<Build<1, true>>().await.unwrap());

            db.migrate::<Build<1, true>>().await.unwrap();
            db.migrate::<Build<1, false>>().await.unwrap();
            assert!(
                db.is_migrated::<Build<1, true>>().await.unwrap(),
                "nothing was taken back"
            );
        }
    }
}
