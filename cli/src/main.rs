//! The `accord` command.

use std::{io::Write, net::Ipv4Addr, path::PathBuf, process::ExitCode, sync::Arc};

use accord::{
    clock::{Clock, SystemClock},
    random::SystemRandom,
    rpc::{
        config::AdminListen,
        run::{exit, shutdown_signal},
        telemetry,
    },
};
use accord_cli::{
    audit, certs, demo, descriptors,
    dev::{Dev, DevArgs},
    dev_file::DevFile,
};
use clap::{Parser, Subcommand};

/// The allocator of the services' own binaries too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Accord: delegated access to tenants' data for third-party integrations.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    dev: DevArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs both services on an embedded database, for development (the default).
    Dev(DevArgs),
    /// Walks through the six steps of an integration against a running `accord dev`.
    Demo {
        /// The data directory of the running `accord dev`.
        #[arg(long, default_value = "accord-data")]
        data_dir: PathBuf,
    },
    /// Makes a private authority and certificates, for trying TLS.
    Certs(certs::CertsArgs),
    /// Writes the compiled contract, a FileDescriptorSet, for a gateway such as Envoy.
    Descriptors(descriptors::DescriptorsArgs),
    /// Verifies, proves and exports the audit record of a database.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// registry-service, as its own binary runs it.
    #[command(hide = true)]
    Registry(Box<registry_service::config::Cli>),
    /// token-service, as its own binary runs it.
    #[command(hide = true)]
    Token(Box<token_service::config::Cli>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => dev(cli.dev).await,
        Some(Command::Dev(args)) => dev(args).await,
        Some(Command::Demo { data_dir }) => run_demo(data_dir).await,
        Some(Command::Certs(args)) => certs::run(&args, SystemClock.now(), &mut std::io::stdout()),
        Some(Command::Descriptors(args)) => descriptors::run(&args),
        Some(Command::Audit(command)) => return run_audit(&command).await,
        Some(Command::Registry(cli)) => registry_service::run(*cli).await,
        Some(Command::Token(cli)) => token_service::run(*cli).await,
    };
    exit("accord", result)
}

async fn run_audit(command: &audit::AuditCommand) -> ExitCode {
    let result = audit::run(command, &mut std::io::stdout()).await;
    let failed = result.as_ref().err().map(|error| audit::status(command, error));
    match failed {
        None => ExitCode::SUCCESS,
        Some((status, is_told)) => {
            if is_told {
                exit("accord", result);
            }
            ExitCode::from(status)
        }
    }
}

async fn dev(args: DevArgs) -> anyhow::Result<()> {
    let _log = telemetry::init("accord dev");
    let shutdown = shutdown_signal()?;
    let (off, nowhere) = (Some(AdminListen(None)), (Ipv4Addr::LOCALHOST, 0).into());
    let _telemetry = telemetry::start("accord dev", off, nowhere).await?;
    let starting = Dev::start(&args, Arc::new(SystemClock), Arc::new(SystemRandom));
    let dev = tokio::select! {
        started = starting => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    // A closed standard output is no reason to stop.
    let _ = write!(std::io::stdout(), "{}", welcome(&dev.file, &args));
    dev.run_until(shutdown).await
}

fn welcome(file: &DevFile, args: &DevArgs) -> String {
    let data_dir = args.data_dir.display();
    let demo = if args.data_dir.as_os_str() == "accord-data" {
        "cargo run --bin accord -- demo".to_owned()
    } else {
        format!("cargo run --bin accord -- demo --data-dir {data_dir}")
    };
    format!(
        "\nAccord is running, for development only.\n\n  \
         registry-service   {}\n  \
         token-service      {}\n  \
         HTTP               {}\n  \
         Tenant Authority   {}\n  \
         credentials        {}\n\n\
         Try, in another terminal:\n\n  \
         {demo}\n  \
         grpcurl -plaintext {} list\n  \
         curl {}/{}/.well-known/oauth-authorization-server\n\n\
         Stop with Ctrl-C.\n",
        file.registry_grpc,
        file.token_grpc,
        file.http_url,
        file.tenant_authority_url,
        DevFile::path(&args.data_dir).display(),
        file.registry_grpc,
        // The listener's URL: with a public base URL, that of the authority is the gateway's.
        file.http_url,
        file.tenant_id,
    )
}

async fn run_demo(data_dir: PathBuf) -> anyhow::Result<()> {
    let file = DevFile::read(&data_dir)?;
    demo::run(
        &file,
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
        &mut std::io::stdout(),
    )
    .await?;
    Ok(())
}
