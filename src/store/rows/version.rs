//! The newest version of each row that events name: an older row has a right MAC too, and a removed one has none. The commit of
//! a change writes the versions of the rows that it has changed, and each read of such a row compares them.
//!
//! A version has a MAC of its own. Whoever puts back a row and its version together is found by a verification of the record.

use std::collections::HashMap;

use sea_orm::{
    DbBackend, IntoActiveModel, Iterable, PrimaryKeyToColumn, QuerySelect, SelectTwo,
    entity::prelude::*,
    sea_query::{BinOper, Expr, ExprTrait, Func, OnConflict},
};

use super::{
    Protected, Recorded, all_written,
    mac::{self, columns, current, protect, row_digest},
};
use crate::{
    keys::DataKey,
    store::{Keyed, StoreError, Transaction, audit::RowVersion},
};

mod row {
    use sea_orm::entity::prelude::*;

    /// The newest version of a row.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "row_versions")]
    pub struct Model {
        /// As events name it.
        #[sea_orm(primary_key, auto_increment = false)]
        pub row_name: String,
        /// Of the newest event that names the row.
        pub event_number: i64,
        /// What events hold of the row: the beginning of a digest over its MAC and content.
        pub row_digest: Vec<u8>,
        /// Of this row.
        pub mac: Vec<u8>,
    }

    crate::no_relations!();

    impl super::Protected for Entity {
        const MAC: Column = Column::Mac;
        /// It is what says which row is the newest.
        const RECORDED: super::Recorded<Model> = super::Recorded::Never;
    }
}

pub use row::{Column, Entity, Model};

/// What the names of a version's columns begin with in the result of a hand-written statement.
pub const PREFIX: &str = "version_";

/// The most versions in one statement.
const AT_ONCE: usize = 500;

/// Returns the name of a row, `<table>/<key>`.
///
/// # Errors
/// [`StoreError::Corrupt`] for a key of another type than texts and bytes.
pub(crate) fn name<E: Protected>(row: &E::Model) -> Result<String, StoreError> {
    let mut name = E::default().table_name().to_owned();
    for column in primary_key::<E>() {
        name.push('/');
        match row.get(column) {
            Value::String(Some(text)) => name.push_str(&text),
            Value::Bytes(Some(bytes)) => name.push_str(&hex::encode(bytes)),
            _ => return Err(StoreError::Corrupt("a key of a type that no event names")),
        }
    }
    Ok(name)
}

/// Returns whether a column of a key is of bytes. Its name has them as hexadecimal digits.
pub fn is_bytes<C: ColumnTrait>(column: C) -> bool {
    let kind = column.def().get_column_type().clone();
    matches!(
        kind,
        ColumnType::Binary(_) | ColumnType::VarBinary(_) | ColumnType::Blob
    )
}

pub(super) fn primary_key<E: EntityTrait>() -> impl Iterator<Item = E::Column> {
    E::PrimaryKey::iter().map(PrimaryKeyToColumn::into_column)
}

/// Adds the version of each row to a query: one statement reads both, so that they are of the same moment.
pub(super) fn with_versions<E: Protected>(mut select: Select<E>, backend: DbBackend) -> SelectTwo<E, Entity> {
    let is_version = Expr::col((Entity, Column::RowName)).eq(named::<E>(backend));
    QuerySelect::query(&mut select).left_join(Entity, is_version);
    select.select_also(Entity)
}

/// Returns the expression for the name of a row.
pub(super) fn named<E: Protected>(backend: DbBackend) -> Expr {
    let concat = BinOper::Custom("||");
    let mut name = Expr::value(E::default().table_name());
    for column in primary_key::<E>() {
        let key = Expr::col((E::default(), column));
        let key = match (is_bytes(column), backend) {
            (false, _) => key,
            (true, DbBackend::Postgres) => Func::cust("encode").arg(key).arg("hex").into(),
            (true, _) => Func::lower(Func::cust("hex").arg(key)).into(),
        };
        name = name.binary(concat, Expr::value("/")).binary(concat, key);
    }
    name
}

/// Checks the MAC of a version.
pub(super) fn check(conn: &impl Keyed, version: &Model) -> Result<(), StoreError> {
    mac::check::<Entity>(conn, version, &columns::<Entity>(version)?)
}

/// Checks that a row with a right MAC is the newest version of itself, if it has to have one.
///
/// # Errors
/// [`StoreError::Altered`].
pub(super) fn compare<E: Protected>(
    conn: &impl Keyed,
    row: &E::Model,
    columns: &[u8],
    version: Option<&Model>,
) -> Result<(), StoreError> {
    if !E::RECORDED.is_versioned() {
        return Ok(());
    }
    let altered = StoreError::Altered(E::default().table_name());
    let is_newest = match (conn.written(&name::<E>(row)?), version) {
        (Some(digest), _) => digest == row_digest::<E>(row, columns)?,
        (None, Some(version)) => {
            check(conn, version)?;
            version.row_digest == row_digest::<E>(row, columns)?
        }
        (None, None) => matches!(E::RECORDED, Recorded::AtEnd(_)),
    };
    match is_newest {
        true => Ok(()),
        false => Err(altered),
    }
}

/// Reads the versions of rows that the transaction has locked. A statement that waits for a lock may see an older version than
/// the row that it returns.
pub(super) async fn of_locked(
    tx: &Transaction,
    names: Vec<String>,
) -> Result<HashMap<String, Model>, StoreError> {
    let mut versions = HashMap::new();
    for names in names.chunks(AT_ONCE) {
        let find = Entity::find().filter(Column::RowName.is_in(names));
        for version in Box::pin(find.all(tx)).await? {
            versions.insert(version.row_name.clone(), version);
        }
    }
    Ok(versions)
}

/// Returns whether a row with a key of texts has a version, if its table is recorded.
pub(super) async fn is_known<E: Protected>(tx: &Transaction, key: &[&str]) -> Result<bool, StoreError> {
    let name = [&[E::default().table_name()], key].concat().join("/");
    let version = Entity::find_by_id(name);
    Ok(E::RECORDED.is_versioned() && Box::pin(version.one(tx)).await?.is_some())
}

/// Returns the version of a row that is written without an event, as the rows of a benchmark are.
///
/// # Errors
/// [`StoreError::Altered`] for a row without a MAC.
pub fn unrecorded<E: Protected>(key: &DataKey, row: &E::Model) -> Result<Model, StoreError> {
    protected(key, 0, &super::version::<E>(row)?)
}

fn protected(key: &DataKey, event_number: i64, row: &RowVersion) -> Result<Model, StoreError> {
    let mut version = Model {
        row_name: row.row.clone(),
        event_number,
        row_digest: row.digest.to_vec(),
        mac: Vec::new(),
    };
    protect::<Entity>(key, &mut version)?;
    Ok(version)
}

/// Deletes the versions of rows that go.
pub(super) async fn remove(tx: &Transaction, names: Vec<String>) -> Result<(), StoreError> {
    let of_names = Entity::delete_many().filter(Column::RowName.is_in(names));
    Box::pin(of_names.exec(tx)).await?;
    Ok(())
}

/// Writes the versions of the rows that an event names.
pub(in crate::store) async fn write(
    tx: &Transaction,
    event_number: i64,
    rows: &[RowVersion],
) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let key = current(tx)?;
    for rows in rows.chunks(AT_ONCE) {
        let versions = rows.iter().map(|row| {
            let version = protected(&key, event_number, row)?;
            Ok(version.into_active_model().reset_all())
        });
        let versions = versions.collect::<Result<Vec<_>, StoreError>>()?;
        let replace = OnConflict::column(Column::RowName)
            .update_columns([Column::EventNumber, Column::RowDigest, Column::Mac])
            .to_owned();
        let insert = Entity::insert_many(versions).on_conflict(replace);
        let written = Box::pin(insert.exec_without_returning(tx)).await?;
        all_written(Entity.table_name(), written, rows.len())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "../tests/row_versions.rs"]
mod tests;
