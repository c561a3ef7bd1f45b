//! Libraries for Node.js.

use std::process::Command;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::admin::{Admin, Decision};
use super::guide::{check_bound, with_credentials};
use super::program::{
    KeyType, connects, connects_by_the_profile, connects_with_a_key, connects_with_nonces, refuses, verifies,
};
use crate::harness::{
    dev,
    document::{file, program},
    partner::{SCOPES, World},
    suite::node_modules,
};

tests!(
    openid_client_connects,
    oauth4webapi_connects,
    openid_client_binds_its_tokens,
    oauth4webapi_binds_its_tokens,
    openid_client_follows_the_fapi_profile,
    oauth4webapi_follows_the_fapi_profile,
    openid_client_is_challenged_once_for_a_nonce,
    oauth4webapi_is_challenged_once_for_a_nonce,
    the_program_of_the_partners_guide_binds_its_tokens,
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

async fn openid_client_is_challenged_once_for_a_nonce() {
    let program = Programs::new();
    let command = program.command("openid-client-dpop.js");
    connects_with_nonces(command, KeyType::Ed25519, &BOUND_STEPS).await;
}

async fn oauth4webapi_is_challenged_once_for_a_nonce() {
    let program = Programs::new();
    let command = program.command("oauth4webapi-dpop.js");
    connects_with_nonces(command, KeyType::Ed25519, &BOUND_STEPS).await;
}

async fn jose_verifies_access_tokens() {
    let programs = Programs::new();
    verifies(|| programs.command("jose.js")).await;
}

async fn jsonwebtoken_refuses_ed25519() {
    let programs = Programs::new();
    refuses(programs.command("jsonwebtoken.js")).await;
}

async fn the_program_of_the_partners_guide_binds_its_tokens() {
    let (_directory, dev) = dev::start_with_api().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let programs = Programs::new();
    let mut lines = program("docs/PARTNERS.md", "bound-node", "js");
    lines.push_str("console.log(`token: ${tokens.access_token}`)\n");
    std::fs::write(programs.0.path().join("bound.mjs"), lines).unwrap();
    let node = programs.command("bound.mjs").into();
    let mut node = with_credentials(node, &world, &partner).spawn().unwrap();
    let mut input = node.stdin.take().unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("the first line");
    let (_, authorization_url) = line.split_once("open ").unwrap();
    let mut admin = Admin::new(&world.target);
    let back = admin.decide(authorization_url, Decision::Approve(&SCOPES)).await;
    input.write_all(format!("{back}\n").as_bytes()).await.unwrap();
    let mut printed = String::new();
    lines.into_inner().read_to_string(&mut printed).await.unwrap();
    assert!(node.wait().await.unwrap().success(), "{printed}");
    check_bound(&world, &printed).await;
    dev.stop().await.unwrap();
}
