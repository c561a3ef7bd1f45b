//! What a resume has accepted and stepped over, as its event says.

use serde::{Deserialize, Serialize};

use super::super::{action, record::decode};

/// A run of rows that is in no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::audit) struct Stepped {
    /// The writer; empty for events that have rows of their own.
    pub(in crate::store::audit) writer: String,
    /// The first number.
    pub(in crate::store::audit) from: i64,
    /// The last number.
    pub(in crate::store::audit) through: i64,
    /// The digest of the rows that were there.
    pub(in crate::store::audit) digest: String,
}

/// What was wrong with what was sealed, and stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::audit) struct AcceptedFault {
    /// The origin of the log; empty for what is in no log.
    pub(in crate::store::audit) log: String,
    /// The digest of all that was wrong, and of the log.
    pub(in crate::store::audit) extent: String,
}

/// What a resume has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::audit) struct Accepted {
    /// The number of the event.
    pub(in crate::store::audit) number: i64,
    /// The faults of what was sealed.
    pub(in crate::store::audit) faults: Vec<AcceptedFault>,
    /// The rows that no log holds.
    pub(in crate::store::audit) rows: Vec<Stepped>,
}

/// Returns what an event says about a resume, if it is one of a resume.
pub(in crate::store::audit) fn decode_resume(number: i64, encoded: &[u8]) -> Option<Accepted> {
    let event = decode(encoded).ok()?;
    if event.action != action::AUDIT_LOG_RESUME.as_str() {
        return None;
    }
    Some(Accepted {
        number,
        faults: serde_json::from_str(event.detail.get("accepted")?).ok()?,
        rows: serde_json::from_str(event.detail.get("stepped_over")?).ok()?,
    })
}
