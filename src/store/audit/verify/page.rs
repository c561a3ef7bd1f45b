//! A page of leaves: what the log has of them, what they name, and whether both fit together.

use std::{collections::HashMap, ops::Range};

use sea_orm::{QueryOrder, entity::prelude::*};

use super::{
    super::{
        Action, action,
        check::{Contents, RenewalEvent, check_contents, check_mac},
        extent::Extent,
        leaf_rows::{Row, leaf, rows},
        protection::KEYRING_PURPOSE,
    },
    Fault, whole,
};
use crate::{
    keys::Keyring,
    store::{StoreError, error::lasting, log},
    tlog::Hash,
};

/// How many leaves are read at a time.
pub(super) const LEAVES: u64 = 1_000;

/// Some leaves of a log, and the rows that they name.
pub(super) struct Page {
    pub(super) indexes: Range<u64>,
    /// The hashes that the log has; `None` if its tiles do not have them.
    pub(super) stored: Option<Vec<Hash>>,
    places: Vec<leaf::Model>,
    rows: HashMap<(String, i64), Row>,
    /// Leaves whose rows have values of another type.
    unreadable: HashMap<u64, String>,
}

/// What was found of a leaf.
#[derive(Default)]
pub(super) struct Leaf {
    pub(super) index: u64,
    /// What it names.
    pub(super) place: Option<(String, i64)>,
    /// The hash for the tree: the one that the log has, or else that of the row.
    pub(super) hash: Hash,
    /// The number of events, if they are what was sealed.
    pub(super) events: u64,
    /// What is wrong, and the digest of what was found.
    pub(super) fault: Option<(Fault, String)>,
    /// The same for the MAC of a row that is what was sealed, which only keys show.
    pub(super) mac_fault: Option<(Fault, String)>,
    /// An event about the record itself.
    pub(super) record_event: Option<Vec<u8>>,
    /// What the events say of refresh families.
    pub(super) renewals: Vec<RenewalEvent>,
}

impl Page {
    /// Reads some leaves. If somebody has put values of another type there, reads them one by one.
    pub(super) async fn read(
        conn: &impl ConnectionTrait,
        log_id: i64,
        indexes: Range<u64>,
    ) -> Result<Self, StoreError> {
        let mut page = Self {
            indexes: indexes.clone(),
            stored: lasting(log::leaves(conn, log_id, indexes.clone()).await)?.ok(),
            places: Vec::new(),
            rows: HashMap::new(),
            unreadable: HashMap::new(),
        };
        if let Ok(all) = lasting(named(conn, log_id, indexes.clone()).await)? {
            (page.places, page.rows) = all;
            return Ok(page);
        }
        for index in indexes {
            match lasting(named(conn, log_id, index..index + 1).await)? {
                Ok((places, rows)) => {
                    page.places.extend(places);
                    page.rows.extend(rows);
                }
                Err(error) => {
                    page.unreadable.insert(index, error.to_string());
                }
            }
        }
        Ok(page)
    }

    /// Checks every leaf, and with keys the MAC of its row. Takes most of the time of a verification, and waits for nothing.
    pub(super) fn check(self, keyring: Option<&Keyring>) -> Vec<Leaf> {
        let Self {
            indexes,
            stored,
            places,
            mut rows,
            unreadable,
        } = self;
        let mut places = places.into_iter().peekable();
        let mut stored = stored.map(Vec::into_iter);
        let mut leaves = Vec::new();
        for index in indexes {
            let stored = stored.as_mut().and_then(Iterator::next);
            let place = places.next_if(|place| place.leaf_index == index.cast_signed());
            let row = place
                .as_ref()
                .and_then(|place| rows.remove(&(place.source.clone(), place.number)));
            let mut leaf = Leaf {
                index,
                place: place.map(|place| (place.source, place.number)),
                hash: stored.unwrap_or_default(),
                ..Leaf::default()
            };
            match checked(&leaf, row.as_ref(), stored) {
                Ok(contents) => {
                    leaf.hash = contents.leaf;
                    leaf.events = contents.events;
                    leaf.renewals = contents.renewals;
                    let fault = row.as_ref().and_then(|row| mac_fault(keyring?, row));
                    leaf.mac_fault = fault.map(|fault| (fault, digest(&leaf, row.as_ref())));
                    leaf.record_event = row.and_then(about_the_record);
                }
                Err(mut fault) => {
                    if let Some(error) = unreadable.get(&index) {
                        fault.what = format!("leaf {index} can't be read: {error}");
                    }
                    leaf.fault = Some((fault, digest(&leaf, row.as_ref())));
                }
            }
            leaves.push(leaf);
        }
        leaves
    }
}

async fn named(
    conn: &impl ConnectionTrait,
    log_id: i64,
    indexes: Range<u64>,
) -> Result<(Vec<leaf::Model>, HashMap<(String, i64), Row>), StoreError> {
    let index = |number: u64| i64::try_from(number).map_err(|_| StoreError::Corrupt("audit_leaves"));
    let places = leaf::Entity::find()
        .filter(leaf::Column::LogId.eq(log_id))
        .filter(leaf::Column::LeafIndex.gte(index(indexes.start)?))
        .filter(leaf::Column::LeafIndex.lt(index(indexes.end)?))
        .order_by_asc(leaf::Column::LeafIndex)
        .all(conn)
        .await?;
    let rows = rows(conn, &places).await?;
    Ok((places, rows))
}

/// Returns what the events say of the row that a leaf names, if it is what was sealed.
fn checked(leaf: &Leaf, row: Option<&Row>, stored: Option<Hash>) -> Result<Contents, Fault> {
    let Some((source, number)) = &leaf.place else {
        return Err(whole(format!("leaf {} names no row", leaf.index)));
    };
    let row = row.ok_or_else(|| whole(format!("number {number} of `{source}` is missing")))?;
    let contents = check_contents(row).map_err(|altered| Fault::new(row.event_id(), altered.0))?;
    match stored.is_none_or(|stored| stored == contents.leaf) {
        true => Ok(contents),
        false => Err(Fault::new(row.event_id(), "it differs from what was sealed")),
    }
}

/// Returns what is wrong with the MAC of a row that is as it was sealed. Without the key of its version nobody knows.
fn mac_fault(keyring: &Keyring, row: &Row) -> Option<Fault> {
    let version = match row {
        Row::Own(row) => row.key_version,
        Row::Group(row) => row.key_version,
    };
    keyring.version(KEYRING_PURPOSE, version)?;
    let altered = check_mac(keyring, row).err()?;
    Some(Fault::new(row.event_id(), altered.0))
}

/// Returns the digest of a leaf that is not as it should be.
fn digest(leaf: &Leaf, row: Option<&Row>) -> String {
    let mut found = Extent::new();
    found.add(&leaf.index.to_be_bytes());
    if let Some((source, number)) = &leaf.place {
        found.add(source.as_bytes());
        found.add(&number.to_be_bytes());
    }
    if let Some(row) = row {
        found.add_row(row);
    }
    found.finish()
}

fn about_the_record(row: Row) -> Option<Vec<u8>> {
    const ACTIONS: [Action; 2] = [action::AUDIT_EVENTS_DELETE, action::AUDIT_LOG_RESUME];
    match row {
        Row::Own(row) if ACTIONS.iter().any(|action| row.action == action.as_str()) => Some(row.record),
        _ => None,
    }
}
