//! Logs, metrics and traces. Logs go to standard error: text on a terminal, JSON lines otherwise.
//!
//! A line that is logged during a call holds the call's request id. No module may log a secret, a code, a token, a
//! password or an account name, or put one into a metric or a span.

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{self, IsTerminal},
    net::SocketAddr,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use ::metrics::gauge;
use tracing::{Event, Subscriber, level_filters::LevelFilter};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::Directive,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter, format,
        format::{Format, JsonFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use self::{
    admin::{Admin, Readiness},
    traces::Traces,
};
use crate::{
    metrics as names,
    rpc::{config::AdminListen, context},
};

pub mod admin;
pub mod metrics;
pub(in crate::rpc) mod traces;

/// The filter that applies without `RUST_LOG`. A malformed line of a password file would be in the log with its password.
const DEFAULT_FILTER: &str = "info,sqlx=warn,sqlx_postgres::options::pgpass=off,sea_orm=warn,sea_orm_migration=warn,\
    hyper=warn,h2=warn,tower=warn";
/// The targets that `RUST_LOG` may name.
const TARGETS: [&str; 20] = [
    "accord",
    "accord_cli",
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "registry_service",
    "reqwest",
    "rustls",
    "sea_orm",
    "sea_orm_migration",
    "sqlx",
    "token_service",
    "tokio",
    "tokio_util",
    "tonic",
    "tower",
    "tower_http",
    "tracing",
];
/// The most lines that wait for a slow reader of standard error. Further lines are dropped and counted.
const MAX_WAITING_LINES: usize = 4096;

/// Counts the lines that were dropped since the start.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();
/// How many dropped lines have been reported in the log.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// Starts the log of `service`, and logs panics too. A second call changes nothing. Dropping the guard writes the last
/// lines.
///
/// A separate thread writes the lines, so that a slow or missing reader neither blocks nor ends the service.
///
/// `RUST_LOG` changes the default filter, unless it is malformed.
pub fn init(service: &str) -> WorkerGuard {
    let (filter, ignored) = filter(env::var_os("RUST_LOG").as_deref());
    let writer = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .thread_name("log");
    let (writer, guard) = writer.finish(io::stderr());
    let dropped = writer.error_counter();
    let layer = line_layer(writer, io::stderr().is_terminal(), filter);
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        let _ = DROPPED.set(dropped);
        std::panic::set_hook(Box::new(|panic| {
            // Logs only the place, because the payload may hold a secret.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panic");
        }));
        tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
        if let Some(directive) = ignored {
            tracing::warn!(
                directive,
                "RUST_LOG is ignored: it holds an unknown level or target"
            );
        }
    }
    guard
}

/// The metrics and traces of a process. Dropping them exports the last spans, within a second, and ends the admin listener.
#[derive(Debug)]
pub struct Telemetry {
    admin: Admin,
    _traces: Option<Traces>,
}

impl Telemetry {
    /// Returns what the admin listener tells of the service's readiness.
    pub fn readiness(&self) -> Readiness {
        self.admin.readiness.clone()
    }
}

/// Serves the admin listener where `listen` says, or else at `default`, and exports traces, if the environment names a collector. Call
/// it once in a process, before anything that measures is created, and inside a tokio runtime.
///
/// # Errors
/// If the address of `listen` can't be bound, or a variable `OTEL_*` has a value that can't be used.
pub async fn start(
    service: &str,
    listen: Option<AdminListen>,
    default: SocketAddr,
) -> anyhow::Result<Telemetry> {
    Ok(Telemetry {
        admin: admin::start(service, listen, default).await?,
        _traces: traces::start(service)?,
    })
}

/// Logs how many lines were dropped since the last report.
pub(super) fn report_dropped() {
    let dropped = DROPPED.get().map_or(0, ErrorCounter::dropped_lines);
    gauge!(names::LOG_LINES_DROPPED).set(dropped as f64);
    let reported = REPORTED.swap(dropped, Ordering::Relaxed);
    if dropped > reported {
        tracing::warn!(
            lines = dropped - reported,
            "log lines were dropped because their reader is slow"
        );
    }
}

/// Returns the filter for this text of `RUST_LOG`. If a directive is invalid, returns the default filter and the first
/// invalid directive.
///
/// Adds the directives to the default, so that a filter for one target does not silence all others.
fn filter(text: Option<&OsStr>) -> (EnvFilter, Option<String>) {
    let text = text.unwrap_or_default().to_string_lossy();
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let default = || EnvFilter::new(DEFAULT_FILTER);
    let mut filter = default();
    for part in parts {
        match directive(part) {
            Some(directive) => filter = filter.add_directive(directive),
            None => return (default(), Some(part.to_owned())),
        }
    }
    (filter, None)
}

/// Parses a level, a target, or a target with its level. Checks the target against [`TARGETS`], because the library's
/// parser accepts any word as one.
fn directive(part: &str) -> Option<Directive> {
    let target = part.split(['=', '[', ':']).next().unwrap_or_default().trim_end();
    let is_level = part.parse::<LevelFilter>().is_ok();
    let is_known = is_level || target.is_empty() || TARGETS.contains(&target);
    is_known.then(|| part.parse().ok()).flatten()
}

/// Returns the layer that writes a line for each event that passes the filter.
fn line_layer<W>(writer: W, is_terminal: bool, filter: EnvFilter) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    if is_terminal {
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

/// A format that adds the request id of the current call, if there is one, at the end of a line.
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
        // A request id holds only letters, digits, `-` and `_`, so it needs no escaping.
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

    fn logged(is_terminal: bool) -> String {
        logged_by(is_terminal, || {
            tracing::info!(port = 50051, "listening");
            tracing::info!(target: "sqlx::query", "SELECT 1");
            tracing::warn!(target: "sqlx::query", "slow statement");
            tracing::debug!("detail");
        })
    }

    fn logged_by(is_terminal: bool, log: impl FnOnce()) -> String {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let filter = EnvFilter::builder().parse(DEFAULT_FILTER).unwrap();
        let guard = tracing_subscriber::registry()
            .with(line_layer(Arc::clone(&file), is_terminal, filter))
            .set_default();
        log();
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

    #[test]
    fn a_text_with_line_breaks_stays_one_line() {
        const HOSTILE: &str = "a\r\nb\n{\"message\":\"forged\"}\u{1b}[2J";
        let text = logged_by(
            false,
            || tracing::info!(name = HOSTILE, error = %HOSTILE, "said {HOSTILE}"),
        );
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(char::is_control), "{line}");
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["name"], &line["error"]),
            (&HOSTILE.into(), &HOSTILE.into())
        );
    }

    #[tokio::test]
    async fn a_line_has_the_request_id_of_its_call() {
        let context = || context::CallContext {
            address: None,
            request_id: "request-1".into(),
            deadline: tokio::time::Instant::now(),
            trace: None,
            notes: Default::default(),
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
    fn a_filter_changes_the_default_and_never_silences_the_log() {
        let default = EnvFilter::new(DEFAULT_FILTER).to_string();
        for (text, expected) in [
            ("", default.clone()),
            (" ", default.clone()),
            (",", default.clone()),
            ("info ", default.clone()),
            ("warn", default.replace("info", "warn")),
            (" WARN , ", default.replace("info", "warn")),
            ("accord=debug", format!("accord=debug,{default}")),
            ("sqlx=info", default.replace("sqlx=warn", "sqlx=info")),
        ] {
            let (filter, ignored) = filter(Some(OsStr::new(text)));
            let sorted = |text: &str| {
                let mut parts: Vec<_> = text.split(',').map(str::to_owned).collect();
                parts.sort_unstable();
                parts
            };
            assert_eq!(sorted(&filter.to_string()), sorted(&expected), "{text:?}");
            assert_eq!(ignored, None, "{text:?}");
        }
    }

    #[test]
    fn an_unknown_level_or_target_leaves_the_default() {
        for (text, wrong) in [
            ("warning", "warning"),
            ("debug,acord=debug", "acord=debug"),
            ("accord=verbose", "accord=verbose"),
            ("accord=debug;sqlx=info", "accord=debug;sqlx=info"),
            ("=", "="),
            ("inf\u{fffd}", "inf\u{fffd}"),
        ] {
            let (filter, ignored) = filter(Some(OsStr::new(text)));
            assert_eq!(
                filter.to_string(),
                EnvFilter::new(DEFAULT_FILTER).to_string(),
                "{text:?}"
            );
            assert_eq!(ignored.as_deref(), Some(wrong));
        }
    }

    #[test]
    fn a_terminal_gets_text() {
        let text = logged(true);
        assert!(text.contains("listening") && !text.starts_with('{'), "{text}");
    }
}
