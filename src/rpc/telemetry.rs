//! Logs on standard error: text on a terminal, JSON lines otherwise.
//!
//! A line that is logged during a call has the call's request id. No module logs a secret, a code, a token, a password or
//! an account name.

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

/// The filter without `RUST_LOG`.
const DEFAULT_FILTER: &str =
    "info,sqlx=warn,sea_orm=warn,sea_orm_migration=warn,hyper=warn,h2=warn,tower=warn";

/// Starts the log of `service`, which includes panics. A second call does nothing.
///
/// `RUST_LOG` replaces the default filter, unless it is malformed.
pub fn init(service: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = lines(io::stderr, io::stderr().is_terminal(), filter);
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            // The payload may hold a secret, so only the place is logged.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panic");
        }));
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    }
}

/// Returns the layer that writes a line for each event that passes the filter.
fn lines<W>(writer: W, terminal: bool, filter: EnvFilter) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    if terminal {
        let is_json = false;
        let format = WithRequestId {
            format: format(),
            is_json,
        };
        Box::new(lines.event_format(format).with_filter(filter))
    } else {
        let is_json = true;
        let format = format().json().flatten_event(true);
        let format = WithRequestId { format, is_json };
        let lines = lines.fmt_fields(JsonFields::new()).event_format(format);
        Box::new(lines.with_filter(filter))
    }
}

/// A format that adds the request id of the current call, if any, to the end of a line.
struct WithRequestId<F> {
    format: F,
    is_json: bool,
}

impl<S, N, L> FormatEvent<S, N> for WithRequestId<Format<L>>
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
        // Letters, digits, `-` and `_`, which need no escaping.
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
    async fn a_line_has_the_request_id_of_its_call() {
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
    fn a_terminal_gets_text() {
        let text = logged(true);
        assert!(text.contains("listening") && !text.starts_with('{'), "{text}");
    }
}
