//! What a verification without the service's keys leaves unchecked.

use std::{fmt, io::Write, time::Duration};

use accord::{
    clock::{Clock, SystemClock, UnixMillis},
    store::{
        Database, StoreError,
        audit::{self, RowReport},
    },
    text::page::PageRequest,
};

/// How soon an event is sealed.
pub(super) const SEALED_WITHIN: Duration = Duration::from_secs(60);
/// What was not checked of events that should be sealed.
pub(super) const UNSEALED: &str =
    "events that are older than a minute and not sealed: try again once they are, or give --service-url";

/// Nothing that was checked is wrong, but not all could be checked. The exit status is 3.
#[derive(Debug)]
pub struct PartlyChecked(pub(super) Vec<String>);

impl fmt::Display for PartlyChecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nothing is wrong in what was checked. Not checked: {}",
            self.0.join("; ")
        )
    }
}

impl std::error::Error for PartlyChecked {}

/// Returns what was not checked if an event should be sealed and is not. Only writes a line about those of the last minute.
pub(super) async fn unsealed(db: &Database, out: &mut impl Write) -> anyhow::Result<Option<String>> {
    let due = SystemClock.now().minus(SEALED_WITHIN);
    if is_unsealed(db, Some(due)).await? {
        return Ok(Some(UNSEALED.to_owned()));
    }
    if is_unsealed(db, None).await? {
        writeln!(
            out,
            "events of the last minute are not sealed yet, and were not checked: only the service can (--service-url)"
        )?;
    }
    Ok(None)
}

/// Returns whether an event from before `until` is not sealed, or any event at all. The list begins with those that are not. An event
/// that can't be read counts as one: that it is altered is told elsewhere.
pub(super) async fn is_unsealed(db: &Database, until: Option<UnixMillis>) -> Result<bool, StoreError> {
    let filter = audit::Filter {
        until,
        ..audit::Filter::default()
    };
    match audit::list(db.read(), &filter, &PageRequest::first(1)).await {
        Ok(events) => {
            let (events, _) = events.into_parts();
            Ok(events.iter().any(|event| event.position.is_none()))
        }
        Err(error) if error.is_temporary() => Err(error),
        Err(_) => Ok(true),
    }
}

/// Returns what only the keys of the service show.
pub(super) fn without_keys(rows: &RowReport) -> Vec<String> {
    let mut unchecked = Vec::new();
    if rows.unsettled > 0 {
        unchecked.push(format!(
            "{} rows that were changed by events which are not sealed yet: try again once they are, or give --service-url",
            rows.unsettled
        ));
    }
    if rows.unproven > 0 {
        unchecked.push(format!(
            "{} rows that are older than the record: give --service-url",
            rows.unproven
        ));
    }
    unchecked
}
