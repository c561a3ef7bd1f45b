//! The MACs of events. Until an event is sealed in the log, its MAC shows that a holder of the keys has written it.

use crate::{
    keys::{DataKey, Keyring},
    store::StoreError,
};

/// The purpose of the data key.
pub const KEYRING_PURPOSE: &str = "audit-event";

/// Returns the key for new events.
///
/// # Errors
/// [`StoreError::Corrupt`] before a keyring was opened: no event is written without a MAC.
pub(in crate::store) fn current(keyring: Option<&Keyring>) -> Result<DataKey, StoreError> {
    let keyring = keyring.ok_or(StoreError::Corrupt("no key protects audit events"))?;
    Ok(keyring.current(KEYRING_PURPOSE)?.clone())
}

/// Returns the MAC of an event in a row of its own.
pub(super) fn of_event(key: &DataKey, number: i64, record: &[u8]) -> [u8; 32] {
    key.hmac(&[b"event", &number.to_be_bytes(), record])
}

/// Returns the MAC of a group. The root stands for its events.
pub(super) fn of_group(key: &DataKey, writer: &str, number: i64, size: i32, root: &[u8]) -> [u8; 32] {
    key.hmac(&[
        b"group",
        writer.as_bytes(),
        &number.to_be_bytes(),
        &size.to_be_bytes(),
        root,
    ])
}
