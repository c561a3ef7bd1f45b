//! token-service's command line and settings. Values are never repeated in an error: a database URL
//! holds a password.

// The flags' comments are what `--help` prints, where a URL stands as it is.
#![allow(rustdoc::bare_urls)]

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use accord::rpc::config::{ConfigError, load};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};

use crate::model::lifetimes::Lifetimes;

/// What the names of environment variables begin with; the rest is the key in upper case.
pub const ENVIRONMENT_PREFIX: &str = "ACCORD_TOKEN_";

/// The longest life of a refresh family that can be set, in days.
const MAX_FAMILY_DAYS: u64 = 3660;
/// The most milliseconds between two looks at the registry's changes: less than half of a lease.
const MAX_POLL_MS: u64 = 300;
/// The most seconds that what the registry said may count on.
const MAX_STALE_SECONDS: u64 = 3600;
/// The longest name of the product, in characters.
const MAX_PRODUCT_NAME: usize = 60;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "token-service",
    version,
    about = "What is allowed: consents and tokens"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What token-service can do.
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
}

/// Settings as flags. Each is also an environment variable (`ACCORD_TOKEN_<FLAG>`) and a key of the
/// TOML file; the flag wins over the variable, the variable over the file.
#[derive(Args, Clone, Default, Serialize)]
pub struct Flags {
    /// Address to serve gRPC on [default: 127.0.0.1:50052]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Address to serve HTTP on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_listen: Option<String>,
    /// sqlite://PATH or postgres://...
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_url: Option<String>,
    /// File of 32 random bytes, mode 0600, that wraps the database's keys
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key_file: Option<PathBuf>,
    /// Where registry-service serves gRPC, such as http://127.0.0.1:50051
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_url: Option<String>,
    /// File with this service's own workload token, mode 0600
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_token_file: Option<PathBuf>,
    /// Life of an access token in seconds; 900 at most [default: 300]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token_seconds: Option<u64>,
    /// Absolute life of a refresh family in days [default: 90]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_days: Option<u64>,
    /// Days after its last use at which a refresh family ends; a suspension does not stop them [default: 30]
    #[arg(long, value_name = "DAYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family_idle_days: Option<u64>,
    /// How often registry and database are asked what changed, in milliseconds, at most 300; 0: never, and
    /// nothing is answered from memory [default: 200]
    #[arg(long, value_name = "MILLISECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_poll_ms: Option<u64>,
    /// How many seconds longer than a moment what the registry said may count while it does not answer, at
    /// most 3600. Adds to the second within which what the registry ends is ended everywhere [default: 0]
    #[arg(long, value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_stale_max: Option<u64>,
    /// What the pages call the product [default: Accord]
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
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

/// token-service's settings. `Debug` leaves the database's URL out, which may hold a password.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to serve gRPC.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where to serve HTTP.
    #[serde(default = "default_http_listen")]
    pub http_listen: SocketAddr,
    /// `sqlite://<path>` or `postgres://...`.
    pub database_url: String,
    /// The file of the master key; empty when it was not given and is not needed.
    #[serde(default)]
    pub master_key_file: PathBuf,
    /// Where registry-service serves gRPC.
    #[serde(default)]
    pub registry_url: String,
    /// The file of this service's own workload token.
    #[serde(default)]
    pub registry_token_file: PathBuf,
    /// Life of an access token in seconds.
    #[serde(default = "default_access_token_seconds")]
    pub access_token_seconds: u64,
    /// Absolute life of a refresh family in days.
    #[serde(default = "default_family_days")]
    pub family_days: u64,
    /// Days after its last use at which a refresh family ends.
    #[serde(default = "default_family_idle_days")]
    pub family_idle_days: u64,
    /// How often registry and database are asked what changed, in milliseconds; 0: never.
    #[serde(default = "default_registry_poll_ms")]
    pub registry_poll_ms: u64,
    /// How many seconds longer than a moment what the registry said may count while it does not answer.
    #[serde(default)]
    pub registry_stale_max: u64,
    /// What the pages call the product.
    #[serde(default = "default_product_name")]
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
    /// Settings with everything at its default, and a master key and a database.
    pub fn new(database_url: String, master_key_file: PathBuf, registry_url: String) -> Self {
        Self {
            listen: default_listen(),
            http_listen: default_http_listen(),
            database_url,
            master_key_file,
            registry_url,
            registry_token_file: PathBuf::new(),
            access_token_seconds: default_access_token_seconds(),
            family_days: default_family_days(),
            family_idle_days: default_family_idle_days(),
            registry_poll_ms: default_registry_poll_ms(),
            registry_stale_max: 0,
            product_name: default_product_name(),
        }
    }

    /// Reads flags, environment and file.
    ///
    /// # Errors
    /// [`ConfigError`] for what is unknown, missing or malformed.
    pub fn load(flags: &Flags, needs: Needs) -> Result<Self, ConfigError> {
        let settings: Self = load(ENVIRONMENT_PREFIX, flags.config.as_deref(), flags)?;
        settings.checked(needs)
    }

    /// The settings, with every value in order and those there that `needs` names.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn checked(self, needs: Needs) -> Result<Self, ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.to_owned()));
        let longest = Lifetimes::MAX_ACCESS_TOKEN.as_secs();
        if !(1..=longest).contains(&self.access_token_seconds) {
            return invalid("key `access_token_seconds` must be 1 to 900");
        }
        if !(1..=MAX_FAMILY_DAYS).contains(&self.family_days) {
            return invalid("key `family_days` must be 1 to 3660");
        }
        if !(1..=MAX_FAMILY_DAYS).contains(&self.family_idle_days) {
            return invalid("key `family_idle_days` must be 1 to 3660");
        }
        if self.registry_poll_ms > MAX_POLL_MS {
            return invalid("key `registry_poll_ms` must be 0 to 300");
        }
        if self.registry_stale_max > MAX_STALE_SECONDS {
            return invalid("key `registry_stale_max` must be 0 to 3600");
        }
        if self.registry_stale_max > 0 && self.registry_poll_ms == 0 {
            return invalid(
                "key `registry_stale_max` needs `registry_poll_ms`: nothing is in memory without",
            );
        }
        if !(1..=MAX_PRODUCT_NAME).contains(&self.product_name.trim().chars().count()) {
            return invalid("key `product_name` must have 1 to 60 characters");
        }
        if needs == Needs::Everything {
            if self.master_key_file == Path::new("") {
                return invalid("missing key `master_key_file`");
            }
            if self.registry_token_file == Path::new("") {
                return invalid("missing key `registry_token_file`");
            }
            if !is_plaintext_loopback(&self.registry_url) {
                return invalid("key `registry_url` must be http:// with a loopback host");
            }
        }
        Ok(self)
    }

    /// How often registry and database are asked what changed; `None`: never.
    pub fn poll_every(&self) -> Option<Duration> {
        (self.registry_poll_ms > 0).then(|| Duration::from_millis(self.registry_poll_ms))
    }

    /// How much longer than a lease the registry's facts may count while it does not answer.
    pub fn registry_stale_max(&self) -> Duration {
        Duration::from_secs(self.registry_stale_max)
    }

    /// How long tokens live.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            access_token: Duration::from_secs(self.access_token_seconds),
            family: Duration::from_secs(self.family_days * 24 * 3600),
            family_idle: Duration::from_secs(self.family_idle_days * 24 * 3600),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("http_listen", &self.http_listen)
            .field("registry_url", &self.registry_url)
            .finish_non_exhaustive()
    }
}

/// Whether a URL names this machine without TLS: plaintext is for loopback only.
fn is_plaintext_loopback(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else {
        return false;
    };
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http"
        && loopback
        && url.path() == "/"
        && url.query().is_none()
        && url.username().is_empty()
}

fn default_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 50052))
}

fn default_http_listen() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))
}

fn default_access_token_seconds() -> u64 {
    Lifetimes::default().access_token.as_secs()
}

fn default_family_days() -> u64 {
    Lifetimes::default().family.as_secs() / (24 * 3600)
}

fn default_family_idle_days() -> u64 {
    Lifetimes::default().family_idle.as_secs() / (24 * 3600)
}

fn default_registry_poll_ms() -> u64 {
    200
}

fn default_product_name() -> String {
    "Accord".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings() -> Settings {
        Settings {
            registry_token_file: "token".into(),
            ..Settings::new(
                "postgres://user:sup3rs3cret@db/token".into(),
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
        ] {
            let other = Settings {
                registry_url: bad.into(),
                ..settings()
            };
            assert!(other.checked(Needs::Everything).is_err(), "{bad}");
        }
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
    fn staleness_is_bounded_and_needs_a_memory() {
        for (stale, poll, accepted) in [(0, 0, true), (3600, 200, true), (3601, 200, false), (1, 0, false)] {
            let other = Settings {
                registry_stale_max: stale,
                registry_poll_ms: poll,
                ..settings()
            };
            assert_eq!(other.checked(Needs::Database).is_ok(), accepted, "{stale} {poll}");
        }
    }

    #[test]
    fn debug_shows_no_database_url() {
        assert!(!format!("{:?}", settings()).contains("sup3rs3cret"));
    }
}
