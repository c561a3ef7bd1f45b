//! What `deploy/` holds, beside the gateway, as the tools of each platform read it.

pub mod compose;
pub mod health;
pub mod helm;
pub mod image;
pub mod systemd;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::settings::Service;

/// Fails unless each variable is a setting of the service that it is given to, or nothing of Accord.
fn assert_settings<'a>(variables: impl IntoIterator<Item = &'a str>) {
    let services = Service::all();
    for variable in variables {
        if !variable.starts_with("ACCORD_") {
            continue;
        }
        let service = services
            .iter()
            .find(|service| variable.starts_with(service.prefix));
        let service = service.unwrap_or_else(|| panic!("{variable} is of no service"));
        let is_known = service.variables().any(|known| known == variable);
        assert!(is_known, "{variable} is no setting");
    }
}

/// Runs a command that must succeed. Returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command with this standard input.
fn run_with(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join();
    output
}

/// Both outputs of a command as text.
fn said(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr)
    )
}

/// Writes a file with the directories above it.
fn write(path: &Path, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}
