//! The commands of the command line, one function each.

use std::{io::Write, sync::Arc};

use accord::{
    clock::SystemClock,
    random::SystemRandom,
    registry::v1 as pb,
    rpc::{
        config::settings::Needs,
        listener,
        run::{self, Key, Listeners, Service, probe},
        telemetry::{self, Telemetry},
        tls::server::ServerTls,
    },
    store::{
        Creation,
        audit::{AuditAccess, Decider, Origin},
    },
    text::{
        caller::{Caller, Credential},
        opaque::OpaqueToken,
        validation::Violations,
    },
};
use anyhow::{Context, anyhow};
use uuid::Uuid;

use crate::{
    config::{
        ADMIN_LISTEN, Cli, Command, ENVIRONMENT_PREFIX, Flags, OperatorCommand, Settings, WorkloadCommand,
    },
    grpc::convert::caller as convert,
    model::caller::NewCaller,
    server::{RegistryServer, require_client_ca},
    store::{self, caller::require_ca_for, migration::Migrator},
};

/// The service's name in its log and traces.
const NAME: &str = "registry-service";

/// Runs a command. Creating a caller prints its bearer token, alone, on standard output. A caller with a certificate name has no
/// token: prints only a note, on standard error.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        // Boxed, here and below, or the compiler gives up on the depth of the future.
        Command::Serve(flags) => Box::pin(run::serve(NAME, start(&flags))).await,
        Command::Health(flags) => {
            let file = flags.service.config.as_deref();
            probe::run(ENVIRONMENT_PREFIX, file, &flags, ADMIN_LISTEN).await
        }
        Command::CheckConfig(flags) => {
            let file = flags.service.config.as_deref();
            let loaded = Settings::load(&flags, Needs::Everything);
            let prefix = ENVIRONMENT_PREFIX;
            let loaded = run::with_schema::<Migrator, _>(loaded, prefix, file, &flags, require_client_ca);
            let settings = Box::pin(loaded).await?;
            let db = run::check::<Migrator>(&settings.service).await?;
            Box::pin(require_client_ca(&db, &settings.service)).await?;
            run::print_line("ok")
        }
        Command::RotateMasterKey(flags) => rotate(&flags, Key::Master).await,
        Command::RotateDataKey { purpose, flags } => {
            let purposes = store::PURPOSES;
            rotate(&flags, Key::Data { purpose, purposes }).await
        }
        Command::Migrate { flags, new_epoch } => Box::pin(migrate(&flags, new_epoch)).await,
        Command::Operator(OperatorCommand::Create {
            name,
            roles,
            certificate_name,
            person,
            flags,
        }) => {
            let request = pb::CreateOperatorRequest {
                person: person.unwrap_or_else(|| name.clone()),
                name,
                roles: roles
                    .into_iter()
                    .map(|role| pb::OperatorRole::from(role).into())
                    .collect(),
                certificate_name: certificate_name.unwrap_or_default(),
                ..Default::default()
            };
            Box::pin(create_caller(
                &flags,
                "CreateOperator",
                convert::create_operator(&request, false),
            ))
            .await
        }
        Command::Workload(WorkloadCommand::Create {
            name,
            kind,
            certificate_name,
            flags,
        }) => {
            let request = pb::CreateWorkloadRequest {
                name,
                kind: pb::WorkloadKind::from(kind).into(),
                certificate_name: certificate_name.unwrap_or_default(),
                ..Default::default()
            };
            Box::pin(create_caller(
                &flags,
                "CreateWorkload",
                convert::create_workload(&request),
            ))
            .await
        }
    }
}

async fn start(flags: &Flags) -> anyhow::Result<(RegistryServer, Listeners, Telemetry)> {
    let settings = Settings::load(flags, Needs::Everything)?;
    let telemetry = telemetry::start(NAME, settings.admin_listen, ADMIN_LISTEN).await?;
    let tls = ServerTls::load(settings.service.tls(), Arc::new(SystemClock))?;
    let registry = run::when_reachable(&settings.service.database_url, async || {
        let registry = open(&settings).await?;
        run::require_not_development(registry.database()).await?;
        require_client_ca(registry.database(), &settings.service).await?;
        Ok(registry)
    });
    let registry = registry.await?.with_readiness(telemetry.readiness());
    let listeners = Listeners {
        grpc: listener::bind("--listen", settings.listen, tls.as_ref()).await?,
        http: None,
        tls,
        drain_delay: settings.service.drain_delay(),
    };
    Ok((registry, listeners, telemetry))
}

/// Opens what `accord audit resume` needs: the service's record, and the operator whose token this is.
///
/// # Errors
/// For an operator who is unknown, or has neither the role security nor admin.
pub async fn audit_access(flags: &Flags, token: &OpaqueToken) -> anyhow::Result<AuditAccess> {
    let settings = Settings::load(flags, Needs::Keys)?;
    let registry = Box::pin(open(&settings)).await?;
    let store = registry.store();
    let found = store.find_caller_record(Credential::Token(token)).await?;
    let decider = found.and_then(|record| match record.caller {
        Caller::Operator { id, roles } => Decider::new(id, &roles, record.person),
        Caller::Workload { .. } => None,
    });
    Ok(AuditAccess {
        db: registry.database().clone(),
        keyring: store.keyring.get().await?,
        tables: crate::store::recorded_tables(),
        decider: decider.context("the token must be that of an operator with the role security or admin")?,
    })
}

async fn rotate(flags: &Flags, key: Key) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Keys)?;
    run::rotate::<Migrator>(&settings.service, key).await
}

async fn migrate(flags: &Flags, new_epoch: bool) -> anyhow::Result<()> {
    let settings = Settings::load(flags, Needs::Database)?;
    RegistryServer::migrate(&settings).await?;
    if new_epoch {
        RegistryServer::start_epoch(&settings, &SystemClock, &SystemRandom).await?;
    }
    Ok(())
}

async fn open(settings: &Settings) -> anyhow::Result<RegistryServer> {
    RegistryServer::open(settings, Arc::new(SystemClock), Arc::new(SystemRandom)).await
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
    let settings = Settings::load(flags, Needs::Keys)?;
    require_ca_for(&new, settings.service.tls().has_client_ca())?;
    let registry = open(&settings).await?;
    let (record, token) = registry.store().create_caller(&creation, new).await?;
    let Some(token) = token else {
        let name = record.certificate_name.unwrap_or_default();
        // The caller exists even if nobody reads this output.
        let _ = writeln!(
            std::io::stderr(),
            "created {}: its client certificate with the name {name} takes the place of a token",
            record.caller.id(),
        );
        return Ok(());
    };
    run::print_line(token.expose()).context("the token was created but could not be printed")
}

fn invalid(violations: Violations) -> anyhow::Error {
    let problems = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.description));
    anyhow!("{}", problems.collect::<Vec<_>>().join("; "))
}
