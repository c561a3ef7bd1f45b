//! Logs: for people on a terminal, as JSON lines otherwise; always on standard error.
//!
//! No module logs a secret, a code, a token, a password or an account name.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

/// Filters when `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str = "info,sqlx=warn,sea_orm=warn,sea_orm_migration=warn,hyper=warn,h2=warn,tower=warn";

/// Begins to log for `service`, and logs panics. A second call does nothing.
pub fn init(service: &'static str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = if io::stderr().is_terminal() {
        Box::new(lines.with_filter(filter))
    } else {
        Box::new(lines.json().flatten_event(true).with_filter(filter))
    };
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            // The payload may hold anything, so only the place is told.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panic");
        }));
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
}
