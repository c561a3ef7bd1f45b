#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt};

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(default)]
struct Settings {
    #[serde(skip)]
    shared: Shared,
    listen: SocketAddr,
    name: String,
    seconds: u64,
    strict: bool,
    limit: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            shared: Shared::default(),
            listen: ([127, 0, 0, 1], 9).into(),
            name: String::new(),
            seconds: 0,
            strict: false,
            limit: None,
        }
    }
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Shared {
    days: u32,
}

impl AsMut<Shared> for Settings {
    fn as_mut(&mut self) -> &mut Shared {
        &mut self.shared
    }
}

#[derive(Default, Serialize)]
struct Flags {
    listen: Option<String>,
    name: Option<String>,
    seconds: Option<String>,
    strict: Option<String>,
    limit: Option<String>,
    days: Option<String>,
}

fn vars(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

/// Reads settings whose `name` must not be "forbidden".
fn read(pairs: &[(&str, &str)], file: Option<&str>, flags: Flags) -> Result<Settings, String> {
    let check = |settings: &mut Settings, problems: &mut Problems| {
        if settings.name == "forbidden" {
            problems.add("name", "must not be that");
        }
        if settings.seconds == 99 {
            problems.add("limit", "is needed");
        }
    };
    load_from(vars(pairs), "T_", file, flags, check).map_err(|error| error.to_string())
}

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, String> {
    read(pairs, None, Flags::default())
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = file("listen = '127.0.0.1:1'\nname = 'file'\nseconds = 1");
    let flags = Flags {
        listen: Some("127.0.0.1:3".into()),
        ..Flags::default()
    };
    let variables = [
        ("T_LISTEN", "127.0.0.1:2"),
        ("T_NAME", "123"),
        ("T_DAYS", "7"),
        ("T_SECONDS", "9"),
        ("X", "y"),
    ];
    let settings = read(&variables, Some(path(&file)), flags).unwrap();
    let expected = Settings {
        shared: Shared { days: 7 },
        listen: "127.0.0.1:3".parse().unwrap(),
        name: "123".into(),
        seconds: 9,
        ..Settings::default()
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
    let settings = from_environment(&variables).unwrap();
    assert_eq!(
        (settings.name.as_str(), settings.strict, settings.limit),
        ("true", true, Some(7))
    );
    for value in ["0123", "1e3", "[a]", "{}", "'x'"] {
        assert_eq!(from_environment(&[("T_NAME", value)]).unwrap().name, value);
    }
}

#[test]
fn white_space_at_the_ends_does_not_count_and_an_empty_value_is_not_set() {
    let file = file("name = ' file '\nlisten = ''\nseconds = ' 5 '");
    let flags = Flags {
        listen: Some(" ".into()),
        seconds: Some(String::new()),
        ..Flags::default()
    };
    let variables = [
        ("T_NAME", ""),
        ("T_LISTEN", " 127.0.0.1:2\r\n"),
        ("T_SECONDS", "\t"),
        ("T_STRICT", " true "),
        ("T_CONFIG", " "),
        ("T_UNKNOWN", ""),
    ];
    let settings = read(&variables, Some(path(&file)), flags).unwrap();
    let expected = Settings {
        listen: "127.0.0.1:2".parse().unwrap(),
        name: "file".into(),
        seconds: 5,
        strict: true,
        ..Settings::default()
    };
    assert_eq!(settings, expected);
}

#[test]
fn the_links_of_kubernetes_are_no_settings() {
    let links = [
        ("T_PORT", "tcp://10.0.0.5:50051"),
        ("T_SERVICE_HOST", "10.0.0.5"),
        ("T_SERVICE_PORT", "50051"),
        ("T_SERVICE_PORT_GRPC", "50051"),
        ("T_PORT_50051_TCP", "tcp://10.0.0.5:50051"),
        ("T_PORT_50051_TCP_PROTO", "tcp"),
        ("T_PORT_50051_TCP_PORT", "50051"),
        ("T_PORT_50051_TCP_ADDR", "10.0.0.5"),
        ("T_PORT_53_UDP", "udp://10.0.0.5:53"),
        ("T_HTTP_PORT", "tcp://10.0.0.6:80"),
        ("T_HTTP_SERVICE_HOST", "10.0.0.6"),
        ("T_HTTP_SERVICE_PORT_WEB", "80"),
        ("T_HTTP_PORT_80_TCP_ADDR", "10.0.0.6"),
    ];
    assert_eq!(from_environment(&links).unwrap(), Settings::default());
    for other in [
        ("T_PORT", "50051"),
        ("T_PORT_X_TCP", "x"),
        ("T_SERVICE", "x"),
        ("T_HOST", "x"),
    ] {
        let error = from_environment(&[other]).unwrap_err();
        assert_eq!(error, format!("configuration: {} is unknown", other.0));
    }
}

#[test]
fn the_flags_file_overrides_the_environments() {
    let file = file("listen = '127.0.0.1:1'");
    let variables = [("T_CONFIG", "no/such/file")];
    assert!(read(&variables, Some(path(&file)), Flags::default()).is_ok());
    let error = from_environment(&variables).unwrap_err();
    assert!(error.contains("no/such/file can't be read"), "{error}");
}

#[test]
fn a_file_may_have_a_byte_order_mark_and_line_ends_of_windows() {
    let file = file("\u{feff}name = 'x'\r\nseconds = 4\r\n");
    let settings = read(&[], Some(path(&file)), Flags::default()).unwrap();
    assert_eq!((settings.name.as_str(), settings.seconds), ("x", 4));
}

#[test]
fn a_file_that_others_can_read_is_rejected() {
    let file = file("name = 'x'");
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = read(&[], Some(path(&file)), Flags::default()).unwrap_err();
    assert!(error.contains(path(&file)) && error.contains("0600"), "{error}");
}

#[test]
fn every_problem_is_named_as_it_was_written_and_without_its_value() {
    let file = file("\nnmae = 'sup3rs3cret'\nlimit = 'sup3rs3cret'\n[database]\nurl = 'sup3rs3cret'");
    let variables = [
        ("T_LISTEN", "sup3rs3cret"),
        ("T_LISTNE", "sup3rs3cret"),
        ("T_name", "sup3rs3cret"),
        ("T_STRICT", "sup3rs3cret"),
        ("T_DAYS", "sup3rs3cret"),
    ];
    let flags = Flags {
        seconds: Some("-1".into()),
        ..Flags::default()
    };
    let error = read(&variables, Some(path(&file)), flags).unwrap_err();
    let path = path(&file);
    for expected in [
        "T_LISTEN must be an IP address and a port, such as 127.0.0.1:50051".to_owned(),
        "T_LISTNE is unknown".to_owned(),
        "T_name is unknown: variables are in upper case".to_owned(),
        "T_STRICT must be true or false".to_owned(),
        "T_DAYS must be a whole number".to_owned(),
        "--seconds must be a whole number".to_owned(),
        format!("`nmae` ({path}, line 2) is unknown"),
        format!("`limit` ({path}, line 3) must be a whole number"),
        format!("`database` ({path}, line 4) is unknown"),
    ] {
        assert!(error.contains(&expected), "{expected}: {error}");
    }
    assert_eq!(error.matches("; ").count(), 8, "{error}");
    assert!(!error.contains("sup3rs3cret") && !error.contains('\n'), "{error}");
}

#[test]
fn a_broken_file_is_named_with_the_line() {
    for text in [
        "name = 'x'\nlimit = sup3rs3cret",
        "name = 'x'\nname = 'sup3rs3cret'",
    ] {
        let file = file(text);
        let error = read(&[], Some(path(&file)), Flags::default()).unwrap_err();
        assert_eq!(
            error,
            format!("configuration: {}, line 2: not valid TOML", path(&file))
        );
    }
}

#[test]
fn checks_name_the_setting_too() {
    let error = from_environment(&[("T_NAME", "forbidden"), ("T_SECONDS", "99")]).unwrap_err();
    assert_eq!(
        error,
        "configuration: T_NAME must not be that; --limit (T_LIMIT) is needed"
    );
}

#[test]
fn plaintext_is_for_loopback() {
    for (address, accepted) in [
        ("127.0.0.1:1", true),
        ("127.1.2.3:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(
            require_loopback(address.parse().unwrap()).is_ok(),
            accepted,
            "{address}"
        );
    }
}
