//! Following a feed of changes: up to where it was told, and since when that is known to be complete.
//! What is remembered beside it, and which change takes what away, is the business of who follows.

use std::time::Duration;

use accord::position::Position;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// How long an answer may take; a later one would renew little.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// How far a feed was followed.
#[derive(Debug, Default)]
pub struct Followed {
    /// Up to where the feed was told; `None` before the first answer.
    position: Option<Position>,
    /// When the question was sent whose answer left nothing behind it; `None` until there is one.
    complete_at: Option<Instant>,
}

impl Followed {
    /// The position after which changes are wanted; `None` before the first answer.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The feed's position, and since when all of it is known, if that is no longer ago than `life`.
    pub fn lease(&self, at: Instant, life: Duration) -> Option<(Position, Instant)> {
        let (position, complete_at) = (self.position.as_ref()?, self.complete_at?);
        let age = at.checked_duration_since(complete_at).unwrap_or(Duration::ZERO);
        (age <= life).then(|| (position.clone(), complete_at))
    }

    /// Whether all that was committed before this moment is known.
    pub fn is_complete_since(&self, wanted_at: Instant) -> bool {
        self.complete_at
            .is_some_and(|complete_at| complete_at >= wanted_at)
    }

    /// Whether no change that an answer of this position does not know has gone by. Only such an answer
    /// may be remembered: from then on the feed takes it away when it changes.
    pub fn covers(&self, position: &Position) -> bool {
        let told = self.position.as_ref();
        told.is_some_and(|told| told.epoch == position.epoch && told.seq <= position.seq)
    }

    /// Moves on to `position`. `complete_at` is when the question was sent; `None` for an answer behind
    /// which more changes wait, which renews no lease.
    pub fn advance(&mut self, position: Position, complete_at: Option<Instant>) {
        self.position = Some(position);
        self.complete_at = complete_at.or(self.complete_at);
    }

    /// Begins anew behind `position`, in another feed or the same; nothing is complete until the next
    /// [`Self::advance`] says so.
    pub fn restart(&mut self, position: Position) {
        self.position = Some(position);
        self.complete_at = None;
    }
}

/// Calls `poll`, which takes no longer than [`PATIENCE`], every so often until `stop`.
pub async fn follow<F>(feed: &'static str, every: Duration, stop: &CancellationToken, poll: impl Fn() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    let polls = async {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            ticks.tick().await;
            let succeeds = poll().await.is_ok();
            if succeeds != answered {
                tracing::info!(feed, answers = succeeds, "a feed of changes");
                answered = succeeds;
            }
        }
    };
    stop.run_until_cancelled(polls).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_millis(700);

    fn position(epoch: &str, seq: i64) -> Position {
        Position {
            epoch: accord::testing::epoch(epoch),
            seq,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_runs_from_the_question_and_only_a_complete_answer_renews_it() {
        let mut followed = Followed::default();
        let start = Instant::now();
        assert_eq!(followed.lease(start, LIFE), None);
        followed.restart(position("a", 3));
        assert_eq!(followed.lease(start, LIFE), None, "nothing is complete yet");
        followed.advance(position("a", 5), None);
        assert_eq!(followed.lease(start, LIFE), None, "more waits");
        followed.advance(position("a", 6), Some(start));
        tokio::time::advance(LIFE).await;
        let held = followed.lease(Instant::now(), LIFE);
        assert_eq!(held, Some((position("a", 6), start)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(followed.lease(Instant::now(), LIFE), None);
        followed.advance(position("a", 7), None);
        assert_eq!(
            followed.lease(Instant::now(), LIFE),
            None,
            "an incomplete answer renews nothing"
        );
    }

    #[test]
    fn only_what_was_read_at_the_position_or_later_may_be_remembered() {
        let mut followed = Followed::default();
        assert!(!followed.covers(&position("a", 9)), "nothing is followed yet");
        followed.restart(position("a", 5));
        assert!(!followed.covers(&position("a", 4)));
        assert!(followed.covers(&position("a", 5)) && followed.covers(&position("a", 6)));
        assert!(!followed.covers(&position("b", 6)));
    }
}
