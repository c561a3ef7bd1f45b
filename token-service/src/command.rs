//! The commands of the command line.

use std::sync::Arc;

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    rpc::{
        channel::HopChannel,
        config::settings::Needs,
        listener,
        run::{self, Key, Listeners, Service, probe},
        telemetry::{self, Telemetry},
        tls::server::ServerTls,
    },
    store::audit::{AuditAccess, Decider},
    text::opaque::OpaqueToken,
};
use anyhow::Context;

use crate::{
    config::{ADMIN_LISTEN, Cli, Command, ENVIRONMENT_PREFIX, Flags, Settings},
    registry::Registry,
    server::TokenServer,
    store::{self, migration::Migrator},
};

/// The service's name in its log and traces.
const NAME: &str = "token-service";

/// Runs a command.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve(flags) => Box::pin(run::serve(NAME, start(&flags))).await,
        Command::Health(flags) => {
            let file = flags.service.config.as_deref();
            probe::run(ENVIRONMENT_PREFIX, file, &flags, ADMIN_LISTEN).await
        }
        Command::CheckConfig(flags) => {
            let file = flags.service.config.as_deref();
            let loaded = Settings::load(&flags, Needs::Everything);
            let prefix = ENVIRONMENT_PREFIX;
            let loaded = run::with_schema::<Migrator, _>(loaded, prefix, file, &flags, async |_, _| Ok(()));
            let settings = Box::pin(loaded).await?;
            run::check::<Migrator>(&settings.service).await?;
            run::print_line("ok")
        }
        Command::RotateMasterKey(flags) => rotate(&flags, Key::Master).await,
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

async fn start(flags: &Flags) -> anyhow::Result<(TokenServer, Listeners, Telemetry)> {
    let settings = Settings::load(flags, Needs::Everything)?;
    let telemetry = telemetry::start(NAME, settings.admin_listen, ADMIN_LISTEN).await?;
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    let tls = ServerTls::load(settings.tls(), clock.clone())?;
    let server = run::when_reachable(&settings.service.database_url, async || {
        let server = TokenServer::open(&settings, clock.clone(), random.clone()).await?;
        run::require_not_development(server.database()).await?;
        Ok(server)
    });
    let server = server.await?.with_readiness(telemetry.readiness());
    let listeners = Listeners {
        grpc: listener::bind("--listen", settings.listen, tls.as_ref()).await?,
        http: Some(listener::bind("--http-listen", settings.http_listen, tls.as_ref()).await?),
        tls,
        drain_delay: settings.service.drain_delay(),
    };
    Ok((server, listeners, telemetry))
}

/// Opens what `accord audit resume` needs: the service's record, and the operator whose token this is, by the registry.
///
/// # Errors
/// For an operator who is unknown, or has neither the role security nor admin; and if the registry does not answer.
pub async fn audit_access(flags: &Flags, token: &OpaqueToken) -> anyhow::Result<AuditAccess> {
    let settings = Settings::load(flags, Needs::Everything)?;
    let channel = HopChannel::new(settings.registry_target()?, settings.registry_token()?);
    let found = Registry::new(channel).operator(token).await?;
    let decider = found.and_then(|operator| Decider::new(operator.id, &operator.roles, operator.person));
    let clock = Arc::new(SystemClock);
    let opened = run::open::<Migrator>(&settings.service, store::PURPOSES, clock, &SystemRandom);
    let (db, keyring) = Box::pin(opened).await?;
    Ok(AuditAccess {
        db,
        keyring: keyring.get().await?,
        tables: store::recorded_tables(),
        decider: decider.context("the token must be that of an operator with the role security or admin")?,
    })
}

async fn rotate(flags: &Flags, key: Key) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Keys)?;
    run::rotate::<Migrator>(&settings.service, key).await
}
