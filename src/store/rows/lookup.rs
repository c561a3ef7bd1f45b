//! Look-ups of rows that carry MACs.
//!
//! A MAC proves that a row is authentic, not that it is the row that was asked for. Whoever can write the database can also change what
//! its comparisons mean: by an operator of an own schema, or by an index that holds other rows than its definition says. So a
//! look-up compares each row that it gets with each of its conditions once more, in Rust.

use sea_orm::{
    PrimaryKeyTrait, QueryOrder, QuerySelect, QueryTrait, Select,
    entity::prelude::*,
    sea_query::{IntoCondition, IntoValueTuple, SelectStatement},
};

use super::{
    Authentic, Locked, Protected, authentic, check_each_locked, leave_out_altered, locked, matching,
    version::{primary_key, with_versions},
};
use crate::store::{Keyed, StoreError, Transaction};

type Predicate<E> = Box<dyn Fn(&<E as EntityTrait>::Model) -> bool + Send + Sync>;

/// A query for rows that carry MACs. Each of its conditions comes with the same condition in Rust.
///
/// Reads and locks fail with [`StoreError::Altered`] for a row with a wrong MAC, for an older version of a row, and for a row that
/// does not match.
pub struct Lookup<E: Protected> {
    select: Select<E>,
    conditions: Vec<Predicate<E>>,
}

/// Begins the look-ups of a table whose rows carry MACs.
pub trait ProtectedRows: Protected {
    /// Looks up all rows.
    fn look_up() -> Lookup<Self> {
        Lookup {
            select: Self::find(),
            conditions: Vec::new(),
        }
    }

    /// Looks up the row with this primary key.
    fn look_up_by_id<K>(key: K) -> Lookup<Self>
    where
        K: Into<<Self::PrimaryKey as PrimaryKeyTrait>::ValueType>,
    {
        let values = key.into().into_value_tuple();
        let columns = primary_key::<Self>().zip(values);
        columns.fold(Self::look_up(), |lookup, (column, value)| {
            lookup.equal(column, value)
        })
    }
}

impl<E: Protected> ProtectedRows for E {}

impl<E: Protected> Lookup<E> {
    /// Looks up rows that match a condition. `is_match` is the same condition.
    pub fn filter(
        mut self,
        condition: impl IntoCondition,
        is_match: impl Fn(&E::Model) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.select = QueryFilter::filter(self.select, condition);
        self.conditions.push(Box::new(is_match));
        self
    }

    /// Looks up rows that have this value in a column.
    pub fn equal(self, column: E::Column, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.filter(column.eq(value.clone()), move |row| row.get(column) == value)
    }

    /// Looks up rows that have one of these values in a column.
    pub fn one_of<V: Into<Value>>(self, column: E::Column, values: impl IntoIterator<Item = V>) -> Self {
        let values: Vec<Value> = values.into_iter().map(V::into).collect();
        self.filter(column.is_in(values.clone()), move |row| {
            values.contains(&row.get(column))
        })
    }

    /// Looks up rows that have no value in a column.
    pub fn null(self, column: E::Column) -> Self {
        self.filter(column.is_null(), move |row| is_null(&row.get(column)))
    }

    /// Looks up rows that have a value in a column.
    pub fn not_null(self, column: E::Column) -> Self {
        self.filter(column.is_not_null(), move |row| !is_null(&row.get(column)))
    }

    /// Goes on behind a page of a list. Compares nothing: the order of texts is that of the database's collation.
    pub fn behind(mut self, condition: impl IntoCondition) -> Self {
        self.select = QueryFilter::filter(self.select, condition);
        self
    }

    /// Reads at most one row.
    pub async fn read_one(self, conn: &impl Keyed) -> Result<Option<Authentic<E>>, StoreError> {
        Ok(self.limit(1).read_all(conn).await?.pop())
    }

    /// Reads all rows.
    pub async fn read_all(self, conn: &impl Keyed) -> Result<Vec<Authentic<E>>, StoreError> {
        self.read_each(conn).await?.into_iter().collect()
    }

    /// Reads all rows but the altered ones, which nothing accepts.
    pub async fn read_authentic(self, conn: &impl Keyed) -> Result<Vec<Authentic<E>>, StoreError> {
        leave_out_altered(self.read_each(conn).await?)
    }

    async fn read_each(self, conn: &impl Keyed) -> Result<Vec<Result<Authentic<E>, StoreError>>, StoreError> {
        let Self { select, conditions } = self;
        // Boxed, as the others here: the futures of queries are large, and those of calls hold many.
        let rows = match E::RECORDED.is_versioned() {
            true => {
                let query = with_versions(select, conn.get_database_backend());
                Box::pin(query.all(conn)).await?
            }
            false => {
                let rows = Box::pin(select.all(conn)).await?;
                rows.into_iter().map(|row| (row, None)).collect()
            }
        };
        let rows = rows.into_iter().map(|(row, version)| {
            let row = authentic(conn, row, version.as_ref())?;
            matching(|row| is_all::<E>(&conditions, row), row)
        });
        Ok(rows.collect())
    }

    /// Reads at most one row, and locks it until the transaction ends.
    pub async fn lock_one(self, tx: &Transaction) -> Result<Option<Locked<E>>, StoreError> {
        Ok(self.limit(1).lock_all(tx).await?.pop())
    }

    /// Reads all rows, and locks them until the transaction ends. Order them by their key, so that transactions don't wait for
    /// each other in a circle.
    pub async fn lock_all(self, tx: &Transaction) -> Result<Vec<Locked<E>>, StoreError> {
        let rows = self.lock_each(tx).await?.into_iter();
        rows.map(|row| row.map(locked)).collect()
    }

    /// Does the same, to end what the rows stand for. Leaves out altered ones, which nothing accepts: one that somebody has put
    /// there must not keep the others from ending.
    pub async fn lock_authentic(self, tx: &Transaction) -> Result<Vec<Locked<E>>, StoreError> {
        let rows = leave_out_altered(self.lock_each(tx).await?)?;
        Ok(rows.into_iter().map(locked).collect())
    }

    async fn lock_each(self, tx: &Transaction) -> Result<Vec<Result<Authentic<E>, StoreError>>, StoreError> {
        let Self { select, conditions } = self;
        let rows = Box::pin(select.lock_exclusive().all(tx)).await?;
        let rows = check_each_locked::<E>(tx, rows).await?.into_iter();
        let rows = rows.map(|row| matching(|row| is_all::<E>(&conditions, row), row?));
        Ok(rows.collect())
    }
}

fn is_all<E: Protected>(conditions: &[Predicate<E>], row: &E::Model) -> bool {
    conditions.iter().all(|is_match| is_match(row))
}

fn is_null(value: &Value) -> bool {
    *value == value.as_null()
}

impl<E: Protected> QueryTrait for Lookup<E> {
    type QueryStatement = SelectStatement;

    fn query(&mut self) -> &mut SelectStatement {
        QueryTrait::query(&mut self.select)
    }

    fn as_query(&self) -> &SelectStatement {
        self.select.as_query()
    }

    fn into_query(self) -> SelectStatement {
        self.select.into_query()
    }
}

impl<E: Protected> QuerySelect for Lookup<E> {
    type QueryStatement = SelectStatement;

    fn query(&mut self) -> &mut SelectStatement {
        QueryTrait::query(&mut self.select)
    }
}

impl<E: Protected> QueryOrder for Lookup<E> {
    type QueryStatement = SelectStatement;

    fn query(&mut self) -> &mut SelectStatement {
        QueryTrait::query(&mut self.select)
    }
}
