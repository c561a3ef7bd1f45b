//! registry-service's command line and settings. Values are never repeated in an error: a database
//! URL holds a password.

// The flags' comments are what `--help` prints, where a URL stands as it is.
#![allow(rustdoc::bare_urls)]

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use accord::{
    rpc::{
        auth::{Role, WorkloadKind},
        config::{ConfigError, load},
    },
    text::validation::Violations,
};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// What the names of environment variables begin with; the rest is the key in upper case.
pub const ENVIRONMENT_PREFIX: &str = "ACCORD_REGISTRY_";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "registry-service",
    version,
    about = "Who exists: tenants, users, third-party clients"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What registry-service can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve gRPC until SIGTERM or SIGINT
    Serve {
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
    /// Create or update the database's tables
    Migrate {
        /// Settings.
        #[command(flatten)]
        flags: Flags,
        /// Start a new epoch: for a database that was restored from a copy
        #[arg(long)]
        new_epoch: bool,
    },
    /// Manage operators
    Operator {
        /// What to do with operators.
        #[command(subcommand)]
        command: OperatorCommand,
    },
    /// Manage workloads
    Workload {
        /// What to do with workloads.
        #[command(subcommand)]
        command: WorkloadCommand,
    },
}

/// What can be done with operators from the command line.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Add an operator and print its bearer token
    Create {
        /// The operator's name
        name: String,
        /// A role; may be repeated
        #[arg(long = "role", required = true, value_name = "ROLE")]
        roles: Vec<Role>,
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
}

/// What can be done with workloads from the command line.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Add a workload and print its bearer token
    Create {
        /// The workload's name
        name: String,
        /// What it is
        #[arg(long, value_name = "KIND")]
        kind: WorkloadKind,
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
}

/// Settings as flags. Each is also an environment variable (`ACCORD_REGISTRY_<FLAG>`) and a key of
/// the TOML file; the flag wins over the variable, the variable over the file.
#[derive(Args, Clone, Default, Serialize)]
pub struct Flags {
    /// Address to serve gRPC on [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// sqlite://PATH or postgres://...
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_url: Option<String>,
    /// File of 32 random bytes, mode 0600, that wraps the database's keys
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_file: Option<PathBuf>,
    /// Base of every Tenant Authority URL, such as https://auth.example
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_base_url: Option<String>,
    /// TOML file with these settings
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").finish_non_exhaustive()
    }
}

/// registry-service's settings. `Debug` leaves the database's URL out, which may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to serve gRPC.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// `sqlite://<path>` or `postgres://...`.
    pub database_url: String,
    /// The file of the master key; empty when it was not given and is not needed.
    #[serde(default)]
    pub master_key_file: PathBuf,
    /// Base of every Tenant Authority URL, without a trailing slash; empty when it was not given and
    /// is not needed.
    #[serde(default)]
    pub public_base_url: String,
}

/// Which settings a command can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// The database.
    Database,
    /// The database and the master key.
    Keys,
    /// All of them.
    Everything,
}

impl Settings {
    /// Reads flags, environment and file.
    ///
    /// # Errors
    /// [`ConfigError`] for what is unknown, missing or malformed.
    pub fn load(flags: &Flags, needs: Needs) -> Result<Self, ConfigError> {
        let settings: Self = load(ENVIRONMENT_PREFIX, flags.config.as_deref(), flags)?;
        settings.checked(needs)
    }

    /// The settings with every value that is there in order, and those there that `needs` names.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn checked(mut self, needs: Needs) -> Result<Self, ConfigError> {
        let missing = |key: &str| ConfigError::Invalid(format!("missing key `{key}`"));
        if needs >= Needs::Keys && self.master_key_file == Path::new("") {
            return Err(missing("master_key_file"));
        }
        if needs >= Needs::Everything && self.public_base_url.is_empty() {
            return Err(missing("public_base_url"));
        }
        if !self.public_base_url.is_empty() {
            self.public_base_url = base_url(&self.public_base_url)?;
        }
        Ok(self)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("master_key_file", &self.master_key_file)
            .field("public_base_url", &self.public_base_url)
            .finish_non_exhaustive()
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 50051))
}

/// A base URL (https, or http on a loopback host) without its trailing slash.
fn base_url(text: &str) -> Result<String, ConfigError> {
    let mut violations = Violations::default();
    let url = violations.https_url("public_base_url", text.trim_end_matches('/'));
    url.ok_or_else(|| {
        let problem = violations.iter().map(|violation| violation.description.as_str());
        ConfigError::Invalid(format!(
            "key `public_base_url` {}",
            problem.collect::<Vec<_>>().join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn settings(public_base_url: &str) -> Settings {
        Settings {
            listen: default_listen(),
            database_url: "postgres://user:sup3rs3cret@db/registry".into(),
            master_key_file: "key".into(),
            public_base_url: public_base_url.into(),
        }
    }

    #[test]
    fn a_base_url_keeps_no_trailing_slash() {
        for (given, kept) in [
            ("https://auth.example/", "https://auth.example"),
            ("https://auth.example/base/", "https://auth.example/base"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            let settings = settings(given).checked(Needs::Everything).unwrap();
            assert_eq!(settings.public_base_url, kept);
        }
        for bad in [
            "http://auth.example",
            "ftp://auth.example",
            "auth.example",
            "https://",
            "https://a.example/?q",
        ] {
            let error = settings(bad).checked(Needs::Everything).unwrap_err().to_string();
            assert!(error.contains("public_base_url"), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
    }

    #[test]
    fn a_command_asks_for_what_it_needs() {
        let mut bare = settings("");
        bare.master_key_file = PathBuf::new();
        assert!(bare.clone().checked(Needs::Database).is_ok());
        assert!(bare.checked(Needs::Keys).is_err());
        assert!(settings("").checked(Needs::Keys).is_ok());
        assert!(settings("").checked(Needs::Everything).is_err());
    }

    #[test]
    fn flags_come_after_the_subcommand_and_roles_repeat() {
        let line =
            "registry-service operator create Ada --role admin --role auditor --database-url sqlite://x.db";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Operator {
            command: OperatorCommand::Create { name, roles, flags },
        } = cli.command
        else {
            panic!("another command");
        };
        assert_eq!((name.as_str(), roles), ("Ada", vec![Role::Admin, Role::Auditor]));
        assert_eq!(flags.database_url.as_deref(), Some("sqlite://x.db"));
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

    #[test]
    fn debug_shows_no_database_url() {
        assert!(!format!("{:?}", settings("https://a.example")).contains("sup3rs3cret"));
    }
}
