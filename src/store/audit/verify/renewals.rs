//! Whether the rows of refresh families are as new as the events of their renewals. Such a row has no version before its family
//! ends: only these events tell an older row, which somebody has put back, from the newest one.
//!
//! Rows are read after the events. A renewal commits its row and its event together, so that a row may be ahead of the events that
//! were read, and never behind them.

use std::collections::BTreeMap;

use super::Fault;
use crate::{
    store::{
        Pool, StoreError,
        error::lasting,
        rows::{RowTable, StoredRow},
    },
    text::id::{EventId, FamilyId},
};

/// The most ranges in memory, some 100 MB. Beyond them the families that began first are not compared.
const MOST_RANGES: usize = 1_000_000;

/// The generations of refresh tokens that events have handed out. Memory grows with the families, not with their renewals: the
/// generations of a family make one range. They make several if a failover has lost some.
#[derive(Clone, Debug, Default)]
pub(super) struct Renewals {
    /// By family and first generation. No two touch.
    ranges: BTreeMap<(FamilyId, u32), Range>,
    /// The events that hand out what another one had handed out: an older row was put back before the one that came later.
    repeated: BTreeMap<FamilyId, EventId>,
}

#[derive(Clone, Debug)]
struct Range {
    last: u32,
    /// The event of the last generation.
    event_id: EventId,
}

impl Renewals {
    /// Adds the generations from one to another, the last of which an event has handed out. Replicas hand out a family's
    /// generations in turn, and a log holds their groups in any order.
    pub(super) fn add(&mut self, family_id: FamilyId, (first, last): (u32, u32), event_id: EventId) {
        let next = self.ranges.remove(&(family_id.clone(), last.saturating_add(1)));
        let places = (family_id.clone(), 0)..=(family_id.clone(), last);
        let before = self.ranges.range_mut(places).next_back();
        if before.as_ref().is_some_and(|(_, before)| before.last >= first)
            && self.repeated.len() < MOST_RANGES
        {
            self.repeated.insert(family_id.clone(), event_id.clone());
        }
        let range = next.unwrap_or(Range { last, event_id });
        match before {
            Some((_, before)) if before.last.saturating_add(1) >= first => {
                if before.last < range.last {
                    *before = range;
                }
            }
            _ => drop(self.ranges.insert((family_id, first), range)),
        }
        if self.ranges.len() > MOST_RANGES {
            self.ranges.pop_first();
        }
    }

    /// Adds those of a later log.
    pub(super) fn append(&mut self, later: Self) {
        for ((family_id, first), Range { last, event_id }) in later.ranges {
            self.add(family_id, (first, last), event_id);
        }
        self.repeated.extend(later.repeated);
    }

    /// Returns what is wrong with the row of a family that has not ended.
    fn fault(&self, StoredRow { version, renewal, .. }: &StoredRow) -> Option<Fault> {
        let row = renewal.as_ref()?;
        let places = (row.family_id.clone(), 0)..=(row.family_id.clone(), u32::MAX);
        let (_, newest) = self.ranges.range(places).next_back()?;
        let (event_id, what) = match self.repeated.get(&row.family_id) {
            Some(event_id) => (event_id, "was put back before the event"),
            None if row.generation < newest.last => (&newest.event_id, "is older than the event"),
            None => return None,
        };
        let what = format!("the row {} {what}", version.row);
        Some(Fault::new(event_id.as_str(), what))
    }
}

/// Returns what is wrong with rows of refresh families, `most` faults at most, and how many more there are. A family that has ended
/// or is gone renews nothing, and is not reported: its end has a version.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub(super) async fn behind(
    conn: &Pool,
    tables: &[RowTable],
    renewals: &Renewals,
    most: usize,
) -> Result<(Vec<Fault>, usize), StoreError> {
    let (mut faults, mut more) = (Vec::new(), 0);
    let mut each = |row: StoredRow| match renewals.fault(&row) {
        Some(_) if faults.len() == most => more += 1,
        fault => faults.extend(fault),
    };
    let renewed = tables.iter().filter(|table| table.is_renewed);
    for table in renewed.filter(|_| !renewals.ranges.is_empty()) {
        // The comparison of rows names a table that can't be read.
        let _ = lasting((table.rows)(conn, &mut each).await)?;
    }
    Ok((faults, more))
}

#[cfg(test)]
#[path = "../../tests/audit/renewals.rs"]
mod tests;
