//! What a resume has stepped over, as the event of the resume says.

use serde::{Deserialize, Serialize};

use super::record::decode;

/// The action of the event that starts a log after a fault.
pub(super) const RESUME: &str = "audit_log.resume";

/// A run of rows that is in no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stepped {
    /// The writer; empty for events that have rows of their own.
    pub(super) writer: String,
    /// The first number.
    pub(super) from: i64,
    /// The last number.
    pub(super) through: i64,
}

/// The fault that a resume has accepted, and what it has stepped over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// The log that ended.
    pub(super) old_origin: String,
    /// The fault, as a verification or the sealer words it.
    pub(super) fault: String,
    /// The rows that no log holds.
    pub(super) rows: Vec<Stepped>,
}

/// Returns what an event says about a resume, if it is one of a resume.
pub(super) fn decode_resume(encoded: &[u8]) -> Option<Accepted> {
    let event = decode(encoded).ok()?;
    if event.action != RESUME {
        return None;
    }
    Some(Accepted {
        old_origin: event.detail.get("old_log")?.clone(),
        fault: event.detail.get("fault")?.clone(),
        rows: serde_json::from_str(event.detail.get("stepped_over")?).ok()?,
    })
}
