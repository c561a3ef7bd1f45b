//! Whether the rows that confer authority are those that the newest events name: an older row that was put back has a right MAC,
//! and a removed one has none. Only this finds a row that was put back together with its version.

use std::collections::HashMap;

use prost::Message;
use sea_orm::{QueryOrder, QuerySelect, entity::prelude::*};

use super::super::{Fault, RowVersion, row};
use crate::{
    audit::v1 as pb,
    store::{
        Pool, StoreError,
        rows::{RowTable, StoredRow},
    },
};

/// How many events are read at a time.
const PAGE: u64 = 1_000;

/// What the newest event of a row says of it.
struct Newest {
    number: i64,
    mac: Vec<u8>,
    event_id: String,
}

/// Compares the rows of some tables with the newest events that name them, and returns the first difference. Knows nothing of a
/// row whose events retention has removed but its version. Call it after [`verify`](super::verify), which checks the events themselves.
///
/// With the keys of the database at hand, checks the MAC of every row too.
///
/// # Errors
/// [`StoreError`] if the database is unavailable.
pub async fn check_rows(conn: &Pool, tables: &[RowTable]) -> Result<Option<Fault>, StoreError> {
    let (mut newest, mut suspects) = (HashMap::new(), Vec::new());
    let mut last = read(conn, &mut newest, &mut suspects, i64::MIN).await?;
    if !suspects.is_empty() {
        return Ok(first(suspects));
    }
    for table in tables {
        let mut rows = Vec::new();
        match (table.rows)(conn, &mut |row| rows.push(row)).await {
            Ok(()) => {}
            Err(error) if error.is_temporary() => return Err(error),
            Err(error) => {
                return Ok(Some(Fault {
                    event_id: String::new(),
                    what: error.to_string(),
                }));
            }
        };
        for StoredRow {
            version,
            newest: held,
        } in rows
        {
            let RowVersion { row, mac, .. } = version;
            let known = newest.remove(&row);
            let what = if known.as_ref().is_some_and(|known| known.mac != mac) {
                "is not as the event has left it"
            } else if let Some((number, held)) = held {
                let is_older = known.as_ref().is_some_and(|known| known.number != number);
                if held == mac && !is_older {
                    continue;
                }
                "has another version in row_versions"
            } else {
                "has no version in row_versions"
            };
            let event_id = known.map(|known| known.event_id).unwrap_or_default();
            suspects.push((row, event_id, what));
        }
    }
    // What is left was named by an event and is in no table.
    let prefixes: Vec<_> = tables.iter().map(|table| format!("{}/", table.name)).collect();
    for (row, known) in newest {
        if prefixes.iter().any(|prefix| row.starts_with(prefix)) {
            suspects.push((row, known.event_id, "is gone since the event"));
        }
    }
    // Rows that were written since the events were read have newer ones.
    let mut since = HashMap::new();
    while !suspects.is_empty() {
        let read = read(conn, &mut since, &mut Vec::new(), last).await?;
        suspects.retain(|(row, ..)| !since.contains_key(row));
        if read == last {
            break;
        }
        last = read;
    }
    Ok(first(suspects))
}

/// A row, an event that names it, and what is wrong.
type Suspect = (String, String, &'static str);

fn first(suspects: Vec<Suspect>) -> Option<Fault> {
    let (row, event_id, what) = suspects.into_iter().min()?;
    Some(Fault {
        event_id,
        what: format!("the row {row} {what}"),
    })
}

/// Reads the events after a number, and returns the number of the last one. Adds rows that an event has found otherwise than
/// the event before has left them: somebody has put an older one back, and a change has given it a new MAC.
async fn read(
    conn: &impl ConnectionTrait,
    newest: &mut HashMap<String, Newest>,
    suspects: &mut Vec<Suspect>,
    mut after: i64,
) -> Result<i64, StoreError> {
    loop {
        let events: Vec<row::Model> = row::Entity::find()
            .filter(row::Column::Number.gt(after))
            .order_by_asc(row::Column::Number)
            .limit(PAGE)
            .all(conn)
            .await?;
        let Some(last) = events.last() else {
            return Ok(after);
        };
        after = last.number;
        for event in events {
            let record = pb::AuditRecord::decode(event.record.as_slice());
            let record = record.map_err(|_| StoreError::Corrupt("audit event"))?;
            for version in record.rows {
                let (event_id, mac) = (event.event_id.clone(), version.mac);
                if newest
                    .get(&version.row)
                    .is_some_and(|known| known.mac != version.before)
                {
                    let row = version.row.clone();
                    suspects.push((row, event_id.clone(), "was put back before the event"));
                }
                let number = event.number;
                let known = Newest {
                    number,
                    mac,
                    event_id,
                };
                newest.insert(version.row, known);
            }
        }
    }
}
