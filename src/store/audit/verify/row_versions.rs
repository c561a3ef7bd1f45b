//! Whether the rows that confer authority are those that the newest events name: an older row that was put back has a right MAC,
//! and a removed one has none. Only this finds a row that was put back together with its version.
//!
//! Memory does not grow with the rows: beyond [`MOST_NAMES`] of them the events are read once for each part of the names.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::super::{Fault, RowVersion, Untrusted, resume::stepped::RESUME, row};
use crate::{
    audit::v1 as pb,
    store::{
        Pool, StoreError,
        rows::{RowTable, StoredRow},
    },
};

/// How many events are read at a time.
const PAGE: u64 = 1_000;
/// The most rows whose newest versions are in memory at a time, some 100 MB.
const MOST_NAMES: usize = 1_000_000;
/// The most differences that are returned. There are none in a record that nobody has edited.
const MOST_DIFFERENCES: usize = 10_000;

/// The beginning of a row's MAC.
type Mac = [u8; 16];
/// The number of no event: retention has removed the newest one of the row.
const NO_EVENT: i64 = 0;
/// What an event says of a row that is gone, once two persons have accepted that.
const GONE: Mac = [0; 16];

/// A row that is not as the events say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::audit) struct Difference {
    pub(in crate::store::audit) row: String,
    /// The number of the event concerned.
    number: i64,
    what: &'static str,
    /// What is there.
    mac: Mac,
    /// What the newest event says.
    before: Mac,
}

impl Difference {
    /// Returns the version of the row as it is, for an event that accepts it.
    pub(in crate::store::audit) fn version(&self) -> RowVersion {
        RowVersion {
            row: self.row.clone(),
            mac: self.mac,
            before: Some(self.before),
        }
    }

    /// Returns what is wrong, for people and for a digest.
    pub(in crate::store::audit) fn describe(&self) -> String {
        format!("the row {} {}", self.row, self.what)
    }
}

/// The rows that are not as the events say, and the number of the last event that was read.
pub(in crate::store::audit) struct Differences {
    pub(in crate::store::audit) rows: Vec<Difference>,
    pub(in crate::store::audit) last: i64,
}

/// Compares the rows of some tables with the newest events that name them, and returns the first difference. Knows nothing of a
/// row whose events retention has removed but its version. Call it after [`verify_all`](super::verify_all), which checks the events themselves,
/// with the events that nothing is taken from.
///
/// With the keys of the database at hand, checks the MAC of every row too.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub async fn check_rows(
    conn: &Pool,
    tables: &[RowTable],
    untrusted: &Untrusted,
) -> Result<Option<Fault>, StoreError> {
    let differences = match differences(conn, tables, untrusted).await {
        Ok(differences) => differences.rows,
        Err(error) if error.is_temporary() => return Err(error),
        Err(error) => {
            return Ok(Some(Fault {
                event_id: String::new(),
                what: error.to_string(),
            }));
        }
    };
    let Some(first) = differences.into_iter().next() else {
        return Ok(None);
    };
    let event = row::Entity::find_by_id(first.number).one(conn).await?;
    Ok(Some(Fault {
        event_id: event.map(|event| event.event_id).unwrap_or_default(),
        what: first.describe(),
    }))
}

/// Returns the rows that are not as the events say, in the order of their names.
///
/// # Errors
/// [`StoreError::Altered`] for a row with a wrong MAC, [`StoreError::Corrupt`] for an event that can't be read.
pub(in crate::store::audit) async fn differences(
    conn: &Pool,
    tables: &[RowTable],
    untrusted: &Untrusted,
) -> Result<Differences, StoreError> {
    let prefixes: Vec<_> = tables.iter().map(|table| format!("{}/", table.name)).collect();
    let mut parts = 1;
    'again: loop {
        let mut all = Differences {
            rows: Vec::new(),
            last: 0,
        };
        let count = parts;
        for part in 0..count {
            let mut versions = Versions {
                prefixes: &prefixes,
                untrusted,
                part: (part, count),
                newest: HashMap::new(),
                differences: Vec::new(),
            };
            all.last = versions.read(conn, i64::MIN).await?;
            if versions.newest.len() > MOST_NAMES {
                parts = 2 * count;
                continue 'again;
            }
            versions.compare(conn, tables).await?;
            versions.find_gone(conn).await?;
            all.rows.append(&mut versions.differences);
        }
        all.last = drop_changed(conn, &mut all.rows, all.last).await?;
        all.rows.sort_unstable();
        return Ok(all);
    }
}

/// Drops rows that later events name: they were written since. Returns the number of the last event.
pub(in crate::store::audit) async fn drop_changed(
    conn: &impl ConnectionTrait,
    rows: &mut Vec<Difference>,
    mut last: i64,
) -> Result<i64, StoreError> {
    while !rows.is_empty() {
        let page = page(conn, last).await?;
        let Some((number, _)) = page.last() else { break };
        last = *number;
        let named: HashSet<_> = page
            .iter()
            .flat_map(|(_, record)| record.rows.iter().map(|version| &*version.row))
            .collect();
        rows.retain(|difference| !named.contains(&*difference.row));
    }
    Ok(last)
}

/// Reads events after a number.
async fn page(conn: &impl ConnectionTrait, after: i64) -> Result<Vec<(i64, pb::AuditRecord)>, StoreError> {
    let events = row::Entity::find()
        .select_only()
        .columns([row::Column::Number, row::Column::Record])
        .filter(row::Column::Number.gt(after))
        .order_by_asc(row::Column::Number)
        .limit(PAGE)
        .into_tuple::<(i64, Vec<u8>)>()
        .all(conn)
        .await?;
    let decoded = events.into_iter().map(|(number, encoded)| {
        // Nothing is taken from one that can't be read, and a verification names it.
        (number, pb::AuditRecord::decode(&*encoded).unwrap_or_default())
    });
    Ok(decoded.collect())
}

/// What the newest event of a row says of it.
struct Newest {
    mac: Mac,
    number: i64,
    /// Whether the row is there.
    is_seen: bool,
}

struct Versions<'a> {
    prefixes: &'a [String],
    untrusted: &'a Untrusted,
    /// The part of the names, and how many parts there are.
    part: (u128, u128),
    /// By a digest of the name.
    newest: HashMap<u128, Newest>,
    differences: Vec<Difference>,
}

impl Versions<'_> {
    /// Returns the key of a name of this part.
    fn key(&self, name: &str) -> Option<u128> {
        if !self.prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            return None;
        }
        let digest = digest(&SHA256, name.as_bytes());
        let key = digest
            .as_ref()
            .first_chunk()
            .map(|bytes| u128::from_be_bytes(*bytes))?;
        (key % self.part.1 == self.part.0).then_some(key)
    }

    fn add(&mut self, difference: Difference) {
        if self.differences.len() < MOST_DIFFERENCES {
            self.differences.push(difference);
        }
    }

    /// Reads the events after a number, and returns the number of the last one. Notes rows that an event has found otherwise
    /// than the event before has left them: somebody has put an older one back, and a change has given it a new MAC.
    async fn read(&mut self, conn: &impl ConnectionTrait, mut after: i64) -> Result<i64, StoreError> {
        loop {
            let events = page(conn, after).await?;
            let Some((last, _)) = events.last() else {
                return Ok(after);
            };
            after = *last;
            for (number, record) in events {
                if !self.untrusted.holds(number) {
                    self.event(number, record);
                }
            }
            if self.newest.len() > MOST_NAMES {
                return Ok(after);
            }
        }
    }

    fn event(&mut self, number: i64, record: pb::AuditRecord) {
        let is_resume = record.action == RESUME;
        for version in record.rows {
            let Some(key) = self.key(&version.row) else {
                continue;
            };
            let mac = version.mac.try_into().unwrap_or(GONE);
            let newest = Newest {
                mac,
                number,
                is_seen: false,
            };
            let earlier = self.newest.insert(key, newest);
            if is_resume {
                // Two persons have accepted the row as it is.
                self.differences.retain(|other| other.row != version.row);
                continue;
            }
            let Some(earlier) = earlier.filter(|earlier| earlier.mac != version.before[..]) else {
                continue;
            };
            // An event between both that nothing is taken from may have named it.
            if !self.untrusted.any_between(earlier.number, number) {
                self.add(Difference {
                    row: version.row,
                    number,
                    what: "was put back before the event",
                    mac,
                    before: mac,
                });
            }
        }
    }

    /// Compares the rows of the tables.
    async fn compare(&mut self, conn: &Pool, tables: &[RowTable]) -> Result<(), StoreError> {
        for table in tables {
            let mut each = |StoredRow {
                                version,
                                newest: held,
                            }: StoredRow| {
                let RowVersion { row, mac, .. } = version;
                let Some(key) = self.key(&row) else { return };
                let known = self.newest.get_mut(&key).map(|newest| {
                    newest.is_seen = true;
                    (newest.number, newest.mac)
                });
                let is_other = |number| known.is_some_and(|(known, _)| known != number);
                let what = match held {
                    _ if known.is_some_and(|(_, known)| known != mac) => "is not as the event has left it",
                    None => "has no version in row_versions",
                    Some((number, held)) if held[..] != mac || is_other(number) => {
                        "has another version in row_versions"
                    }
                    Some(_) => return,
                };
                let (number, before) = known.unwrap_or((NO_EVENT, mac));
                self.add(Difference {
                    row,
                    number,
                    what,
                    mac,
                    before,
                });
            };
            (table.rows)(conn, &mut each).await?;
        }
        Ok(())
    }

    /// Notes the rows that an event names and that are in no table.
    async fn find_gone(&mut self, conn: &impl ConnectionTrait) -> Result<(), StoreError> {
        let gone = self.newest.iter();
        let mut gone: Vec<_> = gone
            .filter(|(_, newest)| !newest.is_seen && newest.mac != GONE)
            .map(|(key, newest)| (newest.number, *key, newest.mac))
            .collect();
        gone.sort_unstable();
        gone.truncate(MOST_DIFFERENCES);
        for (number, key, before) in gone {
            let Some(event) = row::Entity::find_by_id(number).one(conn).await? else {
                continue;
            };
            let record = pb::AuditRecord::decode(&*event.record).unwrap_or_default();
            let mut named = record.rows.into_iter();
            if let Some(version) = named.find(|version| self.key(&version.row) == Some(key)) {
                self.add(Difference {
                    row: version.row,
                    number,
                    what: "is gone since the event",
                    mac: GONE,
                    before,
                });
            }
        }
        Ok(())
    }
}
