//! registry-service's commands and flags.

use accord::rpc::{
    auth::{Role, WorkloadKind},
    config::settings::ServiceFlags,
};
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "registry-service",
    version,
    about = "Holds tenants, users and third-party clients"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of registry-service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve gRPC until SIGTERM or SIGINT
    Serve(Flags),
    /// Create or update the database's tables
    Migrate {
        /// Settings.
        #[command(flatten)]
        flags: Flags,
        /// Start a new epoch, for a database that was restored from a copy
        #[arg(long)]
        new_epoch: bool,
    },
    /// Ask the running service at --admin-listen whether it is ready, for the health check of a container
    Health(Flags),
    /// Report every problem of the settings, their files and the database, without serving
    CheckConfig(Flags),
    /// Wrap the database's keys with the new master key, beside replicas that serve
    RotateMasterKey(Flags),
    /// Add a version to a data key, beside replicas that serve
    RotateDataKey {
        /// What the key is for: account-name, pepper, delivery, secret-tag, idempotency, row, audit-event or audit-log
        purpose: String,
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
    /// Manage operators
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Manage workloads
    #[command(subcommand)]
    Workload(WorkloadCommand),
}

/// The commands for operators.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Add an operator and print its bearer token, unless a certificate name identifies it
    Create {
        /// The operator's name
        name: String,
        /// A role; may be repeated
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<Role>,
        /// DNS name or SPIFFE id in the operator's client certificate, in place of a token
        #[arg(long, value_name = "NAME")]
        certificate_name: Option<String>,
        /// The person behind the operator: operators of one person count as one [default: NAME]
        #[arg(long, value_name = "PERSON")]
        person: Option<String>,
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
}

/// The commands for workloads.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Add a workload and print its bearer token, unless a certificate name identifies it
    Create {
        /// The workload's name
        name: String,
        /// Its kind
        #[arg(long, value_name = "KIND")]
        kind: WorkloadKind,
        /// DNS name or SPIFFE id in the workload's client certificate, in place of a token
        #[arg(long, value_name = "NAME")]
        certificate_name: Option<String>,
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
}

/// Settings as flags. Each is also an environment variable (`ACCORD_REGISTRY_<FLAG>`) and a key of the TOML file. A flag
/// wins over a variable, and a variable over the file.
#[derive(Args, Clone, derive_more::Debug, Default, Serialize)]
#[debug("Flags {{ .. }}")]
pub struct Flags {
    /// Address to serve gRPC on [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address to serve metrics and health on, or "off"; without TLS on any address [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS")]
    pub admin_listen: Option<String>,
    /// Base of every Tenant Authority URL, such as https://auth.example
    #[arg(long, value_name = "URL")]
    pub public_base_url: Option<String>,
    /// Require a second person for whatever gives access to a tenant's data, except from admins [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub second_operator: Option<String>,
    /// The settings that both services have.
    #[command(flatten)]
    #[serde(flatten)]
    pub service: ServiceFlags,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn flags_come_after_the_subcommand_and_roles_repeat() {
        let line =
            "registry-service operator create Ada --role admin --role auditor --database-url sqlite://x.db";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Operator(OperatorCommand::Create {
            name, roles, flags, ..
        }) = cli.command
        else {
            panic!("another command");
        };
        assert_eq!((name.as_str(), roles), ("Ada", vec![Role::Admin, Role::Auditor]));
        assert_eq!(flags.service.database_url.as_deref(), Some("sqlite://x.db"));
        for bad in [
            "registry-service",
            "registry-service operator create Ada",
            "registry-service operator create Ada --role king",
            "registry-service workload create api",
            "registry-service serve --unknown x",
        ] {
            assert!(Cli::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }
}
