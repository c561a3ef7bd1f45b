//! Rows that confer authority, such as clients, secrets and grants: each carries a MAC, so that whoever can write the database
//! but holds no key can mint nothing ([decision 74](../../docs/decisions/0074-macs-over-rows.md)).
//!
//! A row is read in one of two ways. [`ProtectedRows::read_one`] and its likes return [`Authentic`] rows, whose MACs were
//! checked. [`ProtectedRows::lock_one`] and its likes return [`Locked`] rows, which may be changed and saved: nobody else changes
//! them until the transaction ends. What converts rows to the types of a service takes a [`Checked`] one, so that a read
//! without a check does not compile.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use sea_orm::{
    Condition, IntoActiveModel, Iterable, PrimaryKeyToColumn, QueryOrder, QuerySelect, entity::prelude::*,
    sea_query::Expr,
};
use subtle::ConstantTimeEq;

use super::{Keyed, Pool, StoreError, Transaction, audit::RowVersion};
use crate::keys::{DataKey, Keyring};

/// The purpose of the data key.
pub const KEYRING_PURPOSE: &str = "row";

/// The version of the form of MACs, the first byte of each.
const FORM: u8 = 1;
const MAC_BYTES: usize = 32;
/// The form, and the version of the key.
const HEAD_BYTES: usize = 5;

/// A table whose rows carry a MAC, in a column of bytes: the version of its form, that of the data key (4 bytes), and HMAC-SHA-256 over
/// the table's name and each column's name and value.
pub trait Protected: EntityTrait<Model: IntoActiveModel<Self::ActiveModel>> {
    /// The column of the MAC.
    const MAC: Self::Column;
    /// The columns that change with use and confer nothing, such as the time of the last use. No MAC covers them.
    const UNPROTECTED: &'static [Self::Column] = &[];

    /// Returns whether the event of a change names this row, so that a verification notices an older row that was put back, or a
    /// removed one. It must not if the row may change, or go, without an event of its own.
    fn is_recorded(row: &Self::Model) -> bool;
}

/// Returns the version of a row.
fn version<E: Protected>(row: &E::Model) -> Result<RowVersion, StoreError> {
    let mut name = E::default().table_name().to_owned();
    for column in primary_key::<E>() {
        name.push('/');
        match row.get(column) {
            Value::String(Some(text)) => name.push_str(&text),
            Value::Bytes(Some(bytes)) => name.push_str(&hex::encode(bytes)),
            _ => return Err(StoreError::Corrupt("a key of a type that no event names")),
        }
    }
    Ok(RowVersion {
        row: name,
        mac: recorded_mac::<E>(row)?,
        before: None,
    })
}

/// Returns the part of a row's MAC that events hold.
fn recorded_mac<E: Protected>(row: &E::Model) -> Result<[u8; 16], StoreError> {
    let altered = StoreError::Altered(E::default().table_name());
    match row.get(E::MAC) {
        Value::Bytes(Some(mac)) => {
            let mac = mac.get(HEAD_BYTES..).and_then(|mac| mac.first_chunk());
            mac.copied().ok_or(altered)
        }
        _ => Err(altered),
    }
}

/// A table whose rows are named by events.
#[derive(Clone, Copy)]
pub struct RowTable {
    /// The name.
    pub(in crate::store) name: &'static str,
    /// Reads the versions of all rows, a page at a time.
    pub(in crate::store) versions: Versions,
}

/// Reads the versions of a table's rows, and hands each on.
type Versions =
    for<'a> fn(&'a Pool, &'a mut (dyn FnMut(RowVersion) + Send)) -> BoxFuture<'a, Result<(), StoreError>>;

impl RowTable {
    /// Returns the table of an entity.
    pub fn of<E: Protected>() -> Self {
        Self {
            name: E::default().table_name(),
            versions: |conn, each| Box::pin(versions::<E>(conn, each)),
        }
    }
}

/// How many rows are read at a time.
const PAGE: u64 = 1_000;

/// Reads the versions of all rows. With keys at hand it checks their MACs.
async fn versions<E: Protected>(
    conn: &Pool,
    each: &mut (dyn FnMut(RowVersion) + Send),
) -> Result<(), StoreError> {
    let mut last = None::<E::Model>;
    loop {
        let mut page = E::find().limit(PAGE);
        for column in primary_key::<E>() {
            page = page.order_by_asc(column);
        }
        if let Some(last) = &last {
            page = page.filter(after::<E>(last));
        }
        let rows = page.all(conn).await?;
        for row in &rows {
            if conn.keys().is_some() {
                check::<E>(conn, row.clone())?;
            }
            each(version::<E>(row)?);
        }
        last = rows.into_iter().next_back();
        if last.is_none() {
            return Ok(());
        }
    }
}

/// The condition for rows after one, in the order of the primary key.
fn after<E: Protected>(row: &E::Model) -> Condition {
    let mut any = Condition::any();
    let mut equal = Condition::all();
    for column in primary_key::<E>() {
        any = any.add(equal.clone().add(column.gt(row.get(column))));
        equal = equal.add(column.eq(row.get(column)));
    }
    any
}

fn primary_key<E: EntityTrait>() -> impl Iterator<Item = E::Column> {
    E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column)
}

/// A row whose MAC was checked when it was read: an [`Authentic`] or a [`Locked`] one.
pub trait Checked<E: EntityTrait>: Deref<Target = E::Model> {}

impl<E: EntityTrait> Checked<E> for Authentic<E> {}

impl<E: EntityTrait> Checked<E> for Locked<E> {}

/// A row that a holder of the keys has written. Its fields can be read only.
#[derive(Clone, Debug)]
pub struct Authentic<E: EntityTrait>(E::Model);

impl<E: EntityTrait> Authentic<E> {
    /// Returns the row.
    pub fn into_row(self) -> E::Model {
        self.0
    }
}

impl<E: EntityTrait> Deref for Authentic<E> {
    type Target = E::Model;

    fn deref(&self) -> &E::Model {
        &self.0
    }
}

/// An authentic row that is locked until the transaction ends. [`Self::save`] writes what was changed.
#[derive(Debug)]
pub struct Locked<E: EntityTrait> {
    row: E::Model,
    /// The row in the database.
    stored: Authentic<E>,
}

impl<E: EntityTrait> Deref for Locked<E> {
    type Target = E::Model;

    fn deref(&self) -> &E::Model {
        &self.row
    }
}

impl<E: EntityTrait> DerefMut for Locked<E> {
    fn deref_mut(&mut self) -> &mut E::Model {
        &mut self.row
    }
}

impl<E: Protected> Locked<E> {
    /// Writes the row with a new MAC.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if somebody has changed the row all the same.
    pub async fn save(&mut self, tx: &Transaction) -> Result<(), StoreError> {
        protect::<E>(&current(tx)?, &mut self.row)?;
        let is_key = |column: &E::Column| primary_key::<E>().any(|key| key.as_str() == column.as_str());
        let mut update = E::update_many().filter(E::MAC.eq(self.stored.get(E::MAC)));
        for column in E::Column::iter() {
            let value = self.row.get(column);
            update = match is_key(&column) {
                true => update.filter(column.eq(value)),
                false => update.col_expr(column, Expr::value(value)),
            };
        }
        if Box::pin(update.exec(tx)).await?.rows_affected != 1 {
            return Err(StoreError::Busy);
        }
        let before = std::mem::replace(&mut self.stored, Authentic(self.row.clone()));
        record::<E>(tx, Some(&before), &self.row).await
    }

    /// Returns the row as it was read or saved last.
    pub fn stored(&self) -> Authentic<E> {
        self.stored.clone()
    }
}

/// Reads of a table whose rows carry MACs.
///
/// # Errors
/// [`StoreError::Altered`] for a row with a wrong MAC.
pub trait ProtectedRows<E: Protected>: Sized {
    /// Reads at most one row.
    fn read_one(
        self,
        conn: &impl Keyed,
    ) -> impl Future<Output = Result<Option<Authentic<E>>, StoreError>> + Send;

    /// Reads all rows.
    fn read_all(
        self,
        conn: &impl Keyed,
    ) -> impl Future<Output = Result<Vec<Authentic<E>>, StoreError>> + Send;

    /// Reads at most one row, and locks it until the transaction ends.
    fn lock_one(self, tx: &Transaction)
    -> impl Future<Output = Result<Option<Locked<E>>, StoreError>> + Send;

    /// Reads all rows, and locks them until the transaction ends. Order them by their key, so that transactions don't wait for
    /// each other in a circle.
    fn lock_all(self, tx: &Transaction) -> impl Future<Output = Result<Vec<Locked<E>>, StoreError>> + Send;

    /// Does the same, to end what the rows stand for. Leaves out those with a wrong MAC, which nothing accepts: one that
    /// somebody has put there must not keep the others from ending.
    fn lock_authentic(
        self,
        tx: &Transaction,
    ) -> impl Future<Output = Result<Vec<Locked<E>>, StoreError>> + Send;
}

impl<E: Protected> ProtectedRows<E> for Select<E> {
    async fn read_one(self, conn: &impl Keyed) -> Result<Option<Authentic<E>>, StoreError> {
        // Boxed, as the others here: the futures of queries are large, and those of calls hold many.
        let row = Box::pin(self.one(conn)).await?;
        row.map(|row| check(conn, row)).transpose()
    }

    async fn read_all(self, conn: &impl Keyed) -> Result<Vec<Authentic<E>>, StoreError> {
        let rows = Box::pin(self.all(conn)).await?.into_iter();
        rows.map(|row| check(conn, row)).collect()
    }

    async fn lock_one(self, tx: &Transaction) -> Result<Option<Locked<E>>, StoreError> {
        let row = self.lock_exclusive().read_one(tx).await?;
        Ok(row.map(locked))
    }

    async fn lock_all(self, tx: &Transaction) -> Result<Vec<Locked<E>>, StoreError> {
        let rows = self.lock_exclusive().read_all(tx).await?;
        Ok(rows.into_iter().map(locked).collect())
    }

    async fn lock_authentic(self, tx: &Transaction) -> Result<Vec<Locked<E>>, StoreError> {
        let rows = Box::pin(self.lock_exclusive().all(tx)).await?;
        authentic::<E>(tx, rows).map(|rows| rows.into_iter().map(locked).collect())
    }
}

/// Returns the rows with a right MAC, and logs how many others there are.
pub fn authentic<E: Protected>(
    conn: &impl Keyed,
    rows: impl IntoIterator<Item = E::Model>,
) -> Result<Vec<Authentic<E>>, StoreError> {
    let (mut authentic, mut altered) = (Vec::new(), 0);
    for row in rows {
        match check(conn, row) {
            Ok(row) => authentic.push(row),
            Err(StoreError::Altered(_)) => altered += 1,
            Err(error) => return Err(error),
        }
    }
    if altered > 0 {
        let table = E::default().table_name();
        tracing::error!(table, altered, "rows were changed by somebody without the keys");
    }
    Ok(authentic)
}

fn locked<E: Protected>(stored: Authentic<E>) -> Locked<E> {
    Locked {
        row: stored.0.clone(),
        stored,
    }
}

/// Inserts a row with its MAC. What the row has in the column of the MAC does not matter.
///
/// # Errors
/// [`StoreError::Conflict`] if a unique constraint rejects it.
pub async fn insert<E: Protected>(tx: &Transaction, mut row: E::Model) -> Result<Authentic<E>, StoreError> {
    protect::<E>(&current(tx)?, &mut row)?;
    let new = row.clone().into_active_model().reset_all();
    Box::pin(E::insert(new).exec_without_returning(tx)).await?;
    record::<E>(tx, None, &row).await?;
    Ok(Authentic(row))
}

/// Lets the transaction's last event name a row that was written, and the one that was there before. Hand-written statements
/// call it.
pub async fn record<E: Protected>(
    tx: &Transaction,
    before: Option<&E::Model>,
    row: &E::Model,
) -> Result<(), StoreError> {
    if !E::is_recorded(row) {
        return Ok(());
    }
    let mut version = version::<E>(row)?;
    version.before = before.map(recorded_mac::<E>).transpose()?;
    tx.wrote(version).await;
    Ok(())
}

/// Returns the key for new MACs.
///
/// # Errors
/// [`StoreError::Corrupt`] before a keyring was opened: no row is written without a MAC.
pub fn current(conn: &impl Keyed) -> Result<DataKey, StoreError> {
    Ok(keyring(conn)?.current(KEYRING_PURPOSE)?.clone())
}

/// Sets the MAC of a row.
pub fn protect<E: Protected>(key: &DataKey, row: &mut E::Model) -> Result<(), StoreError> {
    let version = key.version().to_be_bytes();
    let mac = [&[FORM][..], &version, &mac::<E>(key, row)?].concat();
    row.try_set(E::MAC, mac.into())?;
    Ok(())
}

/// Checks the MAC of a row that a hand-written statement has read.
///
/// # Errors
/// [`StoreError::Altered`], [`StoreError::Key`] for a version of the key that this replica does not have.
pub fn check<E: Protected>(conn: &impl Keyed, row: E::Model) -> Result<Authentic<E>, StoreError> {
    let altered = || StoreError::Altered(E::default().table_name());
    let Value::Bytes(Some(stored)) = row.get(E::MAC) else {
        return Err(altered());
    };
    let (head, stored) = stored.split_last_chunk::<MAC_BYTES>().ok_or_else(altered)?;
    let [FORM, version @ ..] = head else {
        return Err(altered());
    };
    let version = version
        .try_into()
        .map(i32::from_be_bytes)
        .map_err(|_| altered())?;
    // Not every replica that lacks a version meets a forgery.
    let keyring = keyring(conn)?;
    let expected = mac::<E>(keyring.require(KEYRING_PURPOSE, version)?, &row)?;
    match bool::from(stored.ct_eq(&expected)) {
        true => Ok(Authentic(row)),
        false => Err(altered()),
    }
}

fn keyring(conn: &impl Keyed) -> Result<Arc<Keyring>, StoreError> {
    conn.keys().ok_or(StoreError::Corrupt("no key protects rows"))
}

fn mac<E: Protected>(key: &DataKey, row: &E::Model) -> Result<[u8; MAC_BYTES], StoreError> {
    let is = |column: &E::Column, other: &E::Column| column.as_str() == other.as_str();
    let is_covered =
        |column: &E::Column| !is(column, &E::MAC) && !E::UNPROTECTED.iter().any(|other| is(column, other));
    let mut content = Vec::with_capacity(512);
    for column in E::Column::iter().filter(is_covered) {
        append(&mut content, Some(column.as_str().as_bytes()));
        append_value(&mut content, row.get(column))?;
    }
    Ok(key.hmac(&[b"row", E::default().table_name().as_bytes(), &content]))
}

fn append_value(content: &mut Vec<u8>, value: Value) -> Result<(), StoreError> {
    match value {
        Value::Bool(value) => append(
            content,
            value
                .map(|value| [u8::from(value)])
                .as_ref()
                .map(<[u8; 1]>::as_slice),
        ),
        Value::Int(value) => append(
            content,
            value.map(i32::to_be_bytes).as_ref().map(<[u8; 4]>::as_slice),
        ),
        Value::BigInt(value) => append(
            content,
            value.map(i64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice),
        ),
        Value::String(value) => append(content, value.as_deref().map(str::as_bytes)),
        Value::Bytes(value) => append(content, value.as_deref()),
        Value::Json(value) => {
            let text = value.map(|mut value| {
                // The order depends on the database, and on a feature of the crate.
                value.sort_all_objects();
                value.to_string()
            });
            append(content, text.as_deref().map(str::as_bytes));
        }
        _ => return Err(StoreError::Corrupt("a column of a type that no MAC covers")),
    }
    Ok(())
}

/// Appends a value so that no two lists of values have the same bytes.
fn append(content: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value else {
        return content.push(0);
    };
    content.push(1);
    content.extend_from_slice(&(value.len() as u64).to_be_bytes());
    content.extend_from_slice(value);
}

#[cfg(test)]
#[path = "tests/rows.rs"]
mod tests;
