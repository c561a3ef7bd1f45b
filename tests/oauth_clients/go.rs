//! Libraries for Go.

use std::process::Command;

use super::program::{KeyType, connects, introspects, verifies};
use crate::harness::{document::file, suite::go_directory};

tests!(
    x_oauth2_connects,
    zitadel_oidc_connects,
    go_oidc_verifies_access_tokens,
    zitadel_oidc_introspects_access_tokens,
);

/// Builds the programs, which takes long only once, and returns the command that runs one of them.
fn program(name: &str) -> Command {
    let directory = go_directory();
    let built = directory.join("bin").join(name);
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&built)
        .arg(format!("./{name}"))
        .current_dir(file("tests/go"))
        .env("GOMODCACHE", directory.join("modules"))
        .env("GOCACHE", directory.join("cache"))
        .env("GOFLAGS", "-mod=readonly -modcacherw")
        .env("GOPROXY", "off")
        .status();
    assert!(status.unwrap().success(), "building {name}");
    Command::new(built)
}

async fn x_oauth2_connects() {
    let steps = ["code", "refresh", "client_credentials", "revoke"];
    connects(program("oauth2"), KeyType::P256, &steps).await;
}

async fn zitadel_oidc_connects() {
    let steps = ["code", "refresh", "client_credentials", "revoke"];
    connects(program("zitadel"), KeyType::P256, &steps).await;
}

async fn go_oidc_verifies_access_tokens() {
    verifies(|| program("gooidc")).await;
}

async fn zitadel_oidc_introspects_access_tokens() {
    introspects(program("introspection")).await;
}
