//! The commands of the command line.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    rpc::{
        config::settings::Needs,
        listener,
        run::{self, Key, Listeners, Service, probe, service_signals},
        telemetry,
        tls::server::ServerTls,
    },
};

use crate::{
    config::{ADMIN_LISTEN, Cli, Command, ENVIRONMENT_PREFIX, Flags, Settings},
    server::TokenServer,
    store::{self, migration::Migrator},
};

/// Runs a command.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve { flags } => {
            let _log = telemetry::init("token-service");
            let signals = service_signals()?;
            let starting = async {
                let settings = Settings::load(&flags, Needs::Everything)?;
                let telemetry =
                    telemetry::start("token-service", settings.admin_listen, ADMIN_LISTEN).await?;
                let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
                let tls = ServerTls::load(settings.service.tls(), clock.clone())?;
                let server = run::when_reachable(&settings.service.database_url, async || {
                    let server = TokenServer::open(&settings, clock.clone(), random.clone()).await?;
                    run::refuse_development(server.database()).await?;
                    Ok(server)
                });
                let server = server.await?.with_readiness(telemetry.readiness());
                let listeners = Listeners {
                    grpc: listener::bind("--listen", settings.listen, tls.as_ref()).await?,
                    http: Some(listener::bind("--http-listen", settings.http_listen, tls.as_ref()).await?),
                    tls,
                    drain_delay: settings.service.drain_delay(),
                };
                anyhow::Ok((server, listeners, telemetry))
            };
            let started = signals.shutdown.run_until_cancelled(starting).await;
            match started.transpose()? {
                Some((server, listeners, _telemetry)) => server.serve(listeners, signals).await,
                None => Ok(()),
            }
        }
        Command::Health { flags } => {
            probe::run(
                ENVIRONMENT_PREFIX,
                flags.service.config.as_deref(),
                &flags,
                ADMIN_LISTEN,
            )
            .await
        }
        Command::CheckConfig { flags } => {
            let settings = Settings::load(&flags, Needs::Everything)?;
            run::check::<Migrator>(&settings.service.database_url, settings.service.master_keys()).await
        }
        Command::RotateMasterKey { flags } => rotate(&flags, Key::Master).await,
        Command::RotateDataKey { purpose, flags } => {
            let purposes = store::PURPOSES;
            rotate(&flags, Key::Data { purpose, purposes }).await
        }
        Command::Migrate { flags, new_epoch } => {
            let settings = Settings::load(&flags, Needs::Database)?;
            TokenServer::migrate(&settings).await?;
            if new_epoch {
                TokenServer::start_epoch(&settings, &SystemClock, &SystemRandom).await?;
            }
            Ok(())
        }
    }
}

async fn rotate(flags: &Flags, key: Key) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Keys)?;
    run::rotate::<Migrator>(
        &settings.service.database_url,
        settings.service.master_keys(),
        key,
    )
    .await
}
