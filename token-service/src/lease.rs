//! How long the registry's answers count: a lease that runs from the moment the first question was sent,
//! by a clock that only goes forward. An answer reflects all that was committed before its question, so
//! nothing that was decided within the lease is older than the lease.

use std::time::Duration;

use tokio::time::Instant;

use crate::registry::At;

/// How long answers count.
pub const LIFE: Duration = Duration::from_millis(700);

/// How often a decision is begun anew when answers come too late, or something changed meanwhile. Then
/// the call is unavailable: trying again later may help.
pub const ATTEMPTS: usize = 3;

/// A lease on what the registry says.
#[derive(Clone, Copy, Debug)]
pub struct Lease(Instant);

impl Lease {
    /// Begins a lease; the questions come after.
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    /// Adds an answer; the lease ends with the first of those that it is on.
    pub fn on<T>(&mut self, answer: &At<T>) {
        self.0 = self.0.min(answer.asked_at);
    }

    /// Whether the answers to these questions still count.
    pub fn holds(self) -> bool {
        self.0.elapsed() <= LIFE
    }
}
