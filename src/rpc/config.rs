//! Configuration: a command-line flag overrides an environment variable, which overrides the TOML file, which overrides
//! the default.
//!
//! An unknown key is an error everywhere, so that no misspelt setting is ignored.

use std::{
    env,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
    value::{Dict, Value},
};
use serde::{Serialize, de::DeserializeOwned};

/// An invalid configuration. Names the key, never its value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key is unknown, missing or of the wrong type.
    #[error("configuration: {0}")]
    Invalid(String),
    /// The file can't be read.
    #[error("configuration: can't read {}", .0.display())]
    Unreadable(PathBuf),
    /// A plaintext listener on an address that others can reach.
    #[error("configuration: {0} is not a loopback address, and plaintext is for loopback only")]
    NotLoopback(SocketAddr),
}

/// Reads a service's configuration. `prefix` is that of its environment variables, such as `ACCORD_REGISTRY_`. The
/// variable `<prefix>CONFIG` names the TOML file unless `file` does. `flags` are the command line's; those that are
/// `None` were not given.
pub fn load<T: DeserializeOwned>(
    prefix: &str,
    file: Option<&Path>,
    flags: impl Serialize,
) -> Result<T, ConfigError> {
    load_from(env::vars_os(), prefix, file, flags)
}

/// As [`load`], with a given environment.
fn load_from<T: DeserializeOwned>(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    prefix: &str,
    file: Option<&Path>,
    flags: impl Serialize,
) -> Result<T, ConfigError> {
    let mut file = file.map(Path::to_owned);
    let mut environment = Dict::new();
    for (name, value) in variables {
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else {
            continue;
        };
        if key.eq_ignore_ascii_case("config") {
            file = file.or(Some(PathBuf::from(value)));
            continue;
        }
        let text = value.into_string();
        let text = text.map_err(|_| ConfigError::Invalid(format!("{prefix}{key} is not UTF-8")))?;
        environment.insert(key.to_ascii_lowercase(), Value::from(text));
    }
    let mut figment = Figment::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(&path).map_err(|_| ConfigError::Unreadable(path))?;
        figment = figment.merge(Toml::string(&text));
    }
    let flags = Value::serialize(flags).ok().and_then(Value::into_dict);
    let given = |(_, value): &(_, Value)| !matches!(value, Value::Empty(..));
    let flags: Dict = flags.into_iter().flatten().filter(given).collect();
    figment
        .merge(Serialized::defaults(environment))
        .merge(Serialized::defaults(flags))
        .extract_lossy()
        .map_err(|error| ConfigError::Invalid(describe(&error)))
}

/// Describes an error of figment without the value.
fn describe(error: &figment::Error) -> String {
    use figment::error::Kind;
    error
        .clone()
        .into_iter()
        .map(|error| {
            let path = error.path.join(".");
            match &error.kind {
                Kind::UnknownField(name, known) => {
                    format!("unknown key `{name}` (known: {})", known.join(", "))
                }
                Kind::MissingField(name) => format!("missing key `{name}`"),
                Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                    format!("key `{path}` must be {expected}")
                }
                _ if path.is_empty() => "the file is not valid TOML".to_owned(),
                _ => format!("key `{path}` has an invalid value"),
            }
        })
        .collect::<Vec<_>>()
        .join("; ")
}

/// Rejects a plaintext listener that other machines can reach.
pub fn require_loopback(address: SocketAddr) -> Result<(), ConfigError> {
    let is_loopback = address.ip().is_loopback();
    is_loopback.then_some(()).ok_or(ConfigError::NotLoopback(address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        listen: SocketAddr,
        #[serde(default)]
        name: String,
        #[serde(default)]
        seconds: u64,
        #[serde(default)]
        strict: bool,
        #[serde(default)]
        limit: Option<u32>,
    }

    #[derive(Default, Serialize)]
    struct Flags {
        listen: Option<SocketAddr>,
    }

    fn vars(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn flags_override_the_environment_which_overrides_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listen = '127.0.0.1:1'\nname = 'file'\nseconds = 1").unwrap();
        let flags = Flags {
            listen: Some("127.0.0.1:3".parse().unwrap()),
        };
        let variables = vars(&[
            ("T_LISTEN", "127.0.0.1:2"),
            ("T_NAME", "123"),
            ("T_SECONDS", "9"),
            ("X", "y"),
        ]);
        let settings: Settings = load_from(variables, "T_", Some(file.path()), flags).unwrap();
        let expected = Settings {
            listen: "127.0.0.1:3".parse().unwrap(),
            name: "123".into(),
            seconds: 9,
            strict: false,
            limit: None,
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_variable_is_parsed_as_the_type_of_its_field() {
        let variables = [
            ("T_LISTEN", "[::1]:2"),
            ("T_NAME", "true"),
            ("T_STRICT", "true"),
            ("T_LIMIT", "7"),
        ];
        let settings: Settings = load_from(vars(&variables), "T_", None, Flags::default()).unwrap();
        assert_eq!(
            (settings.name.as_str(), settings.strict, settings.limit),
            ("true", true, Some(7))
        );

        for value in ["0123", "1e3", "[a]", "{}", "'x'", " x ", ""] {
            let variables = vars(&[("T_LISTEN", "[::1]:2"), ("T_NAME", value)]);
            let settings: Settings = load_from(variables, "T_", None, Flags::default()).unwrap();
            assert_eq!(settings.name, value);
        }
        let variables = vars(&[("T_LISTEN", "[::1]:2"), ("T_SECONDS", "soon")]);
        let error = load_from::<Settings>(variables, "T_", None, Flags::default()).unwrap_err();
        assert!(error.to_string().contains("`seconds`"), "{error}");
    }

    #[test]
    fn the_flags_file_overrides_the_environments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listen = '127.0.0.1:1'").unwrap();
        let variables = vars(&[("T_CONFIG", "no/such/file")]);
        assert!(load_from::<Settings>(variables.clone(), "T_", Some(file.path()), Flags::default()).is_ok());
        let error = load_from::<Settings>(variables, "T_", None, Flags::default()).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable(_)), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error_in_the_environment_and_in_the_file() {
        let variables = vars(&[("T_LISTEN", "127.0.0.1:2"), ("T_LISTNE", "x")]);
        let error = load_from::<Settings>(variables, "T_", None, Flags::default()).unwrap_err();
        assert!(error.to_string().contains("listne"), "{error}");

        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "listen = '127.0.0.1:1'\nnmae = 'x'").unwrap();
        let variables = vars(&[("T_CONFIG", file.path().to_str().unwrap())]);
        let error = load_from::<Settings>(variables, "T_", None, Flags::default()).unwrap_err();
        assert!(error.to_string().contains("nmae"), "{error}");
    }

    #[test]
    fn an_error_names_the_key_and_not_the_value() {
        let variables = vars(&[("T_LISTEN", "sup3rs3cret")]);
        let error = load_from::<Settings>(variables, "T_", None, Flags::default()).unwrap_err();
        assert!(error.to_string().contains("listen"), "{error}");
        assert!(!error.to_string().contains("sup3rs3cret"), "{error}");
    }

    #[test]
    fn plaintext_is_for_loopback() {
        assert!(require_loopback("127.0.0.1:1".parse().unwrap()).is_ok());
        assert!(require_loopback("[::1]:1".parse().unwrap()).is_ok());
        assert!(require_loopback("0.0.0.0:1".parse().unwrap()).is_err());
        assert!(require_loopback("10.0.0.1:1".parse().unwrap()).is_err());
    }
}
