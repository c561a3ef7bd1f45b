//! The `example-partner` command: reads settings, discovers the authority, serves until Ctrl-C.

use std::{
    error::Error,
    io::{IsTerminal, Write, stderr},
    process::ExitCode,
};

use clap::Parser;
use example_partner::{
    router,
    settings::{Flags, Settings},
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .init();
    match serve(&Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(stderr(), "example-partner: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let settings = Settings::load(flags)?;
    let router = router(&settings).await?;
    let listener = TcpListener::bind(flags.listen).await?;
    tracing::info!(address = %listener.local_addr()?, issuer = settings.issuer, "listening");
    let stop = async {
        // Without the signal the process ends at once, which loses nothing: tokens are only in memory.
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await?;
    Ok(())
}
