//! registry-service's command line and settings. No error repeats a value: a database URL holds a password.

// `--help` prints the flags' comments, with bare URLs.
#![allow(rustdoc::bare_urls)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use accord::{
    rpc::{
        auth::{Role, WorkloadKind},
        config::{ConfigError, MISSING, Problems, check_loopback, check_master_key_file, load},
    },
    store::origin::check_url,
    text::uri,
};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// The prefix of environment variables; the rest is the key in upper case.
pub const ENVIRONMENT_PREFIX: &str = "ACCORD_REGISTRY_";

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
        /// Start a new epoch, for a database that was restored from a copy
        #[arg(long)]
        new_epoch: bool,
    },
    /// Report every problem of the settings, their files and the database, without serving
    CheckConfig {
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
    /// Manage operators
    Operator {
        /// The command for operators.
        #[command(subcommand)]
        command: OperatorCommand,
    },
    /// Manage workloads
    Workload {
        /// The command for workloads.
        #[command(subcommand)]
        command: WorkloadCommand,
    },
}

/// The commands for operators.
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

/// The commands for workloads.
#[derive(Debug, Subcommand)]
pub enum WorkloadCommand {
    /// Add a workload and print its bearer token
    Create {
        /// The workload's name
        name: String,
        /// Its kind
        #[arg(long, value_name = "KIND")]
        kind: WorkloadKind,
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
    /// sqlite://PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// File of 32 random bytes, mode 0600, that wraps the database's keys
    #[arg(long, value_name = "PATH")]
    pub master_key_file: Option<String>,
    /// Base of every Tenant Authority URL, such as https://auth.example
    #[arg(long, value_name = "URL")]
    pub public_base_url: Option<String>,
    /// TOML file with these settings
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub config: Option<String>,
}

/// registry-service's settings. `Debug` leaves out the database's URL, which may hold a password.
#[derive(Clone, derive_more::Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[debug("Settings {{ .. }}")]
pub struct Settings {
    /// The address to serve gRPC on.
    pub listen: SocketAddr,
    /// `sqlite://<path>` or `postgres://...`.
    pub database_url: String,
    /// The file of the master key. Empty if it was not given.
    pub master_key_file: PathBuf,
    /// The base of every Tenant Authority URL, without a trailing slash. Empty if it was not given.
    pub public_base_url: String,
}

/// The settings that a command needs.
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
    /// Reads flags, environment and file, and checks them and the files that they name.
    pub fn load(flags: &Flags, needs: Needs) -> Result<Self, ConfigError> {
        load(
            ENVIRONMENT_PREFIX,
            flags.config.as_deref(),
            flags,
            |settings: &mut Self, problems| {
                settings.check(needs, problems);
                if needs >= Needs::Keys && settings.master_key_file != Path::new("") {
                    check_master_key_file(&settings.master_key_file, problems);
                }
            },
        )
    }

    /// Checks every value, and that those in `needs` are set.
    pub fn checked(mut self, needs: Needs) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        self.check(needs, &mut problems);
        problems.finish(self)
    }

    fn check(&mut self, needs: Needs, problems: &mut Problems) {
        check_loopback("listen", self.listen, problems);
        if let Err(problem) = check_url(&self.database_url) {
            let is_missing = self.database_url.is_empty();
            problems.add("database_url", if is_missing { MISSING } else { problem });
        }
        if needs >= Needs::Keys && self.master_key_file == Path::new("") {
            problems.add("master_key_file", MISSING);
        }
        if !self.public_base_url.is_empty() {
            match base_url(&self.public_base_url) {
                Ok(url) => self.public_base_url = url,
                Err(problem) => problems.add("public_base_url", problem),
            }
        } else if needs >= Needs::Everything {
            problems.add("public_base_url", MISSING);
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50051).into(),
            database_url: String::new(),
            master_key_file: PathBuf::new(),
            public_base_url: String::new(),
        }
    }
}

/// Returns a base URL (https, or http on a loopback host, without path, query and fragment) without its trailing slash.
fn base_url(text: &str) -> Result<String, &'static str> {
    let url = uri::base_url(text.trim_end_matches('/'))?;
    let authority = url.split_once("://").map_or("", |(_, authority)| authority);
    match authority.contains('/') {
        true => Err("must not have a path"),
        false => Ok(url),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn settings(public_base_url: &str) -> Settings {
        Settings {
            database_url: "postgres://user:sup3rs3cret@localhost/registry".into(),
            master_key_file: "key".into(),
            public_base_url: public_base_url.into(),
            ..Settings::default()
        }
    }

    #[test]
    fn a_base_url_loses_its_trailing_slash() {
        for (given, expected) in [
            ("https://auth.example/", "https://auth.example"),
            ("https://auth.example:8443", "https://auth.example:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ] {
            let settings = settings(given).checked(Needs::Everything).unwrap();
            assert_eq!(settings.public_base_url, expected);
        }
        for bad in [
            "http://auth.example",
            "ftp://auth.example",
            "auth.example",
            "https://",
            "https://a.example/?q",
            "https://a.example?q",
            "https://a.example/#f",
            "https://a.example/base",
            "https://a.example/base/",
            "https://user@a.example",
        ] {
            let error = settings(bad).checked(Needs::Everything).unwrap_err().to_string();
            assert!(error.contains("--public-base-url "), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
    }

    #[test]
    fn each_command_requires_the_settings_it_needs() {
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
