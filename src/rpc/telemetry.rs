//! Logs: for people on a terminal, as JSON lines otherwise; always on standard error.
//!
//! A line that is logged while a call is served has the call's request id. No module logs a secret, a
//! code, a token, a password or an account name.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter, format,
        format::{Format, JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::rpc::context;

/// Filters when `RUST_LOG` says nothing.
const DEFAULT_FILTER: &str =
    "info,sqlx=warn,sea_orm=warn,sea_orm_migration=warn,hyper=warn,h2=warn,tower=warn";

/// Begins to log for `service`, and logs panics. A second call does nothing.
///
/// `RUST_LOG` takes the place of the default filter; one that can't be read is passed over.
pub fn init(service: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = lines(io::stderr, io::stderr().is_terminal(), filter);
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            // The payload may hold anything, so only the place is told.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panic");
        }));
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
}

/// A line for each event that the filter lets through.
fn lines<W>(writer: W, terminal: bool, filter: EnvFilter) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    if terminal {
        Box::new(lines.event_format(OfCall::text(format())).with_filter(filter))
    } else {
        let json = OfCall::json(format().json().flatten_event(true));
        Box::new(
            lines
                .fmt_fields(JsonFields::new())
                .event_format(json)
                .with_filter(filter),
        )
    }
}

/// A format whose lines end with the request id of the call that is being served, if one is.
struct OfCall<F> {
    format: F,
    is_json: bool,
}

impl<F> OfCall<F> {
    fn text(format: F) -> Self {
        Self {
            format,
            is_json: false,
        }
    }

    fn json(format: F) -> Self {
        Self {
            format,
            is_json: true,
        }
    }
}

impl<S, N, L> FormatEvent<S, N> for OfCall<Format<L>>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    Format<L>: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // Letters, digits, `-` and `_`: nothing that would have to be escaped.
        let request_id = context::request_id();
        if request_id.is_empty() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}').filter(|_| self.is_json) {
            Some(members) => writeln!(writer, "{members},\"request_id\":\"{request_id}\"}}"),
            None => writeln!(writer, "{line} request_id={request_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::{
        fs::File,
        io::{Read, Seek},
        sync::Arc,
    };

    fn logged(terminal: bool) -> String {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let filter = EnvFilter::builder().parse(DEFAULT_FILTER).unwrap();
        let guard = tracing_subscriber::registry()
            .with(lines(Arc::clone(&file), terminal, filter))
            .set_default();
        tracing::info!(port = 50051, "listening");
        tracing::info!(target: "sqlx::query", "SELECT 1");
        tracing::warn!(target: "sqlx::query", "slow statement");
        tracing::debug!("detail");
        drop(guard);
        let mut file: &File = &file;
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn statements_are_not_logged_and_lines_are_json() {
        let text = logged(false);
        let events: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let messages: Vec<_> = events.iter().map(|event| &event["message"]).collect();
        assert_eq!(messages, ["listening", "slow statement"]);
        assert_eq!(events[0]["port"], 50051);
    }

    #[tokio::test]
    async fn a_line_has_the_id_of_its_call() {
        let context = || context::CallContext {
            request_id: "request-1".into(),
            deadline: tokio::time::Instant::now(),
        };
        let text = context::scope(context(), async { logged(false) }).await;
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["request_id"], "request-1");
        }
        assert_eq!(text.lines().count(), 2);
        let text = context::scope(context(), async { logged(true) }).await;
        assert!(
            text.lines().all(|line| line.ends_with(" request_id=request-1")),
            "{text}"
        );
    }

    #[test]
    fn a_terminal_gets_lines_for_people() {
        let text = logged(true);
        assert!(text.contains("listening") && !text.starts_with('{'), "{text}");
    }
}
