//! Libraries for Node.js.

use std::process::Command;

use tempfile::TempDir;

use super::program::{KeyType, connects, connects_by_the_profile, connects_with_a_key, refuses, verifies};
use crate::harness::{document::file, suite::node_modules};

tests!(
    openid_client_connects,
    oauth4webapi_connects,
    openid_client_binds_its_tokens,
    oauth4webapi_binds_its_tokens,
    openid_client_follows_the_fapi_profile,
    oauth4webapi_follows_the_fapi_profile,
    jose_verifies_access_tokens,
    jsonwebtoken_refuses_ed25519,
);

/// The programs beside their libraries, where Node looks for them.
pub struct Programs(TempDir);

impl Programs {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(node_modules(), directory.path().join("node_modules")).unwrap();
        for entry in std::fs::read_dir(file("tests/node")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
        Self(directory)
    }

    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(self.0.path().join(name));
        command
    }
}

async fn openid_client_connects() {
    let programs = Programs::new();
    let steps = [
        "code",
        "refresh",
        "client_credentials",
        "client_secret_basic",
        "private_key_jwt",
        "introspect",
        "revoke",
    ];
    connects(programs.command("openid-client.js"), KeyType::Ed25519, &steps).await;
}

async fn oauth4webapi_connects() {
    let programs = Programs::new();
    let steps = [
        "code",
        "refresh",
        "client_credentials",
        "client_secret_post",
        "private_key_jwt",
        "introspect",
        "signed_introspect",
        "revoke",
    ];
    connects(programs.command("oauth4webapi.js"), KeyType::Ed25519, &steps).await;
}

/// What both libraries do with pushed requests and proofs of possession.
const BOUND_STEPS: [&str; 5] = ["code", "refresh", "client_credentials", "introspect", "revoke"];

async fn openid_client_binds_its_tokens() {
    let program = Programs::new();
    connects_with_a_key(
        program.command("openid-client-dpop.js"),
        KeyType::Ed25519,
        &BOUND_STEPS,
    )
    .await;
}

async fn oauth4webapi_binds_its_tokens() {
    let program = Programs::new();
    connects_with_a_key(
        program.command("oauth4webapi-dpop.js"),
        KeyType::Ed25519,
        &BOUND_STEPS,
    )
    .await;
}

async fn openid_client_follows_the_fapi_profile() {
    let program = Programs::new();
    let command = program.command("openid-client-dpop.js");
    connects_by_the_profile(command, KeyType::Ed25519, &BOUND_STEPS).await;
}

async fn oauth4webapi_follows_the_fapi_profile() {
    let program = Programs::new();
    let command = program.command("oauth4webapi-dpop.js");
    connects_by_the_profile(command, KeyType::Ed25519, &BOUND_STEPS).await;
}

async fn jose_verifies_access_tokens() {
    let programs = Programs::new();
    verifies(|| programs.command("jose.js")).await;
}

async fn jsonwebtoken_refuses_ed25519() {
    let programs = Programs::new();
    refuses(programs.command("jsonwebtoken.js")).await;
}
