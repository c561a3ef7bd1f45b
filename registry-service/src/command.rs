//! What the command line does, one function a subcommand.

use std::{io::Write, sync::Arc, time::Duration};

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    registry::v1 as pb,
    rpc::{config::require_loopback, server::shutdown_signal, telemetry},
    store::{
        Creation,
        audit::{Actor, ActorKind, Origin},
    },
    text::{opaque::OpaqueToken, validation::Violations},
};
use anyhow::{Context, anyhow};
use tokio::net::TcpListener;

use crate::{
    config::{Cli, Command, Flags, Needs, OperatorCommand, Settings, WorkloadCommand},
    grpc::convert,
    model::caller,
    server::Registry,
};

/// How long the database may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Does what the command line says. Creating a caller prints its bearer token, alone, on standard
/// output.
///
/// # Errors
/// Settings that can't be used, a database that does not answer, a name that is taken.
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
    require_loopback(settings.listen)?;
    let registry = open(&settings).await?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("can't listen on {}", settings.listen))?;
    let shutdown = shutdown_signal()?;
    let address = listener.local_addr()?.to_string();
    tracing::info!(listener = "grpc", address, "listening");
    let store = registry.store().clone();
    let served = registry.serve(listener, shutdown).await;
    // Leaves a file database in one piece. Calls that outlived the drain are not waited for.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, store.db.close()).await;
    served
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
    let (_, token) = caller::create_operator(registry.store(), &creation("CreateOperator"), new).await?;
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
    let (_, token) = caller::create_workload(registry.store(), &creation("CreateWorkload"), new).await?;
    print(&token)
}

async fn open(settings: &Settings) -> anyhow::Result<Registry> {
    Registry::open(settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await
}

/// A creating call from the command line: no request id, so that each one creates anew.
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
