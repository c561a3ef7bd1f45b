//! Follows the registry's feed of changes, and tells the registry which secrets were used.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Directory, SecretUse};
use crate::{error::Error, registry::Changes};

/// How long an answer may take; a later one would renew little.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often uses of secrets are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Uses in one report.
const MOST_USES: usize = 1_000;

/// Follows the feed until `stop`, then reports the last uses.
pub async fn follow(directory: &Directory, every: Duration, stop: &CancellationToken) {
    let polls = async {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            ticks.tick().await;
            let poll = timeout(PATIENCE, poll(directory)).await;
            let succeeds = matches!(poll, Ok(Ok(())));
            if succeeds != answered {
                tracing::info!(answers = succeeds, "the registry's feed of changes");
                answered = succeeds;
            }
        }
    };
    let reports = async {
        let mut ticks = interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            report(directory).await;
        }
    };
    stop.run_until_cancelled(async { tokio::join!(polls, reports) })
        .await;
    report(directory).await;
}

/// Asks once, and on until nothing more waits. Every answer says up to where it is complete, so an answer
/// that is lost or late is asked for again from the same place: no change can be missed.
async fn poll(directory: &Directory) -> Result<(), Error> {
    loop {
        let asked_at = Instant::now();
        let after = directory.cache.position();
        let is_first = after.is_none();
        let Changes {
            changes,
            position,
            reset,
            more,
        } = directory.registry.changes_after(after).await?;
        if reset || is_first {
            directory.cache.reset(position, asked_at);
        } else {
            directory
                .cache
                .apply(&changes, position, (!more).then_some(asked_at));
        }
        if !more {
            return Ok(());
        }
    }
}

async fn report(directory: &Directory) {
    loop {
        let uses: Vec<SecretUse> = directory.cache.take_uses(MOST_USES);
        if uses.is_empty() {
            return;
        }
        let count = uses.len();
        if let Err(error) = directory.registry.report_secret_use(&uses).await {
            tracing::warn!(%error, count, "uses of secrets were not reported");
            directory.cache.give_back(uses);
            return;
        }
    }
}
