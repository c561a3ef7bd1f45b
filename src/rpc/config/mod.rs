//! Configuration: a command-line flag overrides an environment variable, which overrides the TOML file, which overrides
//! the default.
//!
//! All three follow the same rules: a value is trimmed, an empty value counts as unset, and an unknown key is an error,
//! so that a misspelt setting is never ignored.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsString,
    net::SocketAddr,
    ops::Range,
    path::Path,
};

use figment::{
    Figment,
    error::Kind,
    providers::Serialized,
    value::{Dict, Value},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use toml::Spanned;

use crate::keys::read_secret_text;

pub mod settings;

/// The largest configuration file, in bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// An invalid configuration, with every problem that was found. A problem names the flag, the variable, or the key with
/// its file and line, but never the value.
#[derive(Debug, thiserror::Error)]
#[error("configuration: {}", .0.join("; "))]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    /// Adds a problem beside the settings.
    pub fn and(mut self, problem: String) -> Self {
        self.0.push(problem);
        self
    }
}

/// Collects the problems of a configuration.
#[derive(Debug, Default)]
pub struct Problems {
    prefix: String,
    /// The name to report for each key that is set: its flag, its variable, or its place in the file.
    names: BTreeMap<String, String>,
    /// Each key with the text of its problem.
    found: Vec<(String, String)>,
}

impl Problems {
    /// Records a problem with a key, such as "must be 1 to 900". Keeps only the first problem of each key.
    pub fn add(&mut self, key: &str, problem: &str) {
        let name = self.names.get(key).cloned().unwrap_or_else(|| {
            let flag = format!("--{}", key.replace('_', "-"));
            match self.prefix.as_str() {
                "" => flag,
                prefix => format!("{flag} ({prefix}{})", key.to_ascii_uppercase()),
            }
        });
        self.add_named(key, format!("{name} {problem}"));
    }

    fn add_named(&mut self, key: &str, text: String) {
        if !self.found.iter().any(|(earlier, _)| earlier == key) {
            self.found.push((key.to_owned(), text));
        }
    }

    /// Returns `settings` if there is no problem.
    ///
    /// # Errors
    /// [`ConfigError`] with all problems.
    pub fn finish<T>(self, settings: T) -> Result<T, ConfigError> {
        match self.found.is_empty() {
            true => Ok(settings),
            false => Err(self.into_error()),
        }
    }

    fn into_error(self) -> ConfigError {
        ConfigError(self.found.into_iter().map(|(_, text)| text).collect())
    }
}

/// Reads a service's configuration. Its environment variables begin with `prefix`, such as `ACCORD_REGISTRY_`. `file`
/// is the path of the TOML file. Without it, the variable `<prefix>CONFIG` names the file. `flags` holds the flags of
/// the command line, `None` for each that was not given; there is no other setting. `check` records well-formed values
/// that break a rule.
///
/// The settings `S` of both services are a part of a service's settings `T`. They are read by themselves, because serde's
/// `flatten` would lose the types of their fields.
pub fn load<S: DeserializeOwned, T: DeserializeOwned + AsMut<S>>(
    prefix: &str,
    file: Option<&str>,
    flags: impl Serialize,
    check: impl FnOnce(&mut T, &mut Problems),
) -> Result<T, ConfigError> {
    load_from(env::vars_os(), prefix, file, flags, check)
}

/// Does the work of [`load`], with the given environment variables.
fn load_from<S: DeserializeOwned, T: DeserializeOwned + AsMut<S>>(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    prefix: &str,
    file: Option<&str>,
    flags: impl Serialize,
    check: impl FnOnce(&mut T, &mut Problems),
) -> Result<T, ConfigError> {
    let mut values = Values::read(variables, prefix, file, flags)?;
    values.remove_unknown();
    let (Some(shared), Some(mut settings)) = (values.extract(), values.extract::<T>()) else {
        return Err(values.problems.into_error());
    };
    *settings.as_mut() = shared;
    check(&mut settings, &mut values.problems);
    values.problems.finish(settings)
}

/// Reads some of a service's settings, as [`load`] does. Problems of the others don't count.
pub fn load_some<T: DeserializeOwned>(
    prefix: &str,
    file: Option<&str>,
    flags: impl Serialize,
) -> Result<T, ConfigError> {
    let mut values = Values::read(env::vars_os(), prefix, file, flags)?;
    match values.extract() {
        Some(settings) => values.problems.finish(settings),
        None => Err(values.problems.into_error()),
    }
}

/// What was set, and what is wrong with it.
struct Values {
    values: Dict,
    problems: Problems,
    /// The keys of all settings.
    known: BTreeSet<String>,
}

impl Values {
    fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        prefix: &str,
        file: Option<&str>,
        flags: impl Serialize,
    ) -> Result<Self, ConfigError> {
        let mut problems = Problems {
            prefix: prefix.to_owned(),
            ..Problems::default()
        };
        let (mut written, variable) = read_variables(variables, &mut problems);
        let file = file.map(str::trim).filter(|path| !path.is_empty());
        if let Some(path) = file.map(str::to_owned).or(variable) {
            let Some(keys) = read_file(&path, &mut problems) else {
                // What the file would set would be missing, too.
                return Err(problems.into_error());
            };
            // Puts them first, so that the variables override them.
            written.splice(0..0, keys);
        }
        let flags = Value::serialize(flags).ok().and_then(Value::into_dict);
        let flags = flags.unwrap_or_default();
        let known = flags.keys().cloned().collect();
        let flags = flags.into_iter();
        written
            .extend(flags.map(|(key, value)| (key.clone(), format!("--{}", key.replace('_', "-")), value)));

        let mut values = Dict::new();
        for (key, name, value) in written {
            let value = match value.as_str() {
                Some(text) => Value::from(text.trim()),
                None => value,
            };
            if matches!(value, Value::Empty(..)) || value.as_str() == Some("") {
                continue;
            }
            problems.names.insert(key.clone(), name);
            values.insert(key, value);
        }
        Ok(Self {
            values,
            problems,
            known,
        })
    }

    fn remove_unknown(&mut self) {
        self.values.retain(|key, _| {
            let is_known = self.known.contains(key);
            if !is_known {
                self.problems.add(key, "is unknown");
            }
            is_known
        });
    }

    /// Returns the settings of one type. Extraction stops at the first error, so this removes the key and extracts again
    /// until every problem is found.
    fn extract<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            match Figment::from(Serialized::defaults(&self.values)).extract_lossy() {
                Ok(settings) => return Some(settings),
                Err(error) => {
                    let (key, problem) = describe(&error);
                    self.problems.add(&key, &problem);
                    self.values.remove(&key)?;
                }
            }
        }
    }
}

/// Reads a TOML file: each key, its name for problems, and its value. Returns `None` after a problem. The file may hold a
/// password, so it must be private.
fn read_file(path: &str, problems: &mut Problems) -> Option<Vec<(String, String, Value)>> {
    let text = match read_secret_text(Path::new(path), MAX_FILE_BYTES) {
        Ok(text) => text,
        Err(error) => {
            problems.add_named("config", format!("{path} {error}"));
            return None;
        }
    };
    let line = |span: Range<usize>| text[..span.start.min(text.len())].matches('\n').count() + 1;
    let keys: BTreeMap<Spanned<String>, toml::Value> = match toml::from_str(&text) {
        Ok(keys) => keys,
        Err(error) => {
            let line = error.span().map_or(1, line);
            problems.add_named("config", format!("{path}, line {line}: not valid TOML"));
            return None;
        }
    };
    let key = |(key, value): (Spanned<String>, toml::Value)| {
        let name = format!("`{}` ({path}, line {})", key.get_ref(), line(key.span()));
        // Every TOML value converts to a figment value, so this skips none.
        Some((key.into_inner(), name, Value::serialize(value).ok()?))
    };
    Some(keys.into_iter().filter_map(key).collect())
}

/// Returns what the variables set, and the path in the one that names the file. Leaves out empty ones and those of other programs.
fn read_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    problems: &mut Problems,
) -> (Vec<(String, String, Value)>, Option<String>) {
    let (mut written, mut file) = (Vec::new(), None);
    for (name, value) in variables {
        let name = name.to_string_lossy().into_owned();
        let Some(key) = name.strip_prefix(&problems.prefix) else {
            continue;
        };
        let Some(text) = value.to_str().map(str::trim) else {
            problems.add_named(&name, format!("{name} is not UTF-8"));
            continue;
        };
        if text.is_empty() || is_service_link(key, text) {
            continue;
        }
        if key == "CONFIG" {
            file = Some(text.to_owned());
        } else if key.bytes().any(|byte| byte.is_ascii_lowercase()) {
            problems.add_named(&name, format!("{name} is unknown: variables are in upper case"));
        } else {
            written.push((key.to_ascii_lowercase(), name, Value::from(text)));
        }
    }
    (written, file)
}

/// Returns whether a variable describes a Kubernetes service whose name begins like the prefix, such as
/// `accord-registry`: `_SERVICE_HOST`, `_SERVICE_PORT`, `_SERVICE_PORT_<NAME>`, `_PORT`, or `_PORT_50051_TCP` with or
/// without a suffix.
fn is_service_link(key: &str, value: &str) -> bool {
    let key = format!("_{key}");
    if let Some((_, name)) = key.split_once("_SERVICE_PORT") {
        return name.is_empty() || name.starts_with('_');
    }
    let is_port = |text: &str| {
        let mut parts = text.split('_');
        let has_number = parts.next().is_some_and(|number| number.parse::<u16>().is_ok());
        let has_protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        let has_known_suffix = matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"));
        has_number && has_protocol && has_known_suffix && parts.next().is_none()
    };
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    key.ends_with("_SERVICE_HOST")
        || key.ends_with("_PORT") && is_url
        || key
            .match_indices("_PORT_")
            .any(|(at, marker)| is_port(&key[at + marker.len()..]))
}

/// Returns the key and the problem of a figment error. The problem does not hold the value.
fn describe(error: &figment::Error) -> (String, String) {
    let path = error.path.join(".");
    let address = "must be an IP address and a port, such as 127.0.0.1:50051";
    match &error.kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => match expected.as_str() {
            "a boolean" => (path, "must be true or false".to_owned()),
            "socket address" => (path, address.to_owned()),
            number if number.starts_with(['u', 'i']) => (path, "must be a whole number".to_owned()),
            expected => (path, format!("must be {expected}")),
        },
        Kind::UnknownVariant(_, known) => (path, format!("must be one of {}", known.join(", "))),
        Kind::Message(text) if text.contains("socket address") => (path, address.to_owned()),
        Kind::Message(text) if text == ADMIN_LISTEN => (path, text.clone()),
        _ => (path, "can't be used".to_owned()),
    }
}

/// Where the admin listener serves: an address, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AdminListen(pub Option<SocketAddr>);

impl TryFrom<String> for AdminListen {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.as_str() {
            "off" => Ok(Self(None)),
            address => address
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| ADMIN_LISTEN),
        }
    }
}

const ADMIN_LISTEN: &str = "must be an IP address and a port, such as 127.0.0.1:9464, or off";

/// The problem with a required setting that is not set.
pub const MISSING: &str = "is missing";

/// Fails if other machines can reach a plaintext listener at this address.
pub fn require_loopback(address: SocketAddr) -> Result<(), ConfigError> {
    match is_loopback(address) {
        true => Ok(()),
        false => Err(ConfigError(vec![format!("{address} {NOT_LOOPBACK}")])),
    }
}

/// Records a problem if other machines can reach a plaintext listener at this address.
pub fn check_loopback(key: &str, address: SocketAddr, problems: &mut Problems) {
    if !is_loopback(address) {
        problems.add(key, NOT_LOOPBACK);
    }
}

const NOT_LOOPBACK: &str = "is not a loopback address, and needs --tls-certificate and --tls-private-key: plaintext is for loopback only";

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
#[path = "../tests/config.rs"]
mod tests;
