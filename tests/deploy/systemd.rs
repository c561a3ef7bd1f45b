//! The units: what systemd says of them without running them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use super::{assert_settings, run, write};
use crate::harness::document::file;

tests!(
    systemd_accepts_the_units,
    the_units_expose_little,
    the_units_restart_reload_and_hand_over_secrets,
    users_and_modes_are_those_that_the_units_need,
);

/// The most that `systemd-analyze security` may say, of 10: 0.3 of it is for the network and 0.1 for local sockets.
const MOST_EXPOSED: f64 = 1.5;

const UNITS: [(&str, &str); 2] = [
    ("accord-registry", "registry-service"),
    ("accord-token", "token-service"),
];

fn text(unit: &str) -> String {
    fs::read_to_string(file(&format!("deploy/systemd/{unit}.service"))).unwrap()
}

/// The units in a directory, with a program that exists here.
fn installed(directory: &Path) -> Vec<PathBuf> {
    let install = |(unit, program): (&str, &str)| {
        let path = directory.join(format!("{unit}.service"));
        let program = format!("/usr/local/bin/{program} ");
        let text = text(unit);
        assert!(text.contains(&program), "{unit}");
        fs::write(
            &path,
            text.replace(&program, &format!("{} ", env!("CARGO_BIN_EXE_accord"))),
        )
        .unwrap();
        path
    };
    UNITS.into_iter().map(install).collect()
}

async fn systemd_accepts_the_units() {
    let directory = tempfile::tempdir().unwrap();
    for unit in installed(directory.path()) {
        // Not those of the units that it comes after, which may not be installed.
        let output = Command::new("systemd-analyze")
            .args(["--recursive-errors=no", "verify"])
            .arg(&unit)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            super::said(&output)
        );
    }
}

async fn the_units_expose_little() {
    let directory = tempfile::tempdir().unwrap();
    for unit in installed(directory.path()) {
        let mut analyze = Command::new("systemd-analyze");
        analyze
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&unit);
        let said = run(&mut analyze);
        let (_, overall) = said.rsplit_once("Overall exposure level for ").unwrap();
        let level = overall.split_whitespace().nth(1).unwrap();
        assert!(level.parse::<f64>().unwrap() <= MOST_EXPOSED, "{said}");
    }
}

async fn the_units_restart_reload_and_hand_over_secrets() {
    for (unit, _) in UNITS {
        let text = text(unit);
        let short = unit.strip_prefix("accord-").unwrap();
        let prefix = format!("ACCORD_{}", short.to_uppercase());
        for line in [
            "Type=exec",
            "Restart=on-failure",
            "StartLimitIntervalSec=0",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "LimitNOFILE=65536",
            // The longest --drain-delay, the ten seconds of the drain, and some more.
            "TimeoutStopSec=80",
            "MemoryDenyWriteExecute=yes",
            &format!("User={unit}"),
            &format!("EnvironmentFile=/etc/accord/{short}.env"),
            &format!("LoadCredential=config:/etc/accord/{short}.toml"),
            &format!("LoadCredential=master-key:/etc/accord/{short}.key"),
            &format!("Environment={prefix}_CONFIG=%d/config"),
            &format!("Environment={prefix}_MASTER_KEY_FILE=%d/master-key"),
            &format!("Environment=PGPASSFILE=/etc/accord/{short}-pgpass"),
        ] {
            assert!(text.lines().any(|found| found == line), "{unit}: {line}");
        }
        // Not below a service manager's limit of attempts, and nothing that migrates: an older version would, too.
        assert!(
            !text.contains("migrate") && !text.contains("ExecStartPre"),
            "{unit}"
        );
        let variables = text
            .lines()
            .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
        assert_settings(variables.map(|(name, _)| name));
    }
}

async fn users_and_modes_are_those_that_the_units_need() {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for directory in ["etc/accord/token-tls", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"] {
        fs::create_dir_all(at(directory)).unwrap();
    }
    for kind in ["sysusers", "tmpfiles"] {
        let from = file(&format!("deploy/systemd/accord.{kind}.conf"));
        fs::copy(from, at(&format!("usr/lib/{kind}.d/accord.conf"))).unwrap();
    }
    for name in [
        "registry.key",
        "token.key",
        "token.toml",
        "token.env",
        "registry-token",
        "registry-pgpass",
        "token-tls/tls.key",
    ] {
        write(&at("etc/accord").join(name), "x");
        fs::set_permissions(at("etc/accord").join(name), PermissionsExt::from_mode(0o666)).unwrap();
    }
    run(Command::new("systemd-sysusers").arg("--root").arg(root.path()));
    let users = fs::read_to_string(at("etc/passwd")).unwrap();
    let groups = fs::read_to_string(at("etc/group")).unwrap();
    let id = |name: &str| -> u32 {
        let mut lines = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        lines.find(|line| line[0] == name).unwrap()[2].parse().unwrap()
    };
    for (unit, _) in UNITS {
        assert!(
            users
                .lines()
                .any(|line| line.starts_with(&format!("{unit}:")) && line.ends_with("nologin")),
            "{users}"
        );
    }
    assert_ne!(id("accord-registry"), id("accord-token"));

    run(Command::new("systemd-tmpfiles")
        .args(["--create", "--prefix=/etc/accord", "--root"])
        .arg(root.path()));
    for (name, group, mode) in [
        ("registry.key", 0, 0o600),
        ("token.key", 0, 0o600),
        ("token.toml", 0, 0o600),
        ("token.env", 0, 0o644),
        ("registry-token", id("accord-token"), 0o640),
        ("registry-pgpass", id("accord-registry"), 0o640),
        ("token-tls/tls.key", id("accord-token"), 0o640),
    ] {
        let found = fs::metadata(at("etc/accord").join(name)).unwrap();
        assert_eq!(
            (found.uid(), found.gid(), found.mode() & 0o777),
            (0, group, mode),
            "{name}"
        );
    }
    assert!(!at("etc/accord/token-tls/tls.crt").exists(), "creates no file");
}
