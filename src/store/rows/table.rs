//! The tables that a verification compares, and their rows with what [`version`] holds about them.

use futures_util::future::BoxFuture;
use sea_orm::entity::prelude::*;

use super::{
    Protected, Recorded,
    mac::{check, columns},
    next_page,
    version::{self, with_versions},
};
use crate::{
    clock::UnixMillis,
    store::{
        Keyed, Pool, StoreError,
        audit::{Renewal, RowVersion},
    },
};

/// A table that a verification compares, most with the events that name their rows.
#[derive(Clone, Copy)]
pub struct RowTable {
    /// The name.
    pub(in crate::store) name: &'static str,
    /// Whether each row has a version, and goes by an event alone.
    pub(in crate::store) is_complete: bool,
    /// Whether its rows are compared with the events of renewals.
    pub(in crate::store) is_renewed: bool,
    /// Reads all rows, a page at a time.
    pub(in crate::store) rows: Rows,
    /// For a table whose rows no event names.
    pub(in crate::store) compare: Option<Compare>,
}

/// Returns the newest refresh token of a row's family; `None` for a family that has ended.
pub type RenewalOf<M> = fn(&M) -> Option<Renewal>;

/// Compares a table with what else the database says of it, at a time. Returns what is wrong, for people.
pub type Compare = for<'a> fn(&'a Pool, UnixMillis) -> BoxFuture<'a, Result<Vec<String>, StoreError>>;

/// A row of a table, and what [`version`] holds about it.
pub(in crate::store) struct StoredRow {
    /// The row's own version.
    pub(in crate::store) version: RowVersion,
    /// The number of the newest event that names the row, and the digest that it has left; `None` if somebody has removed that.
    pub(in crate::store) newest: Option<(i64, Vec<u8>)>,
    /// Whether the MAC of the row or of its version is wrong. Without keys nobody knows.
    pub(in crate::store) is_altered: bool,
    /// As [`Protected::RENEWAL`].
    pub(in crate::store) renewal: Option<Renewal>,
}

/// Reads the rows of a table, and hands each on.
type Rows =
    for<'a> fn(&'a Pool, &'a mut (dyn FnMut(StoredRow) + Send)) -> BoxFuture<'a, Result<(), StoreError>>;

impl RowTable {
    /// Returns the table of an entity.
    pub fn of<E: Protected>() -> Self {
        Self {
            name: E::default().table_name(),
            is_complete: matches!(E::RECORDED, Recorded::Always),
            is_renewed: E::RENEWAL.is_some(),
            rows: |conn, each| Box::pin(stored_rows::<E>(conn, each)),
            compare: None,
        }
    }

    /// Returns the table of an entity whose rows no event names.
    pub fn compared<E: EntityTrait>(compare: Compare) -> Self {
        Self {
            name: E::default().table_name(),
            is_complete: false,
            is_renewed: false,
            rows: |_, _| Box::pin(async { Ok(()) }),
            compare: Some(compare),
        }
    }
}

/// How many rows are read at a time.
const PAGE: u64 = 1_000;

/// Reads all rows with their versions. With keys at hand it checks the MACs of both.
async fn stored_rows<E: Protected>(
    conn: &Pool,
    each: &mut (dyn FnMut(StoredRow) + Send),
) -> Result<(), StoreError> {
    let mut last = None::<E::Model>;
    loop {
        let page = next_page(E::find(), last.as_ref(), PAGE);
        let rows = with_versions(page, conn.backend()).all(conn).await?;
        for (row, newest) in &rows {
            each(StoredRow {
                version: super::version::<E>(row)?,
                newest: newest
                    .clone()
                    .map(|newest| (newest.event_number, newest.row_digest)),
                is_altered: conn.keys().is_some() && !is_authentic::<E>(conn, row, newest.as_ref())?,
                renewal: E::RENEWAL.and_then(|renewal| renewal(row)),
            });
        }
        last = rows.into_iter().next_back().map(|(row, _)| row);
        if last.is_none() {
            return Ok(());
        }
    }
}

/// Returns whether the MACs of a row and of its version are right.
fn is_authentic<E: Protected>(
    conn: &Pool,
    row: &E::Model,
    newest: Option<&version::Model>,
) -> Result<bool, StoreError> {
    let row = check::<E>(conn, row, &columns::<E>(row)?);
    let newest = newest.map_or(Ok(()), |newest| version::check(conn, newest));
    match row.and(newest) {
        Ok(()) => Ok(true),
        // A version of the key that nobody has is a forgery, too.
        Err(StoreError::Altered(_) | StoreError::Key(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
