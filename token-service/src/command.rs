//! What the command line does, one function a subcommand.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    rpc::{config::require_loopback, server::shutdown_signal, telemetry},
};
use anyhow::Context;
use tokio::net::TcpListener;

use crate::{
    config::{Cli, Command, Flags, Needs, Settings},
    server::TokenServer,
};

/// Does what the command line says.
///
/// # Errors
/// Settings that can't be used, a database that does not answer, an address that is taken.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve { flags } => serve(&flags).await,
        Command::Migrate { flags, new_epoch } => migrate(&flags, new_epoch).await,
    }
}

async fn serve(flags: &Flags) -> anyhow::Result<()> {
    telemetry::init("token-service");
    let settings = Settings::load(flags, Needs::Everything)?;
    require_loopback(settings.listen)?;
    require_loopback(settings.http_listen)?;
    let server = TokenServer::open(&settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await?;
    let bind = async |address| {
        let listener = TcpListener::bind(address).await;
        listener.with_context(|| format!("can't listen on {address}"))
    };
    let grpc = bind(settings.listen).await?;
    let http = bind(settings.http_listen).await?;
    let shutdown = shutdown_signal()?;
    for (listener, bound) in [("grpc", &grpc), ("http", &http)] {
        let address = bound.local_addr()?.to_string();
        tracing::info!(listener, address, "listening");
    }
    server.serve(grpc, http, shutdown).await
}

async fn migrate(flags: &Flags, new_epoch: bool) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Database)?;
    TokenServer::migrate(&settings, &SystemRandom).await?;
    if new_epoch {
        TokenServer::start_epoch(&settings, &SystemClock, &SystemRandom).await?;
    }
    Ok(())
}
