//! The commands of the command line.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    rpc::{
        listener,
        run::{self, Service, shutdown_signal},
        telemetry,
    },
};

use crate::{
    config::{Cli, Command, Needs, Settings},
    server::TokenServer,
    store::migration::Migrator,
};

/// Runs a command.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve { flags } => {
            let _log = telemetry::init("token-service");
            let shutdown = shutdown_signal()?;
            let starting = async {
                let settings = Settings::load(&flags, Needs::Everything)?;
                let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
                let server = TokenServer::open(&settings, clock, random).await?;
                run::refuse_development(server.database()).await?;
                let grpc = listener::bind("--listen", settings.listen).await?;
                let http = listener::bind("--http-listen", settings.http_listen).await?;
                anyhow::Ok((server, grpc, http))
            };
            match shutdown.run_until_cancelled(starting).await.transpose()? {
                Some((server, grpc, http)) => server.serve(grpc, http, shutdown).await,
                None => Ok(()),
            }
        }
        Command::CheckConfig { flags } => {
            let settings = Settings::load(&flags, Needs::Everything)?;
            run::check::<Migrator>(&settings.database_url, &settings.master_key_file).await
        }
        Command::Migrate { flags, new_epoch } => {
            let settings = Settings::load(&flags, Needs::Database)?;
            TokenServer::migrate(&settings, &SystemRandom).await?;
            if new_epoch {
                TokenServer::start_epoch(&settings, &SystemClock, &SystemRandom).await?;
            }
            Ok(())
        }
    }
}
