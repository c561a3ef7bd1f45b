//! Files of hosts, made by the lines of OPERATIONS.

use std::{fs, path::Path, process::Command};

use accord::random::{Random, SystemRandom};

use super::postgres::PASSWORD;
use crate::harness::{document::shell_lines, services::write_private};

/// Where OPERATIONS puts the settings of a host.
const SETTINGS: &str = "/etc/accord";
/// The certificates of a host, as the table of OPERATIONS has them.
pub const FILES: [(&str, &str); 9] = [
    ("registry.pem", "registry-tls/tls.crt"),
    ("registry-key.pem", "registry-tls/tls.key"),
    ("ca.pem", "registry-tls/ca.crt"),
    ("token.pem", "token-tls/tls.crt"),
    ("token-key.pem", "token-tls/tls.key"),
    ("ca.pem", "token-tls/ca.crt"),
    ("token-service-client.pem", "token-tls/client.crt"),
    ("token-service-client-key.pem", "token-tls/client.key"),
    ("ca.pem", "db-ca.pem"),
];

/// Makes the files of a host of services, with the lines of OPERATIONS. The master keys are those of the first host.
pub fn configure(directory: &Path, certs: &Path, keys: &mut [[u8; 32]; 2]) {
    place(certs, directory, &FILES);
    let lines = shell_lines("docs/OPERATIONS.md", "three-hosts-settings");
    let own = directory.to_str().unwrap();
    // There are two hosts of registry-service here.
    let lines = lines
        .replace(SETTINGS, own)
        .replace(",https://host3.example:50051", "");
    bash(&lines, directory);
    for (service, key) in ["registry", "token"].into_iter().zip(keys) {
        if *key == [0; 32] {
            SystemRandom.fill(key);
        }
        write_private(&directory.join(format!("{service}.key")), key.as_slice());
        let url = format!(
            "postgres://{service}@db.example/{service}?sslmode=verify-full&sslrootcert={own}/db-ca.pem"
        );
        write_private(
            &directory.join(format!("{service}.toml")),
            format!("database_url = \"{url}\"\n").as_bytes(),
        );
        write_private(
            &directory.join(format!("{service}-pgpass")),
            format!("*:*:*:{service}:{PASSWORD}\n").as_bytes(),
        );
    }
}

/// Makes certificates by the line of OPERATIONS in another directory, with more flags.
pub fn certs(at: &Path, name: &str, flags: &[&str]) {
    let lines = shell_lines("docs/OPERATIONS.md", "three-hosts-certificates");
    let lines = lines.replace("--dir certs", &format!("--dir {name} {}", flags.join(" ")));
    bash(&lines, at);
}

/// Runs shell lines, with `accord` on PATH.
pub fn bash(lines: &str, directory: &Path) {
    let lines = format!("accord() {{ {} \"$@\"; }}\n{lines}", env!("CARGO_BIN_EXE_accord"));
    succeed(
        Command::new("bash")
            .args(["-euo", "pipefail", "-c", &lines])
            .current_dir(directory),
    );
}

/// Moves copies of files to their places, over those that are there.
pub fn place(from: &Path, to: &Path, files: &[(&str, &str)]) {
    for (name, place) in files {
        let place = to.join(place);
        let directory = place.parent().unwrap();
        fs::create_dir_all(directory).unwrap();
        // Moved from beside the directory, so that nobody sees half a file.
        let new = directory.with_extension("new");
        fs::copy(from.join(name), &new).unwrap();
        fs::rename(new, place).unwrap();
    }
}

pub fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
}
