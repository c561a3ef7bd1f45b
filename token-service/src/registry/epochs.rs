//! Whether the registry's answers count: those of two databases don't.

use std::time::Duration;

use accord::{
    lock::Lock,
    log_limit::LogLimit,
    position::{Epoch, Position},
    registry::v1 as pb,
};
use tokio::time::Instant;

use super::answer::unexpected;
use crate::error::{Error, Result};

/// How long an epoch must have been silent before another one counts. Many times the period at which the change feed is
/// polled, so that each of several registries answers within it.
pub const SILENCE: Duration = Duration::from_secs(5);

/// The epochs of the last answers, and when each answered last.
#[derive(Debug, Default)]
pub(super) struct Epochs(Lock<Vec<(Epoch, Instant)>>);

impl Epochs {
    /// Notes the position of an answer. Rejects it if another epoch answered within [`SILENCE`]: then two registries serve
    /// different databases, such as one and a copy of it, and what was revoked in one of them may be valid in the other.
    /// Which one is right can't be known here, and each replica would choose its own.
    pub(super) fn admit(&self, position: Option<pb::FeedPosition>) -> Result<Position> {
        static LIMIT: LogLimit = LogLimit::new(SILENCE);
        let pb::FeedPosition { epoch, seq } = position.ok_or_else(|| unexpected("position"))?;
        let epoch = Epoch::parse(&epoch).map_err(|_| unexpected("epoch"))?;
        let mut answered = self.0.lock();
        answered.retain(|(other, at)| *other != epoch && at.elapsed() < SILENCE);
        answered.push((epoch.clone(), Instant::now()));
        if answered.len() == 1 {
            return Ok(Position { epoch, seq });
        }
        if let Some(unlogged) = LIMIT.check("") {
            let epochs: Vec<_> = answered.iter().map(|(epoch, _)| epoch.as_str()).collect();
            tracing::error!(?epochs, unlogged, "registries of two databases answer");
        }
        Err(Error::RegistryUnavailable)
    }
}
