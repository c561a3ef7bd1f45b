//! The lease of the sealer: one row.
//!
//! No clock is compared with another one. A candidate that has seen the same holder, without a renewal, for [`LEASE`] of its
//! own monotonic clock takes over. A holder that was only slow finds that out in its next transaction, because the lease has
//! another generation then: [`Lease::renew`] and every commit are conditional on it.

use std::time::{Duration, Instant};

use sea_orm::{ActiveValue::Set, ExprTrait, entity::prelude::*};
use sea_orm_migration::{
    DbErr, SchemaManager,
    prelude::{Expr, OnConflict},
    schema::*,
};

use crate::store::{Database, StoreError, Transaction};

/// How long a lease stays without a renewal.
pub const LEASE: Duration = Duration::from_secs(15);
/// How often a holder renews its lease, and a candidate looks at it.
pub const RENEW_EVERY: Duration = Duration::from_secs(5);

/// The id of the only row.
const ONLY: i32 = 1;

mod row {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "audit_sealer")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        /// Who seals; `None` if the lease is free.
        pub holder: Option<String>,
        /// Counts the holders.
        pub generation: i64,
        /// Counts the renewals of this generation.
        pub renewals: i64,
    }

    crate::no_relations!();
}

use row::Column;

pub(super) async fn create_table(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let columns = [
        integer("id").check(Expr::col("id").eq(ONLY)).to_owned(),
        text_null("holder"),
        big_integer("generation"),
        big_integer("renewals"),
    ];
    crate::store::create_table(manager, "audit_sealer", &["id"], columns).await
}

/// The right to extend the open log. It lasts until another replica takes it, which each transaction checks.
#[derive(Debug)]
pub struct Lease {
    generation: i64,
}

impl Lease {
    /// Returns the number of this lease: each holder has a higher one than those before.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// Renews the lease. Returns false if it has passed to another holder. After an error it may be held or not: every commit is
    /// conditional on it.
    ///
    /// Waits in the queue of writers: on SQLite another connection would poll for the lock of the file.
    pub async fn renew(&self, db: &Database) -> Result<bool, StoreError> {
        self.renew_with(db.writer()).await
    }

    /// Does the same in a transaction. The lease can't pass on until its end.
    pub(in crate::store) async fn lock(&self, tx: &Transaction) -> Result<bool, StoreError> {
        self.renew_with(tx).await
    }

    async fn renew_with(&self, conn: &impl ConnectionTrait) -> Result<bool, StoreError> {
        let renewed = row::Entity::update_many()
            .col_expr(Column::Renewals, Expr::col(Column::Renewals).add(1))
            .filter(Column::Id.eq(ONLY))
            .filter(Column::Generation.eq(self.generation))
            .filter(Column::Holder.is_not_null())
            .exec(conn)
            .await?;
        Ok(renewed.rows_affected == 1)
    }

    /// Gives the lease back, so that the next holder does not wait for its end.
    pub async fn release(self, db: &Database) -> Result<(), StoreError> {
        row::Entity::update_many()
            .col_expr(Column::Holder, Expr::value(Option::<String>::None))
            .filter(Column::Id.eq(ONLY))
            .filter(Column::Generation.eq(self.generation))
            .exec(db.writer())
            .await?;
        Ok(())
    }
}

/// Takes the lease from whoever holds it. Renew it every [`RENEW_EVERY`].
pub(in crate::store) async fn take(db: &Database, holder: &str) -> Result<Lease, StoreError> {
    let tx = db.write().await?;
    end(&tx).await?;
    row::Entity::update_many()
        .col_expr(Column::Holder, Expr::value(holder))
        .col_expr(Column::Renewals, Expr::value(0_i64))
        .filter(Column::Id.eq(ONLY))
        .exec(&tx)
        .await?;
    let row = row::Entity::find_by_id(ONLY).one(&tx).await?;
    let row = row.ok_or(StoreError::Corrupt("the lease of the audit log"))?;
    tx.commit().await?;
    Ok(Lease {
        generation: row.generation,
    })
}

/// Ends the lease of whoever holds it.
pub(super) async fn end(tx: &Transaction) -> Result<(), StoreError> {
    ensure(tx).await?;
    row::Entity::update_many()
        .col_expr(Column::Holder, Expr::value(Option::<String>::None))
        .col_expr(Column::Generation, Expr::col(Column::Generation).add(1))
        .filter(Column::Id.eq(ONLY))
        .exec(tx)
        .await?;
    Ok(())
}

/// A replica that wants the lease.
#[derive(Debug)]
pub struct Election {
    candidate: String,
    /// The lease of another holder, and since when it has been without a renewal.
    seen: Option<(row::Model, Instant)>,
}

impl Election {
    /// Creates a candidate, whose name tells people who seals.
    pub fn new(candidate: impl Into<String>) -> Self {
        Self {
            candidate: candidate.into(),
            seen: None,
        }
    }

    /// Takes the lease if it is free, or if its holder has not renewed it for [`LEASE`]. Call it every [`RENEW_EVERY`].
    pub async fn acquire(&mut self, db: &Database, now: Instant) -> Result<Option<Lease>, StoreError> {
        let found = row::Entity::find_by_id(ONLY).one(db.read()).await?;
        let row = match found {
            Some(row) => row,
            None => {
                let tx = db.write().await?;
                ensure(&tx).await?;
                let row = row::Entity::find_by_id(ONLY).one(&tx).await?;
                tx.commit().await?;
                row.ok_or(StoreError::Corrupt("the lease of the audit log"))?
            }
        };
        if row.holder.is_some() {
            let since = match &self.seen {
                Some((seen, since)) if *seen == row => *since,
                _ => now,
            };
            if now.saturating_duration_since(since) < LEASE {
                self.seen = Some((row, since));
                return Ok(None);
            }
        }
        self.seen = None;
        let generation = row.generation + 1;
        let tx = db.write().await?;
        let taken = row::Entity::update_many()
            .col_expr(Column::Holder, Expr::value(&*self.candidate))
            .col_expr(Column::Generation, Expr::value(generation))
            .col_expr(Column::Renewals, Expr::value(0_i64))
            .filter(Column::Id.eq(ONLY))
            .filter(Column::Generation.eq(row.generation))
            .filter(Column::Renewals.eq(row.renewals))
            .exec(&tx)
            .await?;
        tx.commit().await?;
        Ok((taken.rows_affected == 1).then_some(Lease { generation }))
    }
}

/// Creates the row unless it exists.
async fn ensure(tx: &Transaction) -> Result<(), StoreError> {
    let row = row::ActiveModel {
        id: Set(ONLY),
        holder: Set(None),
        generation: Set(0),
        renewals: Set(0),
    };
    row::Entity::insert(row)
        .on_conflict(OnConflict::column(Column::Id).do_nothing().to_owned())
        .exec_without_returning(tx)
        .await?;
    Ok(())
}
