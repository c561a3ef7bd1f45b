//! Applies a service's migrations, once, however many replicas start together. Knows no table but
//! its lock and the migrator's own record.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, DatabaseBackend, ExprTrait};
use sea_orm_migration::{
    IntoSchemaManagerConnection, MigratorTrait, SchemaManager,
    prelude::{ColumnDef, Expr, OnConflict, Query, Table},
};

use super::{Database, StoreError};

const LOCK_TABLE: &str = "migration_lock";
/// Tries to create the lock table: PostgreSQL's CREATE TABLE IF NOT EXISTS fails when it is raced.
const LOCK_ATTEMPTS: usize = 5;

impl Database {
    /// Applies all pending migrations of `M` in one transaction, under a lock: of racing replicas
    /// one migrates and the others find nothing left to do.
    ///
    /// A database that knows newer migrations than this program is left alone, so that an older
    /// replica may restart while a newer version rolls out.
    ///
    /// # Errors
    /// What the database says; the transaction is then rolled back as a whole.
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), StoreError> {
        if self.is_migrated::<M>().await? {
            return Ok(());
        }
        self.create_lock().await?;
        let tx = self.write().await?;
        let mut lock = Query::select();
        lock.column("id")
            .from(LOCK_TABLE)
            .and_where(Expr::col("id").eq(1));
        if tx.get_database_backend() == DatabaseBackend::Postgres {
            lock.lock_exclusive();
        }
        tx.query_one(&lock)
            .await?
            .ok_or(StoreError::Corrupt("the migration lock is missing"))?;
        if !pending::<M>(&tx).await?.is_empty() {
            M::up(&tx, None).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Whether every migration of `M` has been applied. Only reads.
    ///
    /// # Errors
    /// What the database says.
    pub async fn is_migrated<M: MigratorTrait>(&self) -> Result<bool, StoreError> {
        Ok(pending::<M>(self.read()).await?.is_empty())
    }

    async fn create_lock(&self) -> Result<(), StoreError> {
        let mut attempt = 1;
        loop {
            match self.try_create_lock().await {
                // PostgreSQL reports the race as a duplicate type or relation name.
                Err(StoreError::Conflict | StoreError::Database(_)) if attempt < LOCK_ATTEMPTS => {
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn try_create_lock(&self) -> Result<(), StoreError> {
        let tx = self.write().await?;
        let table = Table::create()
            .table(LOCK_TABLE)
            .if_not_exists()
            .col(ColumnDef::new("id").integer().not_null().primary_key())
            .to_owned();
        tx.execute(&table).await?;
        let row = Query::insert()
            .into_table(LOCK_TABLE)
            .columns(["id"])
            .values_panic([1.into()])
            .on_conflict(OnConflict::column("id").do_nothing().to_owned())
            .to_owned();
        tx.execute(&row).await?;
        Ok(tx.commit().await?)
    }
}

/// Names of the migrations of `M` that the database has no record of.
async fn pending<'c, M: MigratorTrait>(
    conn: impl IntoSchemaManagerConnection<'c>,
) -> Result<BTreeSet<String>, StoreError> {
    let manager = SchemaManager::new(conn);
    let mut names: BTreeSet<String> = M::migrations()
        .iter()
        .map(|migration| migration.name().to_owned())
        .collect();
    let record = M::migration_table_name();
    if !manager.has_table(record.to_string()).await? {
        return Ok(names);
    }
    let applied = Query::select().column("version").from(record).to_owned();
    for row in manager.get_connection().query_all(&applied).await? {
        names.remove(&row.try_get::<String>("", "version")?);
    }
    Ok(names)
}
