//! Checks of the rows of events: who has written them, that their columns say what their events say, and that the counter has
//! counted them.

use subtle::ConstantTimeEq;

use super::{
    Renewal,
    group::{self, events},
    leaf_rows::Row,
    protection::{KEYRING_PURPOSE, of_event, of_group},
    record::{decode, id_and_renewal},
    row,
};
use crate::{
    keys::{DataKey, Keyring},
    store::{Keyed, StoreError, Transaction, log, removal::delete_forged},
    text::id::{ClientId, EventId, TenantId},
    tlog::{GroupTree, Hash, event_leaf, group_leaf},
};

/// What is wrong with a row of a key version that this replica has not read, but others may have.
pub const UNREAD_VERSION: &str = "no key has its version yet";

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Altered(pub(super) &'static str);

/// A renewal, and the event that records it.
pub(super) type RenewalEvent = (EventId, Renewal);

/// What the events of a row say: its leaf, how many they are, and the renewals that they record.
pub(super) struct Contents {
    pub(super) leaf: Hash,
    pub(super) events: u64,
    pub(super) renewals: Vec<RenewalEvent>,
}

/// Checks a row: its MAC, and that its columns say what its events say.
pub(super) fn check(keyring: &Keyring, row: &Row) -> Result<Contents, Altered> {
    check_mac(keyring, row)?;
    check_contents(row)
}

/// Checks that a holder of the keys has written a row.
pub(super) fn check_mac(keyring: &Keyring, row: &Row) -> Result<(), Altered> {
    match row {
        Row::Own(row) => check_event_mac(keyring, row),
        Row::Group(row) => {
            let key = key(keyring, row.key_version)?;
            compare_mac(
                &row.mac,
                of_group(key, &row.writer, row.number, row.size, &row.root),
            )
        }
    }
}

/// Checks that the columns of a row say what its events say.
pub(super) fn check_contents(row: &Row) -> Result<Contents, Altered> {
    match row {
        Row::Own(row) => {
            check_columns(row)?;
            let renewal = id_and_renewal(&row.record).ok();
            let renewal = renewal.and_then(|(id, renewal)| Some((EventId::of(id), renewal?)));
            Ok(Contents {
                leaf: event_leaf(&row.record),
                events: 1,
                renewals: renewal.into_iter().collect(),
            })
        }
        Row::Group(row) => check_group(row),
    }
}

/// Checks a row with an event of its own: its MAC, and that the columns for searches say what the event says.
pub(super) fn check_event(keyring: &Keyring, row: &row::Model) -> Result<(), Altered> {
    check_event_mac(keyring, row)?;
    check_columns(row)
}

/// Checks that a holder of the keys has written an event.
pub(super) fn check_event_mac(keyring: &Keyring, row: &row::Model) -> Result<(), Altered> {
    let key = key(keyring, row.key_version)?;
    compare_mac(&row.mac, of_event(key, row.number, &row.record))
}

/// Checks that the columns for searches say what the event says.
fn check_columns(row: &row::Model) -> Result<(), Altered> {
    let event = decode(&row.record).map_err(|_| Altered("it holds no event"))?;
    let columns = (
        row.event_id.as_str(),
        row.action.as_str(),
        row.outcome.as_str(),
        row.actor_id.as_str(),
        row.tenant_id.as_deref(),
        row.client_id.as_deref(),
        row.subject.as_deref(),
    );
    let said = (
        event.event_id.as_str(),
        event.action.as_str(),
        event.outcome.as_ref(),
        event.actor.id.as_str(),
        event.tenant_id.as_ref().map(TenantId::as_str),
        event.client_id.as_ref().map(ClientId::as_str),
        event.subject.as_deref(),
    );
    match columns == said {
        true => Ok(()),
        false => Err(Altered("a column differs from the event")),
    }
}

/// Checks that the root, the size and the times of a group are those of its events.
fn check_group(row: &group::Model) -> Result<Contents, Altered> {
    const NO_EVENTS: Altered = Altered("it holds no events");
    let events = events(&row.events).map_err(|_| NO_EVENTS)?;
    let head = GroupTree::new(&events).head();
    if head.root.0 != row.root[..] || i32::try_from(head.size) != Ok(row.size) {
        return Err(Altered("the root is not that of the events"));
    }
    let (mut ids, mut renewals) = (Vec::with_capacity(events.len()), Vec::new());
    for event in events {
        let (id, renewal) = id_and_renewal(event).map_err(|_| NO_EVENTS)?;
        ids.push(id);
        renewals.extend(renewal.map(|renewal| (EventId::of(id), renewal)));
    }
    let first = EventId::of(ids.iter().min().copied().ok_or(NO_EVENTS)?);
    let last = EventId::of(ids.iter().max().copied().ok_or(NO_EVENTS)?);
    match (first.as_str(), last.as_str()) == (row.first_event_id.as_str(), row.last_event_id.as_str()) {
        true => Ok(Contents {
            leaf: group_leaf(&head),
            events: head.size,
            renewals,
        }),
        false => Err(Altered("a column differs from the events")),
    }
}

fn key(keyring: &Keyring, version: i32) -> Result<&DataKey, Altered> {
    let key = keyring.for_mac(KEYRING_PURPOSE, version);
    key.map_err(|_| Altered(UNREAD_VERSION))?
        .ok_or(Altered("no key has its version"))
}

fn compare_mac(mac: &[u8], expected: [u8; 32]) -> Result<(), Altered> {
    match bool::from(mac.ct_eq(&expected)) {
        true => Ok(()),
        false => Err(Altered("its MAC is wrong")),
    }
}

/// Returns the number of the last event that the open log holds; `None` if no holder of the keys has written what it says.
pub async fn sealed_number(conn: &impl Keyed) -> Result<Option<i64>, StoreError> {
    let log = match log::current(conn).await {
        Err(StoreError::Corrupt(_)) => None,
        log => log?,
    };
    let keys = conn.keys();
    let log = log.filter(|log| keys.is_some_and(|keys| log.is_authentic(&keys)));
    Ok(log.and_then(|log| log.position.parse().ok()))
}

/// Makes room for the events that get the numbers after `counted`, up to `last`: as [`delete_forged`].
pub(super) async fn remove_beyond(tx: &Transaction, range: (i64, i64)) -> Result<bool, StoreError> {
    let keys = tx.keys();
    let is_ours = |row: &row::Model| match keys.as_deref() {
        // Its columns for searches may be edited: it is ours by its MAC.
        Some(keys) => {
            let is_known = keys.for_mac(KEYRING_PURPOSE, row.key_version)?.is_some();
            Ok(is_known && check_event_mac(keys, row).is_ok())
        }
        None => Ok(false),
    };
    delete_forged::<row::Entity>(tx, row::Column::Number, range, is_ours).await
}
