//! The signals of the process, and its exit status.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// The exit status of a process that SIGINT ended, as shells report it.
const INTERRUPTED: i32 = 130;

/// What signals tell a service. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    /// Cancelled when the service must stop.
    pub shutdown: CancellationToken,
    /// Notified when it must read the files of its certificates at once.
    pub reload: Arc<Notify>,
}

impl From<CancellationToken> for Signals {
    fn from(shutdown: CancellationToken) -> Self {
        let reload = Arc::default();
        Self { shutdown, reload }
    }
}

/// Returns the signals of a service: the first SIGTERM or SIGINT stops it, and SIGHUP reloads its certificates. A SIGINT
/// after that ends the process.
///
/// Call it before anything that takes time: until then, the first process of a container ignores them all.
pub fn service_signals() -> io::Result<Signals> {
    let mut hangup = signal(SignalKind::hangup())?;
    let signals = Signals::from(stop_on(None)?);
    let reload = signals.reload.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::info!("reloading");
            reload.notify_one();
        }
    });
    Ok(signals)
}

/// Returns a token that the first SIGTERM, SIGINT or SIGHUP cancels, for a command in a terminal, which may be closed. A
/// SIGINT after that ends the process.
pub fn shutdown_signal() -> io::Result<CancellationToken> {
    stop_on(Some(signal(SignalKind::hangup())?))
}

fn stop_on(mut hangup: Option<Signal>) -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hung_up => {}
        }
        tracing::info!("stopping");
        cancelled.cancel();
        // A person who presses Ctrl-C again does not want to wait for the calls under way.
        interrupt.recv().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}

/// Prints a line, alone, on standard output.
pub fn print_line(line: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(Into::into)
}

/// Returns the exit status for a program's result. Prints an error on one line of standard error.
pub fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    // If standard error is closed, the exit status still tells of the failure.
    let _ = writeln!(io::stderr(), "{program}: {error:#}");
    ExitCode::FAILURE
}
