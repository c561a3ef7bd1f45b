//! The deletion of what time ends, in both services.

use std::{future::Future, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use tokio_util::sync::CancellationToken;

use super::{MAX_CLOCK_SKEW, Service, every};
use crate::{
    random::SystemRandom,
    store::{audit, change, idempotency, log},
};

/// How long the change feed keeps changes. A replica that did not follow for so long starts again.
const KEEP_CHANGES: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long signed heads of the audit record's log are kept: there is one a second.
const KEEP_HEADS: Duration = Duration::from_secs(24 * 3600);
/// How often expired rows are deleted.
const DELETION_PERIOD: Duration = Duration::from_secs(60);

/// Deletes what time ends. Each kind on its own: what stops one of them, or makes it long, holds up no other.
pub(super) async fn delete_expired(service: &impl Service, stop: &CancellationToken) {
    let (db, clock) = (service.database(), service.clock());
    let answers = move || async move {
        service.options().address_limit.forget_idle();
        idempotency::delete_expired(db, clock.now()).await?;
        anyhow::Ok(())
    };
    let changes =
        move || async move { anyhow::Ok(change::delete_before(db, clock.now().minus(KEEP_CHANGES)).await?) };
    let heads =
        move || async move { anyhow::Ok(log::delete_heads_before(db, clock.now().minus(KEEP_HEADS)).await?) };
    // Boxed, as all that this process does beside its calls: the future of the process would be too large for the stack of a
    // thread.
    let kinds: [BoxFuture<'_, ()>; 5] = [
        Box::pin(every_minute(answers)),
        Box::pin(every_minute(changes)),
        Box::pin(every_minute(heads)),
        Box::pin(every_minute(|| delete_old_events(service))),
        Box::pin(every_minute(|| service.delete_expired())),
    ];
    stop.run_until_cancelled(join_all(kinds)).await;
}

/// Deletes sealed events by age, unless this clock differs from the database's: young events are old by a clock that has jumped.
pub(super) async fn delete_old_events(service: &impl Service) -> anyhow::Result<()> {
    let (db, clock) = (service.database(), service.clock());
    let since = match service.options().audit_retention {
        Some(kept) if db.clock_skew(clock).await? <= MAX_CLOCK_SKEW => clock.now().minus(kept),
        _ => return Ok(()),
    };
    let deleted = audit::delete_before(db, clock, &SystemRandom, since).await?;
    if let Some((log, leaf)) = deleted.stopped_at {
        tracing::error!(log, leaf, "retention stopped at an altered leaf");
    }
    audit::delete_ended_writers(db, since).await?;
    Ok(())
}

async fn every_minute<T, F: Future<Output = anyhow::Result<T>>>(delete: impl Fn() -> F) {
    let mut ticks = every(DELETION_PERIOD);
    loop {
        ticks.tick().await;
        if let Err(error) = delete().await {
            tracing::warn!(error = format!("{error:#}"), "expired rows were not deleted");
        }
    }
}
