//! The commands of the command line, one function each.

use std::{io::Write, sync::Arc};

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    registry::v1 as pb,
    rpc::{
        listener,
        run::{self, Service, shutdown_signal},
        telemetry,
    },
    store::{Creation, audit::Origin},
    text::validation::Violations,
};
use anyhow::{Context, anyhow};
use uuid::Uuid;

use crate::{
    config::{Cli, Command, Flags, Needs, OperatorCommand, Settings, WorkloadCommand},
    grpc::convert::caller as convert,
    model::caller::NewCaller,
    server::Registry,
    store::migration::Migrator,
};

/// Runs a command. Creating a caller prints its bearer token, alone, on standard output.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve { flags } => serve(&flags).await,
        Command::CheckConfig { flags } => {
            let settings = Settings::load(&flags, Needs::Everything)?;
            run::check::<Migrator>(&settings.database_url, &settings.master_key_file).await
        }
        Command::Migrate { flags, new_epoch } => migrate(&flags, new_epoch).await,
        Command::Operator {
            command: OperatorCommand::Create { name, roles, flags },
        } => {
            let request = pb::CreateOperatorRequest {
                name,
                roles: roles
                    .into_iter()
                    .map(|role| pb::OperatorRole::from(role).into())
                    .collect(),
                ..Default::default()
            };
            create_caller(&flags, "CreateOperator", convert::create_operator(&request)).await
        }
        Command::Workload {
            command: WorkloadCommand::Create { name, kind, flags },
        } => {
            let request = pb::CreateWorkloadRequest {
                name,
                kind: pb::WorkloadKind::from(kind).into(),
                ..Default::default()
            };
            create_caller(&flags, "CreateWorkload", convert::create_workload(&request)).await
        }
    }
}

async fn serve(flags: &Flags) -> anyhow::Result<()> {
    let _log = telemetry::init("registry-service");
    let shutdown = shutdown_signal()?;
    let starting = async {
        let settings = Settings::load(flags, Needs::Everything)?;
        let registry = open(&settings).await?;
        run::refuse_development(registry.database()).await?;
        let listener = listener::bind("--listen", settings.listen).await?;
        anyhow::Ok((registry, listener))
    };
    match shutdown.run_until_cancelled(starting).await.transpose()? {
        Some((registry, listener)) => registry.serve(listener, shutdown).await,
        None => Ok(()),
    }
}

async fn migrate(flags: &Flags, new_epoch: bool) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Database)?;
    Registry::migrate(&settings, &SystemRandom).await?;
    if new_epoch {
        Registry::start_epoch(&settings, &SystemClock, &SystemRandom).await?;
    }
    Ok(())
}

async fn open(settings: &Settings) -> anyhow::Result<Registry> {
    Registry::open(settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await
}

async fn create_caller(
    flags: &Flags,
    method: &'static str,
    new: Result<(NewCaller, Option<Uuid>), Violations>,
) -> anyhow::Result<()> {
    let (new, request_id) = new.map_err(invalid)?;
    let creation = Creation {
        origin: Origin::system("command-line"),
        method,
        request_id,
        content: Default::default(),
    };
    let registry = open(&Settings::load(flags, Needs::Keys)?).await?;
    let (_, token) = registry.store().create_caller(&creation, new).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", token.expose())
        .and_then(|()| out.flush())
        .context("the token was created but could not be printed")
}

fn invalid(violations: Violations) -> anyhow::Error {
    let problems = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description));
    anyhow!("{}", problems.collect::<Vec<_>>().join("; "))
}
