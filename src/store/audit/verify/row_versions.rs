//! Whether the rows that confer authority are those that the newest events name: an older row that was put back has a right MAC,
//! and a removed one has none. Only this finds a row that was put back together with its version.
//!
//! Memory does not grow with the rows: beyond [`MOST_NAMES`] of them the events are read once for each part of the names.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::{
    super::{RowVersion, action, check::check_event_mac, row},
    Untrusted,
};
use crate::{
    audit::v1 as pb,
    store::{
        Keyed, Pool, StoreError,
        error::lasting,
        rows::{RowTable, StoredRow},
    },
};

/// How many events are read at a time.
const PAGE: u64 = 1_000;
/// The most rows whose newest versions are in memory at a time, some 100 MB.
const MOST_NAMES: usize = 1_000_000;
/// The most differences that are kept. There are none in a record that nobody has edited.
const MOST_DIFFERENCES: usize = 10_000;

/// What an event holds of a row.
type Digest = [u8; 16];
/// The number of no event: retention has removed the newest one of the row.
const NO_EVENT: i64 = 0;
/// The digest in an event for a row whose loss two persons have accepted.
const GONE: Digest = [0; 16];
/// What is wrong with a row, or its version, that no holder of the keys has written.
const ALTERED: &str = "was changed by somebody without the keys";
/// What is wrong with a table of which a value has another type.
const UNREADABLE: &str = "holds a value that can't be read";

/// A row that is not as the events say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store::audit) struct Difference {
    pub(in crate::store::audit) row: String,
    /// The number of the event concerned.
    pub(super) number: i64,
    what: &'static str,
    /// What is there.
    digest: Digest,
    /// What the newest event says.
    before: Digest,
    /// Whether it is from before its end. Changes until the end write no version, so the next one would break what was accepted.
    pub(in crate::store::audit) is_put_back: bool,
}

impl Difference {
    fn new(row: String, number: i64, what: &'static str, digest: Digest, before: Digest) -> Self {
        Self {
            row,
            number,
            what,
            digest,
            before,
            is_put_back: false,
        }
    }

    /// Returns the version of the row as it is, for an event that accepts it.
    pub(in crate::store::audit) fn version(&self) -> RowVersion {
        RowVersion {
            row: self.row.clone(),
            digest: self.digest,
            before: Some(self.before),
        }
    }

    /// Returns whether nobody can accept the row, because nothing reads it.
    pub(in crate::store::audit) fn is_altered(&self) -> bool {
        [ALTERED, UNREADABLE].contains(&self.what)
    }

    /// Returns what is wrong, for people and for a digest.
    pub(in crate::store::audit) fn describe(&self) -> String {
        let kind = if self.what == UNREADABLE { "table" } else { "row" };
        format!("the {kind} {} {}", self.row, self.what)
    }
}

/// The rows that are not as the events say. Each of them that is written later has an event after the number `last`.
#[derive(Default)]
pub(in crate::store::audit) struct Differences {
    pub(in crate::store::audit) rows: Vec<Difference>,
    pub(in crate::store::audit) last: i64,
    /// How many other rows are not as the sealed events say, but are named by later ones.
    pub(super) unsettled: u64,
    /// How many rows are older than the record.
    pub(super) unproven: u64,
}

/// Returns the rows that are not as the events say, in the order of their names.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub(in crate::store::audit) async fn differences(
    conn: &Pool,
    tables: &[RowTable],
    untrusted: &Untrusted,
) -> Result<Differences, StoreError> {
    differences_in_parts(conn, tables, untrusted, MOST_NAMES).await
}

/// Does the same, with at most so many names in memory.
async fn differences_in_parts(
    conn: &Pool,
    tables: &[RowTable],
    untrusted: &Untrusted,
    most_names: usize,
) -> Result<Differences, StoreError> {
    let mut parts = 1;
    'again: loop {
        let mut all = Differences {
            rows: Vec::new(),
            last: i64::MAX,
            unsettled: 0,
            unproven: 0,
        };
        let count = parts;
        for part in 0..count {
            let (mut versions, last) = loop {
                let mut versions = Versions::new(tables, untrusted, (part, count), most_names);
                if let Some(last) = versions.read(conn, i64::MIN).await? {
                    break (versions, last);
                }
            };
            if versions.names() > most_names {
                parts = 2 * count;
                continue 'again;
            }
            versions.compare(conn).await?;
            versions.find_gone(conn).await?;
            let found = versions.differences.len();
            let last = drop_changed(conn, &mut versions.differences, last).await?;
            if untrusted.has_unsealed() {
                all.unsettled += (found - versions.differences.len()) as u64;
            }
            // What changes after it was compared has a later event, whatever the part.
            all.last = all.last.min(last);
            all.rows.append(&mut versions.differences);
            all.unsettled += versions.unsettled;
            all.unproven += versions.unproven;
        }
        all.rows.sort_unstable();
        // A table that can't be read is one fault, not one of each part.
        all.rows.dedup();
        return Ok(all);
    }
}

/// Drops rows that later events name: they were written since. Returns the number of the last event.
pub(in crate::store::audit) async fn drop_changed(
    conn: &impl Keyed,
    rows: &mut Vec<Difference>,
    mut last: i64,
) -> Result<i64, StoreError> {
    while !rows.is_empty() {
        let page = page(conn, last).await?;
        let Some(event) = page.last() else { break };
        last = event.number;
        let named: HashSet<_> = page
            .iter()
            .filter_map(|event| event.record.as_ref())
            .flat_map(|record| record.rows.iter().map(|version| &*version.row))
            .collect();
        rows.retain(|difference| difference.is_altered() || !named.contains(&*difference.row));
    }
    Ok(last)
}

/// An event that may name rows.
struct Naming {
    number: i64,
    /// `None` for an event that can't be read, and, with the keys at hand, for one with a wrong MAC. A verification names it.
    record: Option<pb::AuditRecord>,
}

/// Reads events after a number.
async fn page(conn: &impl Keyed, after: i64) -> Result<Vec<Naming>, StoreError> {
    let events = row::Entity::find()
        .filter(row::Column::Number.gt(after))
        .order_by_asc(row::Column::Number)
        .limit(PAGE)
        .all(conn)
        .await?;
    let keyring = conn.keys();
    let is_right = |row: &row::Model| {
        keyring
            .as_deref()
            .is_none_or(|keys| check_event_mac(keys, row).is_ok())
    };
    let decoded = events.into_iter().map(|row| Naming {
        number: row.number,
        record: is_right(&row)
            .then(|| pb::AuditRecord::decode(&*row.record).ok())
            .flatten(),
    });
    Ok(decoded.collect())
}

/// What the newest event of a row says of it.
struct Newest {
    digest: Digest,
    number: i64,
    /// Whether the row is there, or may be gone by its time.
    is_found: bool,
}

struct Versions<'a> {
    /// The most names in memory.
    most_names: usize,
    tables: &'a [RowTable],
    untrusted: &'a Untrusted,
    /// Further events that nothing is taken from.
    skipped: Untrusted,
    /// The part of the names, and how many parts there are.
    part: (u128, u128),
    /// The number of the first event that something is taken from.
    first: Option<i64>,
    /// By a digest of the name.
    newest: HashMap<u128, Newest>,
    /// The names in events that are not sealed yet, if nothing is taken from these.
    later: HashSet<u128>,
    /// The tables that can't be read.
    unreadable: Vec<&'static str>,
    differences: Vec<Difference>,
    unsettled: u64,
    unproven: u64,
}

impl<'a> Versions<'a> {
    fn new(tables: &'a [RowTable], untrusted: &'a Untrusted, part: (u128, u128), most_names: usize) -> Self {
        Self {
            most_names,
            tables,
            untrusted,
            skipped: Untrusted::default(),
            part,
            first: None,
            newest: HashMap::new(),
            later: HashSet::new(),
            unreadable: Vec::new(),
            differences: Vec::new(),
            unsettled: 0,
            unproven: 0,
        }
    }

    /// Returns the table of a name.
    fn table_of(&self, name: &str) -> Option<&'a RowTable> {
        let (table, _) = name.split_once('/')?;
        self.tables.iter().find(|of| of.name == table)
    }

    /// Returns the key of a name of this part.
    fn key(&self, name: &str) -> Option<u128> {
        self.table_of(name)?;
        let digest = digest(&SHA256, name.as_bytes());
        let key = u128::from_be_bytes(*digest.as_ref().first_chunk()?);
        (key % self.part.1 == self.part.0).then_some(key)
    }

    /// Returns how many names are in memory.
    fn names(&self) -> usize {
        self.newest.len() + self.later.len()
    }

    fn add(&mut self, difference: Difference) {
        if self
            .key(&difference.row)
            .is_some_and(|key| self.later.contains(&key))
        {
            self.unsettled += 1;
        } else if self.differences.len() < MOST_DIFFERENCES {
            self.differences.push(difference);
        }
    }

    /// Reads the events after a number, and returns the number of the last one. Notes rows that an event has found otherwise
    /// than the event before has left them: somebody has put an older one back, and a change has given it a new MAC.
    ///
    /// Returns `None` if retention has deleted what was read, and perhaps what was not: begin again with the events that it has
    /// left.
    async fn read(&mut self, conn: &impl Keyed, mut after: i64) -> Result<Option<i64>, StoreError> {
        loop {
            let events = page(conn, after).await?;
            if events.is_empty() {
                return Ok(Some(after));
            }
            for Naming { number, record } in events {
                if after != i64::MIN && number - 1 > after {
                    if row::Entity::find_by_id(after).one(conn).await?.is_none() {
                        return Ok(None);
                    }
                    // Somebody has removed those between, and a verification names them.
                    self.skipped.add(after + 1, number - 1);
                }
                after = number;
                match record {
                    None => self.skipped.add(number, number),
                    Some(_) if self.untrusted.holds(number) => {}
                    Some(record) if self.untrusted.is_unsealed(number) => {
                        for version in record.rows {
                            let key = self.key(&version.row);
                            self.later.extend(key);
                        }
                    }
                    Some(record) => self.add_event(number, record),
                }
            }
            if self.names() > self.most_names {
                return Ok(Some(after));
            }
        }
    }

    fn add_event(&mut self, number: i64, record: pb::AuditRecord) {
        self.first.get_or_insert(number);
        let is_resume = record.action == action::AUDIT_LOG_RESUME.as_str();
        for version in record.rows {
            let Some(key) = self.key(&version.row) else {
                continue;
            };
            let Ok(digest) = Digest::try_from(version.digest) else {
                // No build writes such an event.
                let what = "has a digest of another length in the event";
                self.add(Difference::new(version.row, number, what, GONE, GONE));
                continue;
            };
            let may_go = self
                .table_of(&version.row)
                .is_some_and(|table| !table.is_complete);
            let newest = Newest {
                digest,
                number,
                is_found: may_go,
            };
            let earlier = self.newest.insert(key, newest);
            if is_resume {
                // Two persons have accepted the row as it is.
                self.differences.retain(|other| other.row != version.row);
                continue;
            }
            let Some(earlier) = earlier.filter(|earlier| earlier.digest != version.before[..]) else {
                continue;
            };
            // An event between both that nothing is taken from may have named it.
            let may_be_explained = [self.untrusted, &self.skipped]
                .iter()
                .any(|events| events.any_between(earlier.number, number));
            if !may_be_explained {
                let what = "was put back before the event";
                self.add(Difference::new(version.row, number, what, digest, digest));
            }
        }
    }

    /// Compares the rows of the tables.
    async fn compare(&mut self, conn: &Pool) -> Result<(), StoreError> {
        for table in self.tables {
            let mut each = |stored: StoredRow| self.row(table, stored);
            if lasting((table.rows)(conn, &mut each).await)?.is_err() {
                // A value of another type. It must not keep the other tables from being compared.
                self.unreadable.push(table.name);
                let row = table.name.to_owned();
                let unreadable = Difference::new(row, NO_EVENT, UNREADABLE, GONE, GONE);
                self.differences.push(unreadable);
            }
        }
        Ok(())
    }

    fn row(&mut self, table: &RowTable, stored: StoredRow) {
        let StoredRow {
            version: RowVersion { row, digest, .. },
            newest: held,
            is_altered,
            ..
        } = stored;
        let Some(key) = self.key(&row) else { return };
        let known = self.newest.get_mut(&key).map(|newest| {
            newest.is_found = true;
            (newest.number, newest.digest)
        });
        let is_other = |number| known.is_some_and(|(known, _)| known != number);
        let is_in_record = |number| self.first.is_some_and(|first| number >= first);
        let is_put_back = match &held {
            _ if table.is_complete => false,
            Some((_, held)) if held[..] != digest => true,
            _ => known.is_some_and(|(_, known)| known != digest),
        };
        let what = match held {
            _ if is_altered => ALTERED,
            _ if known.is_some_and(|(_, known)| known != digest) => "is not as the event has left it",
            // It has not ended.
            None if known.is_none() && !table.is_complete => return,
            None => "has no version in row_versions",
            Some((number, held)) if held[..] != digest || is_other(number) => {
                "has another version in row_versions"
            }
            Some(_) if known.is_some() => return,
            Some((number, _)) if is_in_record(number) => "was written by no event",
            Some(_) => {
                self.unproven += 1;
                return;
            }
        };
        let (number, before) = known.unwrap_or((NO_EVENT, digest));
        self.add(Difference {
            row,
            number,
            what,
            digest,
            before,
            is_put_back,
        });
    }

    /// Notes the rows that an event names and that are in no table.
    async fn find_gone(&mut self, conn: &impl ConnectionTrait) -> Result<(), StoreError> {
        let gone = self.newest.iter();
        let mut gone: Vec<_> = gone
            .filter(|(_, newest)| !newest.is_found && newest.digest != GONE)
            .map(|(key, newest)| (newest.number, *key, newest.digest))
            .collect();
        gone.sort_unstable();
        gone.truncate(MOST_DIFFERENCES);
        for (number, key, before) in gone {
            let Some(event) = row::Entity::find_by_id(number).one(conn).await? else {
                continue;
            };
            let record = pb::AuditRecord::decode(&*event.record).unwrap_or_default();
            let mut named = record.rows.into_iter();
            let Some(version) = named.find(|version| self.key(&version.row) == Some(key)) else {
                continue;
            };
            let table = version.row.split('/').next().unwrap_or_default();
            if !self.unreadable.contains(&table) {
                let what = "is gone since the event";
                self.add(Difference::new(version.row, number, what, GONE, before));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/audit/row_versions.rs"]
mod tests;
