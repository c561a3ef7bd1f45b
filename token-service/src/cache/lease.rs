//! How long answers count: leases that run from the moment the first question was sent, by a clock that
//! only goes forward. An answer reflects all that was committed before its question, so nothing that was
//! decided within the leases is older than they are.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::watermark::At;

/// How long answers count. Answers of the registry may be given longer: `--registry-stale-max`.
pub const LIFE: Duration = Duration::from_millis(700);

/// How often a decision is begun anew when answers come too late, or something changed meanwhile. Then
/// the call is unavailable: trying again later may help.
pub const ATTEMPTS: usize = 3;

/// Leases on what the registry says, and on what this service's own database does.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    registry: Instant,
    own: Instant,
    registry_life: Duration,
}

impl Lease {
    /// Begins both; the questions come after.
    pub fn begin(registry_life: Duration) -> Self {
        let now = Instant::now();
        Self {
            registry: now,
            own: now,
            registry_life,
        }
    }

    /// Adds an answer of the registry; the lease ends with the first of those that it is on.
    pub fn on_registry<T>(&mut self, answer: &At<T>) {
        self.registry = self.registry.min(answer.asked_at);
    }

    /// Adds an answer of this service's own database.
    pub fn on_own<T>(&mut self, answer: &At<T>) {
        self.own = self.own.min(answer.asked_at);
    }

    /// Whether the answers to these questions still count.
    pub fn holds(self) -> bool {
        self.registry.elapsed() <= self.registry_life && self.own.elapsed() <= LIFE
    }
}

#[cfg(test)]
mod tests {
    use accord::position::Position;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_older_answer_ends_a_lease_first() {
        let answer = At {
            value: (),
            position: Position {
                epoch: accord::testing::epoch("a"),
                seq: 1,
            },
            asked_at: Instant::now(),
        };
        tokio::time::advance(Duration::from_millis(100)).await;
        let stale = LIFE + Duration::from_secs(5);
        let (mut by_registry, mut by_own, mut allowed) =
            (Lease::begin(LIFE), Lease::begin(LIFE), Lease::begin(stale));
        by_registry.on_registry(&answer);
        by_own.on_own(&answer);
        allowed.on_registry(&answer);
        tokio::time::advance(LIFE - Duration::from_millis(100)).await;
        assert!(by_registry.holds() && by_own.holds());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!by_registry.holds() && !by_own.holds() && allowed.holds());
        // Only the registry's answers may be older than that.
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!allowed.holds());
    }
}
