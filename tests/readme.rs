//! The README's lines for an operator, run unchanged.

use std::{os::unix::fs::symlink, process::Command};

use crate::harness::{
    dev,
    document::{file, shell_lines},
    process::Process,
};

tests!(the_operator_commands_of_the_readme_run,);

async fn the_operator_commands_of_the_readme_run() {
    let directory = tempfile::tempdir().unwrap();
    let dev = dev::start_in(&directory.path().join("accord-data")).await;
    symlink(file("examples"), directory.path().join("examples")).unwrap();
    let script = directory.path().join("day.sh");
    std::fs::write(&script, shell_lines("README.md", "operators-day")).unwrap();

    let mut command = Command::new("bash");
    command
        .args(["-euo", "pipefail"])
        .arg(&script)
        .current_dir(directory.path());
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
