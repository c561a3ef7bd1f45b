//! The README's lines for an operator, run as they stand there.

use std::{os::unix::fs::symlink, path::Path, process::Command};

use crate::harness::{dev, grpcurl, process::Process};

/// The shell lines between the markers, in order.
fn operators_day() -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme
        .split_once("<!-- operators-day -->")
        .expect("the first marker");
    let (day, _) = rest
        .split_once("<!-- /operators-day -->")
        .expect("the second marker");
    let mut lines = String::new();
    let mut inside = false;
    for line in day.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                lines.push_str(line);
                lines.push('\n');
            }
            _ => {}
        }
    }
    assert!(lines.lines().count() > 30, "the day has shrunk: {lines}");
    lines
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_day_runs_as_the_readme_tells_it() {
    let Some(grpcurl) = grpcurl::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let dev = dev::start_in(&directory.path().join("accord-data")).await;
    symlink(root().join("examples"), directory.path().join("examples")).unwrap();
    let script = directory.path().join("day.sh");
    std::fs::write(&script, operators_day()).unwrap();

    let mut path = vec![grpcurl.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail"])
        .arg(&script)
        .current_dir(directory.path())
        .env("PATH", std::env::join_paths(path).unwrap());
    let (status, stdout, stderr) = tokio::task::spawn_blocking(move || {
        let mut process = Process::start(command, directory.path(), "day");
        (process.wait(), process.stdout(), process.stderr())
    })
    .await
    .unwrap();
    assert!(
        status.success(),
        "{status}\n--- printed\n{stdout}\n--- errors\n{stderr}"
    );
    for sign in [
        "\"clientId\"",
        "accessToken",
        "\"active\": true",
        "CONSENT_STATE_REVOKED",
        "auditEvents",
    ] {
        assert!(stdout.contains(sign), "{sign} is not in\n{stdout}");
    }
    dev.stop().await.unwrap();
}
