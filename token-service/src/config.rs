//! token-service's settings. No error repeats a value: a database URL holds a password.

// `--help` prints the flags' comments, with bare URLs.
#![allow(rustdoc::bare_urls)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use accord::{
    keys::read_secret,
    rpc::{
        channel::{Addresses, HopToken, Target},
        config::{
            AdminListen, ConfigError, MISSING, Problems, load,
            settings::{Needs, ServiceSettings},
        },
        tls::{TlsProblem, certificate::problem_of_client},
    },
    text::validation::Violations,
    tls::{ClientTls, TlsFile, TlsFileError, TlsFiles},
};
use anyhow::{Context, anyhow};
use serde::Deserialize;

use crate::model::{dpop_nonce::NoncePolicy, lifetimes::Lifetimes, signing_key::Algorithm};

mod command_line;
mod partners;

pub use self::command_line::{Cli, Command, Flags};

/// The prefix of environment variables; the rest is the key in upper case.
pub const ENVIRONMENT_PREFIX: &str = "ACCORD_TOKEN_";

/// Where the service answers `health` unless `--admin-listen` is set.
pub(crate) const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);

const DAY_SECONDS: u64 = 24 * 3600;
/// The largest file with a private key, in bytes.
const MAX_KEY_FILE_BYTES: usize = 64 * 1024;

/// token-service's settings. `Debug` shows none of them: the database's URL may hold a password.
#[derive(Clone, derive_more::Debug, Deserialize)]
#[serde(default)]
#[debug("Settings {{ .. }}")]
pub struct Settings {
    /// What both services have.
    #[serde(skip)]
    pub service: ServiceSettings,
    /// Where to serve gRPC.
    pub listen: SocketAddr,
    /// Where to serve HTTP.
    pub http_listen: SocketAddr,
    /// Where to serve metrics and health, if at all. Nothing there is secret.
    pub admin_listen: Option<AdminListen>,
    /// Where registry-service serves gRPC.
    pub registry_url: String,
    /// The file of this service's own workload token; empty if it was not given.
    pub registry_token_file: PathBuf,
    /// The file of the authorities that sign registry-service's certificates; empty if it was not given.
    pub registry_ca: PathBuf,
    /// The file of this service's client certificate; empty if it was not given.
    pub registry_client_certificate: PathBuf,
    /// The file of that certificate's private key; empty if it was not given.
    pub registry_client_key: PathBuf,
    /// Life of an access token in seconds.
    pub access_token_seconds: u64,
    /// Absolute life of a refresh family in days.
    pub family_days: u64,
    /// Days after its last use at which a refresh family ends.
    pub family_idle_days: u64,
    /// How many seconds cached registry facts stay in use after their lease while the registry does not answer.
    pub registry_stale_max: u64,
    /// How many calls a client may make in a second; 0 means any number.
    pub client_calls_per_second: u32,
    /// Whether DPoP proofs must have a nonce.
    pub dpop_nonce: NoncePolicy,
    /// The product's name on pages.
    pub product_name: String,
    /// The algorithm of the first signing keys of an empty database.
    pub signing_algorithm: Algorithm,
    /// After how many days signing keys rotate by themselves; 0 means never.
    pub signing_key_days: u64,
    /// The file of the authorities of partners' certificates; empty if it was not given.
    pub partner_ca: PathBuf,
    /// The header in which gateways pass on certificates of their clients: `xfcc`, `client-cert`, or `none`.
    pub client_certificate_header: String,
    /// The base URL of the endpoints for clients with certificates, without a trailing slash; empty if it is the public one.
    pub mtls_base_url: String,
    /// The networks beside the public Internet that keys of clients may be fetched from, separated by commas.
    pub jwks_allowed_networks: String,
}

impl AsMut<ServiceSettings> for Settings {
    fn as_mut(&mut self) -> &mut ServiceSettings {
        &mut self.service
    }
}

impl Settings {
    /// Returns default settings with a database, a master key and a registry.
    pub fn new(database_url: String, master_key_file: PathBuf, registry_url: String) -> Self {
        Self {
            service: ServiceSettings::new(database_url, master_key_file),
            registry_url,
            ..Self::default()
        }
    }

    /// Reads flags, environment and file, and checks them and the files that they name.
    pub fn load(flags: &Flags, needs: Needs) -> Result<Self, ConfigError> {
        load(
            ENVIRONMENT_PREFIX,
            flags.service.config.as_deref(),
            flags,
            |settings: &mut Self, problems| {
                settings.check(needs, problems);
                settings.service.check_files(needs, problems);
                if needs == Needs::Everything {
                    settings.check_registry_files(problems);
                    if let Err(TlsProblem { key, problem }) = settings.partner_authorities() {
                        problems.add(key, &problem);
                    }
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
            ("signing_key_days", self.signing_key_days, 0, 3660),
        ] {
            if !(least..=most).contains(&value) {
                problems.add(key, &format!("must be {least} to {most}"));
            }
        }
        let listeners = [("listen", self.listen), ("http_listen", self.http_listen)];
        self.service.check(&listeners, needs, problems);
        self.check_partners(problems);
        let mut violations = Violations::default();
        match violations.text("product_name", &self.product_name, 1..=60) {
            Some(name) => self.product_name = name,
            None => violations
                .iter()
                .for_each(|violation| problems.add("product_name", &violation.description)),
        }
        if needs == Needs::Everything {
            self.check_registry(problems);
        }
    }

    fn check_registry(&self, problems: &mut Problems) {
        let is_set = |path: &Path| path != Path::new("");
        let has_tls = match Addresses::parse(&self.registry_url) {
            _ if self.registry_url.is_empty() => return problems.add("registry_url", MISSING),
            Ok(addresses) => addresses.has_tls(),
            Err(problem) => return problems.add("registry_url", problem),
        };
        let certificate = is_set(&self.registry_client_certificate);
        let key = is_set(&self.registry_client_key);
        if certificate && !key {
            problems.add(
                "registry_client_key",
                "is missing: --registry-client-certificate needs it",
            );
        }
        if key && !certificate {
            let missing = "is missing: --registry-client-key needs it";
            problems.add("registry_client_certificate", missing);
        }
        if !certificate && !is_set(&self.registry_token_file) {
            problems.add("registry_token_file", MISSING);
        }
        for (name, path) in [
            ("registry_ca", &self.registry_ca),
            ("registry_client_certificate", &self.registry_client_certificate),
        ] {
            if !has_tls && is_set(path) {
                problems.add(name, "needs https:// in --registry-url");
            }
        }
        if has_tls && !is_set(&self.registry_ca) {
            problems.add("registry_ca", "is missing: https:// in --registry-url needs it");
        }
    }

    /// Records problems of the files for the connection to the registry.
    fn check_registry_files(&self, problems: &mut Problems) {
        if self.registry_token_file != Path::new("")
            && let Err(error) = HopToken::from_file(&self.registry_token_file)
        {
            problems.add("registry_token_file", &error.to_string());
        }
        if self.registry_client_key != Path::new("")
            && let Err(error) = read_secret(&self.registry_client_key, MAX_KEY_FILE_BYTES)
        {
            problems.add("registry_client_key", &error.to_string());
        }
        match self.registry_tls() {
            Ok(tls) => {
                if let Some(problem) = tls.as_ref().and_then(problem_of_client) {
                    problems.add("registry_client_certificate", problem);
                }
            }
            Err(error) => {
                let key = match error.file {
                    TlsFile::Authorities => "registry_ca",
                    TlsFile::Certificate => "registry_client_certificate",
                    TlsFile::PrivateKey => "registry_client_key",
                };
                problems.add(key, &error.to_string());
            }
        }
    }

    /// Reads the files for TLS to the registry; `None` if it is reached without.
    fn registry_tls(&self) -> Result<Option<ClientTls>, TlsFileError> {
        if self.registry_ca == Path::new("") {
            return Ok(None);
        }
        let identity = (&self.registry_client_certificate, &self.registry_client_key);
        let has_identity = identity.0 != Path::new("") && identity.1 != Path::new("");
        let files = TlsFiles {
            authorities: self.registry_ca.clone(),
            identity: has_identity.then(|| (identity.0.clone(), identity.1.clone())),
        };
        ClientTls::load(files).map(Some)
    }

    /// Returns where the registry is, with the TLS of its connections.
    pub fn registry_target(&self) -> anyhow::Result<Target> {
        let addresses =
            Addresses::parse(&self.registry_url).map_err(|problem| anyhow!("--registry-url {problem}"))?;
        let tls = self.registry_tls().context("the files for TLS to the registry")?;
        Target::new(addresses, tls).map_err(|problem| anyhow!("--registry-url {problem}"))
    }

    /// Reads this service's own token; `None` if a client certificate takes its place.
    pub fn registry_token(&self) -> anyhow::Result<Option<HopToken>> {
        if self.registry_token_file == Path::new("") {
            return Ok(None);
        }
        let token = HopToken::from_file(&self.registry_token_file);
        token.map(Some).context("--registry-token-file")
    }

    /// Returns how long cached registry facts stay in use after their lease while the registry does not answer.
    pub fn registry_stale_max(&self) -> Duration {
        Duration::from_secs(self.registry_stale_max)
    }

    /// Returns how long a signing key signs; `None` if only calls rotate it.
    pub fn signing_key_period(&self) -> Option<Duration> {
        let days = (self.signing_key_days > 0).then_some(self.signing_key_days)?;
        Some(Duration::from_secs(days * DAY_SECONDS))
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
            service: ServiceSettings::default(),
            listen: (Ipv4Addr::LOCALHOST, 50052).into(),
            http_listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            admin_listen: None,
            registry_url: String::new(),
            registry_token_file: PathBuf::new(),
            registry_ca: PathBuf::new(),
            registry_client_certificate: PathBuf::new(),
            registry_client_key: PathBuf::new(),
            access_token_seconds: lifetimes.access_token.as_secs(),
            family_days: days(lifetimes.family),
            family_idle_days: days(lifetimes.family_idle),
            registry_stale_max: 0,
            client_calls_per_second: 5000,
            dpop_nonce: NoncePolicy::default(),
            product_name: "Accord".to_owned(),
            signing_algorithm: Algorithm::default(),
            signing_key_days: 90,
            partner_ca: PathBuf::new(),
            client_certificate_header: String::new(),
            mtls_base_url: String::new(),
            jwks_allowed_networks: String::new(),
        }
    }
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
            "https://127.0.0.1:1,http://127.0.0.1:1",
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
    fn tls_to_the_registry_has_authorities_and_whole_pairs() {
        let given = |url: &str, token: &str, [ca, certificate, key]: [&str; 3]| Settings {
            registry_url: url.into(),
            registry_token_file: token.into(),
            registry_ca: ca.into(),
            registry_client_certificate: certificate.into(),
            registry_client_key: key.into(),
            ..settings()
        };
        let https = "https://a.internal:1,https://b.internal:1";
        for (token, files) in [
            ("token", ["ca", "", ""]),
            ("", ["ca", "c", "k"]),
            ("token", ["ca", "c", "k"]),
        ] {
            let settings = given(https, token, files);
            assert!(settings.checked(Needs::Everything).is_ok(), "{token} {files:?}");
        }
        for (url, token, files, name) in [
            (https, "token", ["", "", ""], "--registry-ca "),
            (https, "", ["ca", "", ""], "--registry-token-file "),
            (https, "token", ["ca", "c", ""], "--registry-client-key "),
            (https, "token", ["ca", "", "k"], "--registry-client-certificate "),
            ("http://127.0.0.1:1", "token", ["ca", "", ""], "--registry-ca "),
            (
                "http://127.0.0.1:1",
                "",
                ["", "c", "k"],
                "--registry-client-certificate ",
            ),
        ] {
            let error = given(url, token, files).checked(Needs::Everything).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
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
    fn signing_keys_rotate_after_days_or_never() {
        for (days, accepted) in [(0, true), (1, true), (3660, true), (3661, false)] {
            let other = Settings {
                signing_key_days: days,
                ..settings()
            };
            assert_eq!(other.clone().checked(Needs::Database).is_ok(), accepted, "{days}");
            assert_eq!(other.signing_key_period().is_some(), days > 0);
        }
    }

    #[test]
    fn debug_shows_no_database_url() {
        assert!(!format!("{:?}", settings()).contains("sup3rs3cret"));
    }
}
