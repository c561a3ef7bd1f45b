//! The commands of the command line, one function each.

use std::{io::Write, sync::Arc};

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    registry::v1 as pb,
    rpc::{listener, run::shutdown_signal, telemetry},
    store::{
        Creation,
        audit::{Actor, ActorKind, Origin},
    },
    text::{opaque::OpaqueToken, validation::Violations},
};
use anyhow::{Context, anyhow};

use crate::{
    config::{Cli, Command, Flags, Needs, OperatorCommand, Settings, WorkloadCommand},
    grpc::convert,
    server::Registry,
};

/// Runs a command. Creating a caller prints its bearer token, alone, on standard output.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve { flags } => serve(&flags).await,
        Command::Migrate { flags, new_epoch } => migrate(&flags, new_epoch).await,
        Command::Operator {
            command: OperatorCommand::Create { name, roles, flags },
        } => {
            let roles = roles.into_iter().map(|role| convert::caller::role(role).into());
            create_operator(&flags, name, roles.collect()).await
        }
        Command::Workload {
            command: WorkloadCommand::Create { name, kind, flags },
        } => create_workload(&flags, name, convert::caller::kind(kind).into()).await,
    }
}

async fn serve(flags: &Flags) -> anyhow::Result<()> {
    telemetry::init("registry-service");
    let settings = Settings::load(flags, Needs::Everything)?;
    let registry = open(&settings).await?;
    let listener = listener::bind("--listen", settings.listen).await?;
    registry.serve(listener, shutdown_signal()?).await
}

async fn migrate(flags: &Flags, new_epoch: bool) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Database)?;
    Registry::migrate(&settings, &SystemRandom).await?;
    if new_epoch {
        Registry::start_epoch(&settings, &SystemClock, &SystemRandom).await?;
    }
    Ok(())
}

async fn create_operator(flags: &Flags, name: String, roles: Vec<i32>) -> anyhow::Result<()> {
    let request = pb::CreateOperatorRequest {
        name,
        roles,
        ..Default::default()
    };
    let (new, _) = convert::caller::create_operator(&request).map_err(refused)?;
    let registry = open(&Settings::load(flags, Needs::Keys)?).await?;
    let (_, token) = registry
        .store()
        .create_caller(&creation("CreateOperator"), new)
        .await?;
    print(&token)
}

async fn create_workload(flags: &Flags, name: String, kind: i32) -> anyhow::Result<()> {
    let request = pb::CreateWorkloadRequest {
        name,
        kind,
        ..Default::default()
    };
    let (new, _) = convert::caller::create_workload(&request).map_err(refused)?;
    let registry = open(&Settings::load(flags, Needs::Keys)?).await?;
    let (_, token) = registry
        .store()
        .create_caller(&creation("CreateWorkload"), new)
        .await?;
    print(&token)
}

async fn open(settings: &Settings) -> anyhow::Result<Registry> {
    Registry::open(settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await
}

/// A creating call from the command line. Without a request id, each call creates.
fn creation(method: &'static str) -> Creation {
    Creation {
        origin: Origin {
            actor: Actor {
                kind: ActorKind::System,
                id: "command-line".to_owned(),
            },
            request_id: String::new(),
        },
        method,
        request_id: None,
        content: Default::default(),
    }
}

fn refused(violations: Violations) -> anyhow::Error {
    let problems = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description));
    anyhow!("{}", problems.collect::<Vec<_>>().join("; "))
}

fn print(token: &OpaqueToken) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", token.expose()).context("the token was created and could not be printed")?;
    out.flush()
        .context("the token was created and could not be printed")
}
