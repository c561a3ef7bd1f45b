//! The settings that both services have.

// `--help` prints the flags' comments, with bare URLs.
#![allow(rustdoc::bare_urls)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    clock::{SharedClock, SystemClock},
    keys::{FileMasterKey, MasterKeySource, Pkcs11Uri},
    rpc::{
        config::{MISSING, Problems},
        middleware::limits::AddressLimit,
        run::{Options, witness::Witness},
        telemetry::admin::Readiness,
        tls::{
            server::ServerTls,
            settings::{DEFAULT_MIN_VERSION, PartnerCertificates, TlsFlags, TlsSettings},
        },
    },
    store::origin::check_url,
};

/// The most days that the audit record may be told to keep events.
const MAX_AUDIT_DAYS: u32 = 36_600;
/// The most gateways that a call may pass.
const MAX_HOPS: u8 = 16;
/// The default of `drain_delay`, in seconds. Balancers that ask every second or two have noticed by then.
const DEFAULT_DRAIN_DELAY: u64 = 3;

/// The settings as flags.
#[derive(Args, Clone, derive_more::Debug, Default, Serialize)]
#[debug("ServiceFlags {{ .. }}")]
pub struct ServiceFlags {
    /// sqlite://PATH or postgres://...
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// File of 32 random bytes, mode 0600, that wraps the database's keys
    #[arg(long, value_name = "PATH")]
    pub master_key_file: Option<String>,
    /// The same as an AES key in a token: pkcs11:token=LABEL;object=LABEL?module-path=PATH&pin-source=file:PATH
    #[arg(long, value_name = "URI")]
    pub master_key_pkcs11: Option<String>,
    /// The master key to rotate to; `serve` reads what either wraps
    #[arg(long, value_name = "PATH")]
    pub new_master_key_file: Option<String>,
    /// The same as a key in a token
    #[arg(long, value_name = "URI")]
    pub new_master_key_pkcs11: Option<String>,
    /// TLS of the listeners.
    #[command(flatten)]
    #[serde(flatten)]
    pub tls: TlsFlags,
    /// Seconds to serve on after SIGTERM, not ready, so that balancers learn of it; 60 at most [default: 3]
    #[arg(long, value_name = "SECONDS")]
    pub drain_delay: Option<String>,
    /// How many gateways a call from outside passes. The caller's address is so many elements from the right in X-Forwarded-For;
    /// 16 at most [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub trusted_hops: Option<String>,
    /// How many calls may come from one address in a second, as the gateway forwards it; 0 means any number
    /// [default: 5000]
    #[arg(long, value_name = "CALLS")]
    pub address_calls_per_second: Option<String>,
    /// How many days the audit record keeps events; 0 means for ever [default: 400]
    #[arg(long, value_name = "DAYS")]
    pub audit_days: Option<String>,
    /// Absolute path of a file on this host that gets signed heads of the audit record's log, or an https:// URL that gets them by
    /// POST over HTTP/2; at most one a minute, from the replica that seals [default: none]
    #[arg(long, value_name = "PATH|URL")]
    pub audit_witness: Option<String>,
    /// TOML file with these settings
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub config: Option<String>,
}

/// The settings. `Debug` shows none of them: the database's URL may hold a password. An empty path or text is not set.
#[derive(Clone, derive_more::Debug, Deserialize, PartialEq)]
#[serde(default)]
#[debug("ServiceSettings {{ .. }}")]
pub struct ServiceSettings {
    /// `sqlite://<path>` or `postgres://...`.
    pub database_url: String,
    /// The file of the master key.
    pub master_key_file: PathBuf,
    /// The PKCS#11 URI of the master key.
    pub master_key_pkcs11: String,
    /// The file of the master key to rotate to.
    pub new_master_key_file: PathBuf,
    /// The PKCS#11 URI of that key.
    pub new_master_key_pkcs11: String,
    /// The file of the listeners' certificate. Without one they speak plaintext.
    pub tls_certificate: PathBuf,
    /// The file of its private key.
    pub tls_private_key: PathBuf,
    /// The file of the authorities of client certificates. Without one none are verified.
    pub client_ca: PathBuf,
    /// The oldest version of TLS.
    pub tls_min_version: String,
    /// How many seconds to serve on after SIGTERM.
    pub drain_delay: u64,
    /// How many gateways a call from outside passes.
    pub trusted_hops: u8,
    /// How many calls may come from one address in a second; 0 means any number.
    pub address_calls_per_second: u32,
    /// How many days the audit record keeps events; 0 means for ever.
    pub audit_days: u32,
    /// Where signed heads of the audit record's log are pushed.
    pub audit_witness: String,
}

impl Default for ServiceSettings {
    fn default() -> Self {
        Self {
            database_url: String::new(),
            master_key_file: PathBuf::new(),
            master_key_pkcs11: String::new(),
            new_master_key_file: PathBuf::new(),
            new_master_key_pkcs11: String::new(),
            tls_certificate: PathBuf::new(),
            tls_private_key: PathBuf::new(),
            client_ca: PathBuf::new(),
            tls_min_version: DEFAULT_MIN_VERSION.to_owned(),
            drain_delay: DEFAULT_DRAIN_DELAY,
            trusted_hops: 1,
            address_calls_per_second: 5000,
            audit_days: 400,
            audit_witness: String::new(),
        }
    }
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

impl ServiceSettings {
    /// Returns default settings with a database and a master key.
    pub fn new(database_url: String, master_key_file: PathBuf) -> Self {
        Self {
            database_url,
            master_key_file,
            ..Self::default()
        }
    }

    /// Returns where the master keys are: the one in use, and the one to rotate to, if there is one.
    pub fn master_keys(&self) -> Vec<MasterKeySource> {
        self.find_master_keys(&mut Problems::default())
            .into_iter()
            .flatten()
            .collect()
    }

    fn find_master_keys(&self, problems: &mut Problems) -> [Option<MasterKeySource>; 2] {
        let (file, new_file) = (&self.master_key_file, &self.new_master_key_file);
        [
            master_key("master_key", file, &self.master_key_pkcs11, problems),
            master_key("new_master_key", new_file, &self.new_master_key_pkcs11, problems),
        ]
    }

    /// Returns the TLS of the listeners.
    pub fn tls(&self) -> TlsSettings {
        TlsSettings {
            certificate: self.tls_certificate.clone(),
            private_key: self.tls_private_key.clone(),
            client_ca: self.client_ca.clone(),
            partner_ca: PathBuf::new(),
            min_version: self.tls_min_version.clone(),
            partners: PartnerCertificates::None,
        }
    }

    /// Returns how long to serve on after SIGTERM.
    pub fn drain_delay(&self) -> Duration {
        Duration::from_secs(self.drain_delay)
    }

    /// Returns what these settings say to [`run`](crate::rpc::run::run).
    pub fn options(&self) -> Options {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Options {
            address_limit: Arc::new(AddressLimit::new(self.address_calls_per_second)),
            trusted_hops: self.trusted_hops.into(),
            audit_retention: (self.audit_days > 0).then(|| DAY * self.audit_days),
            audit_witness: Witness::parse(&self.audit_witness).ok(),
            readiness: Readiness::default(),
        }
    }

    /// Checks every value for these listeners, each with the key of its address, and that those in `needs` are set.
    pub fn check(&self, listeners: &[(&str, SocketAddr)], needs: Needs, problems: &mut Problems) {
        if self.audit_days > MAX_AUDIT_DAYS {
            problems.add("audit_days", &format!("must be 0 to {MAX_AUDIT_DAYS}"));
        }
        if !["", "none"].contains(&self.audit_witness.as_str())
            && let Err(problem) = Witness::parse(&self.audit_witness)
        {
            problems.add("audit_witness", problem);
        }
        if !(1..=MAX_HOPS).contains(&self.trusted_hops) {
            problems.add("trusted_hops", &format!("must be 1 to {MAX_HOPS}"));
        }
        self.tls().check(listeners, problems);
        if self.drain_delay > 60 {
            problems.add("drain_delay", "must be 0 to 60");
        }
        if let Err(problem) = check_url(&self.database_url) {
            let is_missing = self.database_url.is_empty();
            problems.add("database_url", if is_missing { MISSING } else { problem });
        }
        let [master_key, _] = self.find_master_keys(problems);
        if needs >= Needs::Keys && master_key.is_none() {
            problems.add("master_key_file", MISSING);
        }
    }

    /// Checks the files that the settings in `needs` name.
    pub fn check_files(&self, needs: Needs, problems: &mut Problems) {
        if needs >= Needs::Keys {
            for (key, path) in [
                ("master_key_file", &self.master_key_file),
                ("new_master_key_file", &self.new_master_key_file),
            ] {
                if path != Path::new("")
                    && let Err(error) = FileMasterKey::load(path)
                {
                    problems.add(key, &error.to_string());
                }
            }
        }
        if needs >= Needs::Everything {
            let clock: SharedClock = Arc::new(SystemClock);
            ServerTls::check(&self.tls(), &clock, problems);
        }
    }
}

/// Returns where a master key is, if one of the two settings says so. `prefix` and `_file` or `_pkcs11` are their names.
/// Records a problem if both are set, or if the URI is malformed.
fn master_key(prefix: &str, file: &Path, uri: &str, problems: &mut Problems) -> Option<MasterKeySource> {
    let key = format!("{prefix}_pkcs11");
    match (file != Path::new(""), uri.is_empty()) {
        (false, true) => None,
        (true, true) => Some(MasterKeySource::File(file.to_owned())),
        (true, false) => {
            let other = format!("{prefix}_file").replace('_', "-");
            problems.add(&key, &format!("can't be set together with --{other}"));
            None
        }
        (false, false) => match Pkcs11Uri::parse(uri) {
            Ok(uri) => Some(MasterKeySource::Pkcs11(uri)),
            Err(problem) => {
                problems.add(&key, &problem);
                None
            }
        },
    }
}
