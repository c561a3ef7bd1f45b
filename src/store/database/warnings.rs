//! Warnings of PostgreSQL. The driver hands them to `tracing` alone, and one of them must not be missed: a COMMIT that
//! was cancelled while it waited for a synchronous standby reports success, with the warning that a failover may lose
//! what it committed.

use std::{cell::Cell, future::poll_fn, pin::pin, sync::LazyLock};

use tracing::{
    Dispatch, Event, Level, Metadata, Subscriber, dispatcher,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
};

/// The target of the driver's events.
const TARGET: &str = "sqlx::postgres::notice";

/// The error of a statement that was answered with a warning.
#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL answered with a warning: what it committed may be on one host alone")]
pub(in crate::store) struct Warned;

thread_local! {
    /// Whether the driver has passed on a warning since this was last reset.
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

/// Runs an operation on a connection. Returns its result, and whether the server sent a warning meanwhile.
pub(in crate::store) async fn watched<T>(operation: impl Future<Output = T>) -> (T, bool) {
    static WARNINGS: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Warnings));
    let (mut operation, mut warned) = (pin!(operation), false);
    poll_fn(|context| {
        WARNED.set(false);
        let poll = dispatcher::with_default(&WARNINGS, || operation.as_mut().poll(context));
        warned |= WARNED.get();
        poll.map(|result| (result, warned))
    })
    .await
}

/// Receives the driver's warnings, and nothing else, on the thread that polls the operation.
struct Warnings;

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, _: &Event<'_>) {
        WARNED.set(true);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
#[path = "../tests/warnings.rs"]
mod tests;
