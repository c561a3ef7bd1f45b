//! The real grpcurl, if there is one.

use std::{path::PathBuf, process::Command};

/// grpcurl on PATH. `None`, and a line on stderr, if there is none; a panic with
/// `ACCORD_REQUIRE_ALL=1`.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join("grpcurl"))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        let required = std::env::var("ACCORD_REQUIRE_ALL").is_ok_and(|value| value == "1");
        assert!(!required, "ACCORD_REQUIRE_ALL=1, and grpcurl is not on PATH");
        eprintln!("SKIPPED: grpcurl is not on PATH, its tests prove nothing");
    }
    found
}

/// What a grpcurl command prints; it must succeed.
pub fn output(grpcurl: &PathBuf, arguments: &[&str]) -> String {
    let output = Command::new(grpcurl)
        .arg("-plaintext")
        .args(arguments)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
