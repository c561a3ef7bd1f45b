//! token-service's command line and settings. No error repeats a value: a database URL holds a password.

// `--help` prints the flags' comments, with bare URLs.
#![allow(rustdoc::bare_urls)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use accord::{
    keys::read_secret_text,
    rpc::config::{ConfigError, MISSING, Problems, check_loopback, check_master_key_file, load},
    store::origin::check_url,
    text::{
        opaque::{OpaqueToken, TokenKind},
        validation::Violations,
    },
};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::model::lifetimes::Lifetimes;

/// The prefix of environment variables; the rest is the key in upper case.
pub const ENVIRONMENT_PREFIX: &str = "ACCORD_TOKEN_";

const DAY_SECONDS: u64 = 24 * 3600;
/// The largest file with a token, in bytes.
const MAX_TOKEN_FILE_BYTES: usize = 1024;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "token-service",
    version,
    about = "What is allowed: consents and tokens"
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of token-service.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve gRPC and HTTP until SIGTERM or SIGINT
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
    /// Report every problem of the settings, their files and the database, without serving
    CheckConfig {
        /// Settings.
        #[command(flatten)]
        flags: Flags,
    },
}

/// Settings as flags. Each is also an environment variable (`ACCORD_TOKEN_<FLAG>`) and a key of the
/// TOML file; the flag wins over the variable, the variable over the file.
#[derive(Args, Clone, derive_more::Debug, Default, Serialize)]
#[debug("Flags {{ .. }}")]
pub struct Flags {
    /// Address to serve gRPC on [default: 127.0.0.1:50052]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address to serve HTTP on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// sqlite://PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// File of 32 random bytes, mode 0600, that wraps the database's keys
    #[arg(long, value_name = "PATH")]
    pub master_key_file: Option<String>,
    /// Where registry-service serves gRPC, such as http://127.0.0.1:50051
    #[arg(long, value_name = "URL")]
    pub registry_url: Option<String>,
    /// File with this service's own workload token, mode 0600
    #[arg(long, value_name = "PATH")]
    pub registry_token_file: Option<String>,
    /// Life of an access token in seconds; 900 at most [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub access_token_seconds: Option<String>,
    /// Absolute life of a refresh family in days [default: 90]
    #[arg(long, value_name = "DAYS")]
    pub family_days: Option<String>,
    /// Days after its last use at which a refresh family ends; a suspension does not stop them [default: 30]
    #[arg(long, value_name = "DAYS")]
    pub family_idle_days: Option<String>,
    /// How many seconds cached registry facts may be used while the registry does not answer, at most 3600.
    /// Lengthens the second after which a revocation holds everywhere [default: 0]
    #[arg(long, value_name = "SECONDS")]
    pub registry_stale_max: Option<String>,
    /// The product's name on pages [default: Accord]
    #[arg(long, value_name = "NAME")]
    pub product_name: Option<String>,
    /// TOML file with these settings
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub config: Option<String>,
}

/// token-service's settings. `Debug` shows none of them: the database's URL may hold a password.
#[derive(Clone, derive_more::Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[debug("Settings {{ .. }}")]
pub struct Settings {
    /// Where to serve gRPC.
    pub listen: SocketAddr,
    /// Where to serve HTTP.
    pub http_listen: SocketAddr,
    /// `sqlite://<path>` or `postgres://...`.
    pub database_url: String,
    /// The file of the master key; empty if it was not given.
    pub master_key_file: PathBuf,
    /// Where registry-service serves gRPC.
    pub registry_url: String,
    /// The file of this service's own workload token.
    pub registry_token_file: PathBuf,
    /// Life of an access token in seconds.
    pub access_token_seconds: u64,
    /// Absolute life of a refresh family in days.
    pub family_days: u64,
    /// Days after its last use at which a refresh family ends.
    pub family_idle_days: u64,
    /// How many seconds cached registry facts outlive their lease while the registry does not answer.
    pub registry_stale_max: u64,
    /// The product's name on pages.
    pub product_name: String,
}

/// Which settings a command can't do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// The database.
    Database,
    /// All of them.
    Everything,
}

impl Settings {
    /// Returns default settings with a database, a master key and a registry.
    pub fn new(database_url: String, master_key_file: PathBuf, registry_url: String) -> Self {
        Self {
            database_url,
            master_key_file,
            registry_url,
            ..Self::default()
        }
    }

    /// Reads flags, environment and file, and checks them and the files that they name.
    pub fn load(flags: &Flags, needs: Needs) -> Result<Self, ConfigError> {
        load(
            ENVIRONMENT_PREFIX,
            flags.config.as_deref(),
            flags,
            |settings: &mut Self, problems| {
                settings.check(needs, problems);
                if needs == Needs::Everything && settings.master_key_file != Path::new("") {
                    check_master_key_file(&settings.master_key_file, problems);
                }
                if needs == Needs::Everything
                    && settings.registry_token_file != Path::new("")
                    && let Err(error) = read_token(&settings.registry_token_file)
                {
                    problems.add("registry_token_file", &error.to_string());
                }
            },
        )
    }

    /// Checks every value, and that those which `needs` names are set.
    pub fn checked(mut self, needs: Needs) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        self.check(needs, &mut problems);
        problems.finish(self)
    }

    fn check(&mut self, needs: Needs, problems: &mut Problems) {
        let longest = Lifetimes::MAX_ACCESS_TOKEN.as_secs();
        for (key, value, least, most) in [
            ("access_token_seconds", self.access_token_seconds, 1, longest),
            ("family_days", self.family_days, 1, 3660),
            ("family_idle_days", self.family_idle_days, 1, 3660),
            ("registry_stale_max", self.registry_stale_max, 0, 3600),
        ] {
            if !(least..=most).contains(&value) {
                problems.add(key, &format!("must be {least} to {most}"));
            }
        }
        for (key, address) in [("listen", self.listen), ("http_listen", self.http_listen)] {
            check_loopback(key, address, problems);
        }
        let mut violations = Violations::default();
        match violations.text("product_name", &self.product_name, 1..=60) {
            Some(name) => self.product_name = name,
            None => violations
                .iter()
                .for_each(|violation| problems.add("product_name", &violation.description)),
        }
        if let Err(problem) = check_url(&self.database_url) {
            let is_missing = self.database_url.is_empty();
            problems.add("database_url", if is_missing { MISSING } else { problem });
        }
        if needs == Needs::Everything {
            for (key, path) in [
                ("master_key_file", &self.master_key_file),
                ("registry_token_file", &self.registry_token_file),
            ] {
                if path == Path::new("") {
                    problems.add(key, MISSING);
                }
            }
            if self.registry_url.is_empty() {
                problems.add("registry_url", MISSING);
            } else if !is_plaintext_loopback(&self.registry_url) {
                problems.add("registry_url", "must be http:// with a loopback host");
            }
        }
    }

    /// Returns how long cached registry facts outlive their lease while the registry does not answer.
    pub fn registry_stale_max(&self) -> Duration {
        Duration::from_secs(self.registry_stale_max)
    }

    /// Returns the lifetimes of tokens.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            access_token: Duration::from_secs(self.access_token_seconds),
            family: Duration::from_secs(self.family_days * DAY_SECONDS),
            family_idle: Duration::from_secs(self.family_idle_days * DAY_SECONDS),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let lifetimes = Lifetimes::default();
        let days = |span: Duration| span.as_secs() / DAY_SECONDS;
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50052).into(),
            http_listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            database_url: String::new(),
            master_key_file: PathBuf::new(),
            registry_url: String::new(),
            registry_token_file: PathBuf::new(),
            access_token_seconds: lifetimes.access_token.as_secs(),
            family_days: days(lifetimes.family),
            family_idle_days: days(lifetimes.family_idle),
            registry_stale_max: 0,
            product_name: "Accord".to_owned(),
        }
    }
}

/// Reads this service's own token from a file that only this user can read. The error does not name the file.
pub fn read_token(path: &Path) -> anyhow::Result<OpaqueToken> {
    let text = read_secret_text(path, MAX_TOKEN_FILE_BYTES)?;
    OpaqueToken::parse(TokenKind::Workload, text.trim()).context("holds no token of a workload")
}

/// Returns whether a URL names this machine without TLS: plaintext is for loopback only.
fn is_plaintext_loopback(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let is_bare = url.username().is_empty() && url.password().is_none() && url.port() != Some(0);
        let is_base = is_bare && url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        url.scheme() == "http" && is_loopback && is_base
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> Settings {
        Settings {
            registry_token_file: "token".into(),
            ..Settings::new(
                "postgres://user:sup3rs3cret@localhost/token".into(),
                "key".into(),
                "http://127.0.0.1:50051".into(),
            )
        }
    }

    #[test]
    fn plaintext_to_the_registry_is_for_loopback() {
        assert!(settings().checked(Needs::Everything).is_ok());
        for bad in [
            "",
            "127.0.0.1:50051",
            "https://127.0.0.1:1",
            "http://registry:50051",
            "http://u@localhost",
            "http://:p@localhost",
            "http://localhost:0",
            "http://localhost#x",
        ] {
            let other = Settings {
                registry_url: bad.into(),
                ..settings()
            };
            assert!(other.checked(Needs::Everything).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_product_name_is_a_visible_text_on_one_line() {
        for (name, accepted) in [
            ("Acme & S\u{f6}hne", true),
            ("\u{200b}", false),
            ("Acme\nCorp", false),
            ("\u{202e}Acme", false),
            ("", false),
        ] {
            let other = Settings {
                product_name: name.into(),
                ..settings()
            };
            assert_eq!(other.checked(Needs::Database).is_ok(), accepted, "{name:?}");
        }
        let too_long = Settings {
            product_name: "x".repeat(61),
            ..settings()
        };
        assert!(too_long.checked(Needs::Database).is_err());
    }

    #[test]
    fn an_access_token_lives_fifteen_minutes_at_most() {
        for (seconds, accepted) in [(0, false), (1, true), (900, true), (901, false)] {
            let other = Settings {
                access_token_seconds: seconds,
                ..settings()
            };
            assert_eq!(other.checked(Needs::Database).is_ok(), accepted, "{seconds}");
        }
    }

    #[test]
    fn staleness_is_an_hour_at_most() {
        for (stale, accepted) in [(0, true), (3600, true), (3601, false)] {
            let other = Settings {
                registry_stale_max: stale,
                ..settings()
            };
            assert_eq!(other.checked(Needs::Database).is_ok(), accepted, "{stale}");
        }
    }

    #[test]
    fn debug_shows_no_database_url() {
        assert!(!format!("{:?}", settings()).contains("sup3rs3cret"));
    }
}
