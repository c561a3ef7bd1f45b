//! Follows the registry's feed of changes, and tells the registry which secrets were used.

use std::time::Duration;

use accord::position::Position;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::Directory;
use crate::model::client::SecretUse;
use crate::{cache::follower, error::Error};

/// How often uses of secrets are reported.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Uses in one report.
const MOST_USES: usize = 1_000;

/// Follows the feed until `stop`, then reports the last uses.
pub async fn follow(directory: &Directory, every: Duration, stop: &CancellationToken) {
    let reports = async {
        let mut ticks = interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            report(directory).await;
        }
    };
    tokio::join!(
        follower::follow("registry", every, stop, || ask(directory)),
        stop.run_until_cancelled(reports),
    );
    report(directory).await;
}

/// Asks what changed, and on until nothing more waits. Every answer says up to where it is complete, so an
/// answer that is lost or late is asked for again from the same place: no change can be missed.
pub(super) async fn ask(directory: &Directory) -> Result<(), Error> {
    let wanted_at = Instant::now();
    let asked = async {
        let _turn = directory.asking.lock().await;
        // Whoever had the turn before may have asked since.
        if directory.cache.is_complete_since(wanted_at) {
            return Ok(());
        }
        ask_in_turn(directory).await
    };
    // Nobody keeps the turn for longer than its answer would be worth.
    timeout(follower::PATIENCE, asked)
        .await
        .unwrap_or(Err(Error::RegistryUnavailable))
}

async fn ask_in_turn(directory: &Directory) -> Result<(), Error> {
    let cache = &directory.cache;
    let mut has_restarted = false;
    loop {
        let asked_at = Instant::now();
        let after = cache.position().filter(|_| !cache.may_catch_up());
        let is_first = after.is_none();
        let told = directory.registry.changes_after(after).await?;
        if told.reset || is_first {
            if has_restarted {
                return Err(Error::RegistryUnavailable);
            }
            has_restarted = true;
            cache.restart(Position {
                seq: told.recent_seq.min(told.position.seq).max(0),
                epoch: told.position.epoch,
            });
            continue;
        }
        let more = told.more;
        cache.apply(told, asked_at);
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
        // What was used meanwhile is for the next report: else a busy client would make this endless.
        if count < MOST_USES {
            return;
        }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
