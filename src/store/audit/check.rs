//! Checks of the rows of events: who has written them, that their columns say what their events say, and that the counter has
//! counted them.

use subtle::ConstantTimeEq;

use super::{
    Renewal,
    group::{self, events},
    protection::{KEYRING_PURPOSE, of_event, of_group},
    record::{decode, id_and_renewal},
    row,
};
use crate::{
    keys::{DataKey, Keyring},
    store::{Keyed, StoreError, Transaction, log, removal::delete_forged},
    text::id::{ClientId, EventId, TenantId},
    tlog::{GroupTree, TreeHead},
};

/// What is wrong with a row of a key version that this replica has not read, but others may have.
pub const UNREAD_VERSION: &str = "no key has its version yet";

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Altered(pub(super) &'static str);

/// Checks a row with an event of its own: its MAC, and that the columns for searches say what the event says.
pub(super) fn check_event(keyring: &Keyring, row: &row::Model) -> Result<(), Altered> {
    check_event_mac(keyring, row)?;
    check_columns(row)
}

/// Checks that a holder of the keys has written an event.
pub(super) fn check_event_mac(keyring: &Keyring, row: &row::Model) -> Result<(), Altered> {
    let key = key(keyring, row.key_version)?;
    check_mac(&row.mac, of_event(key, row.number, &row.record))
}

/// Checks that the columns for searches say what the event says.
pub(super) fn check_columns(row: &row::Model) -> Result<(), Altered> {
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

/// Checks a group: its MAC, and that its root, size and times are those of its events. Returns the head of its tree.
pub(super) fn check_group(keyring: &Keyring, row: &group::Model) -> Result<TreeHead, Altered> {
    check_group_mac(keyring, row)?;
    Ok(check_contents(row)?.0)
}

/// Checks that a holder of the keys has written a group's head.
pub(super) fn check_group_mac(keyring: &Keyring, row: &group::Model) -> Result<(), Altered> {
    let key = key(keyring, row.key_version)?;
    let expected = of_group(key, &row.writer, row.number, row.size, &row.root);
    check_mac(&row.mac, expected)
}

/// A renewal, and the event that records it.
pub(super) type RenewalEvent = (EventId, Renewal);

/// Checks that the root, the size and the times of a group are those of its events. Returns the head of its tree, and the renewals
/// that the events record.
pub(super) fn check_contents(row: &group::Model) -> Result<(TreeHead, Vec<RenewalEvent>), Altered> {
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
        true => Ok((head, renewals)),
        false => Err(Altered("a column differs from the events")),
    }
}

fn key(keyring: &Keyring, version: i32) -> Result<&DataKey, Altered> {
    let key = keyring.for_mac(KEYRING_PURPOSE, version);
    key.map_err(|_| Altered(UNREAD_VERSION))?
        .ok_or(Altered("no key has its version"))
}

fn check_mac(mac: &[u8], expected: [u8; 32]) -> Result<(), Altered> {
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
