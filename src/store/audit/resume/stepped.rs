//! What a resume has stepped over, as the event of the resume says.

use serde::{Deserialize, Serialize};

use super::super::record::decode;

/// The action of the event that starts a log after a fault.
pub(in crate::store::audit) const RESUME: &str = "audit_log.resume";

/// A run of rows that is in no log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::audit) struct Stepped {
    /// The writer; empty for events that have rows of their own.
    pub(in crate::store::audit) writer: String,
    /// The first number.
    pub(in crate::store::audit) from: i64,
    /// The last number.
    pub(in crate::store::audit) through: i64,
}

/// The fault that a resume has accepted, and what it has stepped over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store::audit) struct Accepted {
    /// The log that ended.
    pub(in crate::store::audit) old_origin: String,
    /// The fault, as a verification or the sealer words it.
    pub(in crate::store::audit) fault: String,
    /// The rows that no log holds.
    pub(in crate::store::audit) rows: Vec<Stepped>,
}

/// Returns what an event says about a resume, if it is one of a resume.
pub(in crate::store::audit) fn decode_resume(encoded: &[u8]) -> Option<Accepted> {
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
