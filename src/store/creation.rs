//! What every creating call brings beside the thing to create.

use uuid::Uuid;

use super::{audit::Origin, idempotency};

/// Who creates, by which method, and under which request id.
#[derive(Clone, Debug)]
pub struct Creation {
    /// Where the call comes from.
    pub origin: Origin,
    /// The method's name; a request id used with another method counts as other content.
    pub method: &'static str,
    /// The caller's `request_id`.
    pub request_id: Option<Uuid>,
    /// The call's content, encoded; kept as a keyed hash only.
    pub content: zeroize::Zeroizing<Vec<u8>>,
}

impl Creation {
    /// The same, as [`idempotency::begin`] takes it.
    pub fn idempotency(&self) -> idempotency::Request<'_> {
        idempotency::Request {
            principal: &self.origin.actor.id,
            method: self.method,
            request_id: self.request_id,
            content: &self.content,
        }
    }
}
