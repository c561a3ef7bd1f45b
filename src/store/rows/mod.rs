//! Rows that confer authority, such as clients, secrets and grants: each carries a MAC, so that whoever can write the database
//! but holds no key can mint nothing ([decision 74](../../docs/decisions/0074-macs-over-rows.md)).
//!
//! A row is read in one of two ways. [`Lookup::read_one`] and its likes return [`Authentic`] rows, whose MACs were
//! checked. [`Lookup::lock_one`] and its likes return [`Locked`] rows, which may be changed and saved: nobody else changes
//! them until the transaction ends. What converts rows to the types of a service takes a [`Checked`] one, so that a read
//! without a check does not compile.

use std::ops::{Deref, DerefMut};

use sea_orm::{
    FromQueryResult, IntoActiveModel, Iterable, QueryOrder, QueryResult, QuerySelect,
    entity::prelude::*,
    sea_query::{self, Expr},
};

use self::{
    mac::{check, columns, row_digest},
    named::is_event_subject,
    version::{compare, primary_key},
};
use super::{Keyed, StoreError, Transaction, audit::RowVersion, removal::delete_forged};
use crate::clock::UnixMillis;

mod batches;
mod ended;
mod lookup;
mod mac;
mod named;
mod table;
pub mod version;
mod written;

pub use batches::{CHANGED_AT_ONCE, change_in_batches};
pub use ended::{delete_all, delete_ended};
pub use lookup::{Lookup, ProtectedRows};
pub use mac::{KEYRING_PURPOSE, current, protect};
pub(in crate::store) use table::StoredRow;
pub use table::{Compare, RenewalOf, RowTable};
pub use written::all_written;

/// A table whose rows carry a MAC, in a column of bytes: the version of its form, that of the data key (4 bytes), and HMAC-SHA-256 over
/// the table's name and each column's name and value.
pub trait Protected: EntityTrait<Model: IntoActiveModel<Self::ActiveModel>> {
    /// The column of the MAC.
    const MAC: Self::Column;
    /// The columns that change with use and confer nothing, such as the time of the last use. No MAC covers them.
    const UNPROTECTED: &'static [Self::Column] = &[];

    /// Which of its rows the event of a change names, so that an older row that was put back is rejected and found by a
    /// verification. It must name none that may change without an event of its own. Keys are texts and bytes.
    const RECORDED: Recorded<Self::Model>;

    /// For a table whose renewals have events and no versions.
    const RENEWAL: Option<RenewalOf<Self::Model>> = None;

    /// The nouns of actions on its rows, `noun.verb`, for a table that [`lock_to_end`] is for.
    const NOUNS: &'static [&'static str] = &[];
}

/// The rows of a table that events name, and whose newest versions are stored.
pub enum Recorded<M> {
    /// None.
    Never,
    /// All. Without its version a row is an altered one, and a removed one is found.
    Always,
    /// Those that have ended. The others change too often, and have no versions. Rows go with their time, without an event, and
    /// their versions with them ([`delete_ended`]).
    AtEnd(fn(&M) -> bool),
}

impl<M> Recorded<M> {
    /// Returns whether rows may have versions.
    pub(in crate::store) fn is_versioned(&self) -> bool {
        !matches!(self, Self::Never)
    }

    fn names(&self, before: Option<&M>, row: &M) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::AtEnd(has_ended) => has_ended(row) || before.is_some_and(has_ended),
        }
    }
}

/// Returns the version of a row.
fn version<E: Protected>(row: &E::Model) -> Result<RowVersion, StoreError> {
    Ok(RowVersion {
        row: version::name::<E>(row)?,
        digest: row_digest::<E>(row, &columns::<E>(row)?)?,
        before: None,
    })
}

/// Limits a query to the next rows after one, in the order of the primary key.
fn next_page<E: Protected>(mut query: Select<E>, last: Option<&E::Model>, size: u64) -> Select<E> {
    for column in primary_key::<E>() {
        query = query.order_by_asc(column);
    }
    if let Some(last) = last {
        query = query.filter(after::<E>(last));
    }
    query.limit(size)
}

/// The condition for rows after one, in the order of the primary key. Both databases find its first row by the key's index, which they
/// do not with the same condition written column by column.
fn after<E: Protected>(row: &E::Model) -> Expr {
    let columns = primary_key::<E>().map(|column| column.into_expr());
    let values = primary_key::<E>().map(|column| Expr::val(row.get(column)));
    sea_query::ExprTrait::gt(Expr::tuple(columns), Expr::tuple(values))
}

/// A row that was checked when it was read: an [`Authentic`] or a [`Locked`] one.
pub trait Checked<E: EntityTrait>: Deref<Target = E::Model> {}

impl<E: EntityTrait> Checked<E> for Authentic<E> {}

impl<E: EntityTrait> Checked<E> for Locked<E> {}

/// A row that a holder of the keys has written, and that is the newest version of itself if it is
/// [recorded](Protected::RECORDED). Its fields can be read only.
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
        note_version::<E>(tx, Some(&before), &self.row)
    }

    /// Returns the row as it was read or saved last.
    pub fn stored(&self) -> Authentic<E> {
        self.stored.clone()
    }
}

/// Locks the row with a key until the transaction ends, in order to revoke or suspend what it describes.
///
/// # Errors
/// [`StoreError::Altered`], also for a row that somebody has removed, with or without its version: an event may still name it.
/// Caches may hold it, so the caller must publish its end.
pub async fn lock_to_end<E: Protected>(
    tx: &Transaction,
    key: &[&str],
) -> Result<Option<Locked<E>>, StoreError> {
    let key_columns = primary_key::<E>().zip(key);
    let row = key_columns.fold(E::look_up(), |row, (column, value)| row.equal(column, *value));
    match row.lock_one(tx).await? {
        Some(row) => Ok(Some(row)),
        None if version::is_known::<E>(tx, key).await? || is_event_subject(tx, E::NOUNS, key).await? => {
            Err(StoreError::Altered(E::default().table_name()))
        }
        None => Ok(None),
    }
}

/// Checks a row and its version.
fn authentic<E: Protected>(
    conn: &impl Keyed,
    row: E::Model,
    version: Option<&version::Model>,
) -> Result<Authentic<E>, StoreError> {
    let columns = columns::<E>(&row)?;
    check::<E>(conn, &row, &columns)?;
    compare::<E>(conn, &row, &columns, version)?;
    Ok(Authentic(row))
}

/// Checks a row that a hand-written statement has read, and that it `is_match`: one that the statement asks for. For a
/// [recorded](Protected::RECORDED) table the statement selects the version too:
/// [`Dialect::versioned`](super::batch::json_rows::Dialect::versioned).
///
/// # Errors
/// [`StoreError::Altered`], [`StoreError::Key`] for a version of the key that this replica does not have.
pub fn checked<E: Protected>(
    conn: &impl Keyed,
    row: &QueryResult,
    is_match: impl FnOnce(&E::Model) -> bool,
) -> Result<Authentic<E>, StoreError> {
    let version = match E::RECORDED.is_versioned() {
        true => version::Model::from_query_result_optional(row, version::PREFIX)?,
        false => None,
    };
    let row = E::Model::from_query_result(row, "")?;
    matching(is_match, authentic(conn, row, version.as_ref())?)
}

fn matching<E: Protected>(
    is_match: impl FnOnce(&E::Model) -> bool,
    row: Authentic<E>,
) -> Result<Authentic<E>, StoreError> {
    match is_match(&row) {
        true => Ok(row),
        false => Err(StoreError::Altered(E::default().table_name())),
    }
}

/// Checks rows that a hand-written statement has locked in this transaction, and that each `is_match`.
///
/// # Errors
/// [`StoreError::Altered`], [`StoreError::Key`] for a version of the key that this replica does not have.
pub async fn check_locked<E: Protected>(
    tx: &Transaction,
    rows: Vec<E::Model>,
    is_match: impl Fn(&E::Model) -> bool,
) -> Result<Vec<Authentic<E>>, StoreError> {
    let rows = check_each_locked(tx, rows).await?.into_iter();
    rows.map(|row| matching(&is_match, row?)).collect()
}

/// Does the same, but leaves out altered rows, and logs how many there are.
pub async fn authentic_of_locked<E: Protected>(
    tx: &Transaction,
    rows: Vec<E::Model>,
    is_match: impl Fn(&E::Model) -> bool,
) -> Result<Vec<Authentic<E>>, StoreError> {
    let rows = check_each_locked(tx, rows).await?.into_iter();
    leave_out_altered(rows.map(|row| matching(&is_match, row?)).collect())
}

fn leave_out_altered<E: Protected>(
    rows: Vec<Result<Authentic<E>, StoreError>>,
) -> Result<Vec<Authentic<E>>, StoreError> {
    let (mut authentic, mut altered) = (Vec::new(), 0);
    for row in rows {
        match row {
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

async fn check_each_locked<E: Protected>(
    tx: &Transaction,
    rows: Vec<E::Model>,
) -> Result<Vec<Result<Authentic<E>, StoreError>>, StoreError> {
    if !E::RECORDED.is_versioned() {
        let rows = rows.into_iter().map(|row| authentic(tx, row, None));
        return Ok(rows.collect());
    }
    let names = rows.iter().map(version::name::<E>).collect::<Result<_, _>>()?;
    let versions = version::of_locked(tx, names).await?;
    let rows = rows.into_iter().map(|row| {
        let name = version::name::<E>(&row)?;
        authentic(tx, row, versions.get(&name))
    });
    Ok(rows.collect())
}

fn locked<E: Protected>(stored: Authentic<E>) -> Locked<E> {
    Locked {
        row: stored.0.clone(),
        stored,
    }
}

/// As `delete_forged`, for rows that carry MACs. The transaction's last event says that there were some.
pub async fn remove_beyond<E: Protected>(
    tx: &Transaction,
    number: E::Column,
    range: (i64, i64),
    now: UnixMillis,
) -> Result<(), StoreError> {
    let is_ours = |row: &E::Model| match check::<E>(tx, row, &columns::<E>(row)?) {
        Err(StoreError::Altered(_)) => Ok(false),
        checked => checked.map(|()| true),
    };
    if delete_forged::<E>(tx, number, range, is_ours).await? {
        tx.note_altered(E::default().table_name(), now);
    }
    Ok(())
}

/// Inserts a row with its MAC. What the row has in the column of the MAC does not matter.
///
/// # Errors
/// [`StoreError::Conflict`] if a unique constraint rejects it.
pub async fn insert<E: Protected>(tx: &Transaction, mut row: E::Model) -> Result<Authentic<E>, StoreError> {
    protect::<E>(&current(tx)?, &mut row)?;
    let new = row.clone().into_active_model().reset_all();
    let written = Box::pin(E::insert(new).exec_without_returning(tx)).await?;
    all_written(E::default().table_name(), written, 1)?;
    note_version::<E>(tx, None, &row)?;
    Ok(Authentic(row))
}

/// Lets the transaction's last event name a row that was written, and the one that was there before. Hand-written statements
/// call it.
pub fn note_version<E: Protected>(
    tx: &Transaction,
    before: Option<&E::Model>,
    row: &E::Model,
) -> Result<(), StoreError> {
    if !E::RECORDED.names(before, row) {
        return Ok(());
    }
    let mut version = version::<E>(row)?;
    let before = before.map(|row| row_digest::<E>(row, &columns::<E>(row)?));
    version.before = before.transpose()?;
    tx.wrote(version);
    Ok(())
}

#[cfg(test)]
#[path = "../tests/rows.rs"]
mod tests;
