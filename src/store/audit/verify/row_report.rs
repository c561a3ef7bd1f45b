//! What a verification reports of the rows that are not as the events say.

use sea_orm::entity::prelude::*;

use super::{super::row, Fault, Verified, renewals::behind, row_versions, whole};
use crate::{
    clock::UnixMillis,
    store::{Keyed, Pool, StoreError, batch::schema::foreign_objects, error::lasting, rows::RowTable},
};

/// The most faults that are named one by one.
const MOST_FAULTS: usize = 100;

/// What a comparison of rows and events has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowReport {
    /// What is wrong, in the order of the rows' names.
    pub faults: Vec<Fault>,
    /// How many rows were changed by events that are not sealed yet. Without the keys nothing is taken from these.
    pub unsettled: u64,
    /// How many rows are older than the oldest event. Without the keys nothing shows that they are right.
    pub unproven: u64,
}

/// Compares the rows of some tables with the newest events that name them. Of a row whose events retention has removed it knows
/// the version alone. Call it after [`verify_all`](super::verify_all), which checks the events themselves, with what that has found:
/// it says which events nothing is taken from, and which refresh tokens were handed out. Of more than a million families that have
/// renewed, it compares those that began last with their renewals.
///
/// Names objects of the schema that no migration creates, too: see [`foreign_objects`]. `now` says until when rows are there that
/// go with their time.
///
/// With the keys of the database at hand, checks the MACs of every row, its version and the events too.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub async fn check_rows(
    conn: &Pool,
    tables: &[RowTable],
    verified: &Verified,
    now: UnixMillis,
) -> Result<RowReport, StoreError> {
    let mut faults = Vec::new();
    let found = lasting(row_versions::differences(conn, tables, &verified.untrusted).await)?;
    let found = found.unwrap_or_else(|error| {
        faults.push(whole(error.to_string()));
        row_versions::Differences::default()
    });
    let has_keys = conn.keys().is_some();
    let mut report = RowReport {
        faults,
        unsettled: found.unsettled,
        unproven: if has_keys { 0 } else { found.unproven },
    };
    for object in foreign_objects(conn).await? {
        let what = format!("no migration has created the {object}");
        report.faults.push(whole(what));
    }
    for difference in found.rows.iter().take(MOST_FAULTS) {
        let event = row::Entity::find_by_id(difference.number).one(conn).await?;
        let event_id = event.map(|event| event.event_id).unwrap_or_default();
        report.faults.push(Fault::new(event_id, difference.describe()));
    }
    let (families, more) = behind(conn, tables, &verified.renewals, MOST_FAULTS).await?;
    report.faults.extend(families);
    let more = found.rows.len().saturating_sub(MOST_FAULTS) + more;
    if more > 0 {
        let what = format!("{more} more rows are not as the events say");
        report.faults.push(whole(what));
    }
    for (table, compare) in tables
        .iter()
        .filter_map(|table| Some((table.name, table.compare?)))
    {
        let found = lasting(compare(conn, now).await)?
            .unwrap_or_else(|error| vec![format!("the table {table} can't be compared: {error}")]);
        let more = found.len().saturating_sub(MOST_FAULTS);
        report
            .faults
            .extend(found.into_iter().take(MOST_FAULTS).map(whole));
        if more > 0 {
            report
                .faults
                .push(whole(format!("{more} more faults of the table {table}")));
        }
    }
    Ok(report)
}
