//! registry-service's settings. No error repeats a value: a database URL holds a password.

// `--help` prints the flags' comments, with bare URLs.
#![allow(rustdoc::bare_urls)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use accord::{
    rpc::config::{
        AdminListen, ConfigError, MISSING, Problems, load,
        settings::{Needs, ServiceSettings},
    },
    text::uri::server_url,
};
use serde::Deserialize;

mod command_line;

pub use self::command_line::{Cli, Command, Flags, OperatorCommand, WorkloadCommand};

/// The prefix of environment variables; the rest is the key in upper case.
pub const ENVIRONMENT_PREFIX: &str = "ACCORD_REGISTRY_";

/// Where the service answers `health` unless `--admin-listen` is set.
pub(crate) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// registry-service's settings. `Debug` leaves out the database's URL, which may hold a password.
#[derive(Clone, derive_more::Debug, Deserialize)]
#[serde(default)]
#[debug("Settings {{ .. }}")]
pub struct Settings {
    /// What both services have.
    #[serde(skip)]
    pub service: ServiceSettings,
    /// The address to serve gRPC on.
    pub listen: SocketAddr,
    /// Where to serve metrics and health, if at all. Nothing there is secret.
    pub admin_listen: Option<AdminListen>,
    /// The base of every Tenant Authority URL, without a trailing slash. Empty if it was not given.
    pub public_base_url: String,
    /// Whether giving access to a tenant's data takes two operators, or one admin.
    pub second_operator: bool,
}

impl AsMut<ServiceSettings> for Settings {
    fn as_mut(&mut self) -> &mut ServiceSettings {
        &mut self.service
    }
}

impl Settings {
    /// Reads flags, environment and file, and checks them and the files that they name.
    pub fn load(flags: &Flags, needs: Needs) -> Result<Self, ConfigError> {
        load(
            ENVIRONMENT_PREFIX,
            flags.service.config.as_deref(),
            flags,
            |settings: &mut Self, problems| {
                settings.check(needs, problems);
                settings.service.check_files(needs, problems);
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
        self.service.check(&[("listen", self.listen)], needs, problems);
        if !self.public_base_url.is_empty() {
            match server_url(&self.public_base_url) {
                Ok(url) => self.public_base_url = url,
                Err(problem) => problems.add("public_base_url", &problem),
            }
        } else if needs >= Needs::Everything {
            problems.add("public_base_url", MISSING);
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service: ServiceSettings::default(),
            listen: (Ipv4Addr::LOCALHOST, 50051).into(),
            admin_listen: None,
            public_base_url: String::new(),
            second_operator: true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn settings(public_base_url: &str) -> Settings {
        Settings {
            service: ServiceSettings::new(
                "postgres://user:sup3rs3cret@localhost/registry".into(),
                "key".into(),
            ),
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
            assert_eq!(
                bad.contains("?q"),
                error.contains("must not have a query"),
                "{error}"
            );
            assert!(error.contains("--public-base-url "), "{error}");
            assert!(!error.contains(bad), "{error}");
        }
        let error = settings("http://auth.example/x?y").checked(Needs::Everything);
        let error = error.unwrap_err().to_string();
        for rule in ["must use https", "must not have a path", "must not have a query"] {
            assert!(error.contains(rule), "{error}");
        }
    }

    #[test]
    fn each_command_requires_the_settings_it_needs() {
        let mut bare = settings("");
        bare.service.master_key_file = "".into();
        assert!(bare.clone().checked(Needs::Database).is_ok());
        assert!(bare.checked(Needs::Keys).is_err());
        assert!(settings("").checked(Needs::Keys).is_ok());
        assert!(settings("").checked(Needs::Everything).is_err());
    }

    #[test]
    fn none_is_no_witness() {
        let mut settings = settings("https://auth.example");
        settings.service.audit_witness = "none".into();
        let checked = settings.checked(Needs::Everything).unwrap();
        assert!(checked.service.options().audit_witness.is_none());
    }

    #[test]
    fn debug_shows_no_database_url() {
        assert!(!format!("{:?}", settings("https://a.example")).contains("sup3rs3cret"));
    }
}
