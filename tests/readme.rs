//! The README's lines for an operator, run as they stand there.

use std::{os::unix::fs::symlink, process::Command};

use crate::harness::{
    dev,
    document::{file, shell_lines},
    grpcurl,
    process::Process,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_day_runs_as_the_readme_tells_it() {
    let Some(grpcurl) = grpcurl::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let dev = dev::start_in(&directory.path().join("accord-data")).await;
    symlink(file("examples"), directory.path().join("examples")).unwrap();
    let script = directory.path().join("day.sh");
    std::fs::write(&script, shell_lines("README.md", "operators-day")).unwrap();

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
