//! The change counter and the record: what one says of the other.

use sea_orm::entity::prelude::*;

use super::{check::check_event, row};
use crate::store::{Keyed, StoreError, Transaction, change, log};

/// Checks that the counter is not behind what is sealed: otherwise somebody has put back an older one.
///
/// # Errors
/// [`StoreError::Altered`].
pub async fn check_counter(conn: &impl Keyed) -> Result<(), StoreError> {
    // Before the counter: the log follows it.
    let sealed = sealed_number(conn).await?;
    check_sealed(sealed, change::last_event_number(conn).await?)
}

/// Returns the number of the last event that the open log holds; `None` if no holder of the keys has written what it says.
pub(super) async fn sealed_number(conn: &impl Keyed) -> Result<Option<i64>, StoreError> {
    let log = match log::current(conn).await {
        Err(StoreError::Corrupt(_)) => None,
        log => log?,
    };
    let keys = conn.keys();
    let log = log.filter(|log| keys.is_some_and(|keys| log.is_authentic(&keys)));
    Ok(log.and_then(|log| log.position.parse().ok()))
}

pub(super) fn check_sealed(sealed: Option<i64>, counted: i64) -> Result<(), StoreError> {
    match sealed.is_some_and(|sealed| counted < sealed) {
        true => Err(StoreError::Altered("change_counter")),
        false => Ok(()),
    }
}

/// Removes what somebody without the keys has put at the numbers that were reserved: it would keep every change from being
/// recorded. Returns whether there was something.
///
/// # Errors
/// [`StoreError::Altered`] if a holder of the keys has written it: then it is the counter that somebody has put back.
pub(super) async fn remove_beyond(tx: &Transaction, first: i64, more: usize) -> Result<bool, StoreError> {
    let is_reserved = row::Column::Number.between(first, first.saturating_add(more as i64));
    let found = row::Entity::find().filter(is_reserved.clone()).all(tx).await?;
    let keys = tx.keys();
    let is_theirs = |row| keys.as_deref().is_some_and(|keys| check_event(keys, row).is_ok());
    if found.iter().any(is_theirs) {
        return Err(StoreError::Altered("change_counter"));
    }
    if !found.is_empty() {
        row::Entity::delete_many().filter(is_reserved).exec(tx).await?;
        tracing::error!("rows that somebody without the keys had put into audit_events were removed");
    }
    Ok(!found.is_empty())
}
