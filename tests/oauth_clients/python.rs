//! Libraries for Python.

use std::process::Command;

use super::program::{KeyType, connects, refuses, verifies};
use crate::harness::{document::file, suite};

tests!(
    requests_oauthlib_connects,
    authlib_connects,
    joserfc_verifies_access_tokens,
    authlibs_validator_refuses_ed25519,
);

pub fn python(script: &str) -> Command {
    let mut command = suite::python();
    command
        .arg(file("tests/python").join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

async fn requests_oauthlib_connects() {
    let steps = [
        "code",
        "refresh",
        "client_credentials",
        "client_secret_post",
        "errors",
        "revoke",
    ];
    connects(python("requests_oauthlib_client.py"), KeyType::P256, &steps).await;
}

async fn authlib_connects() {
    let steps = [
        "code",
        "refresh",
        "client_credentials",
        "private_key_jwt",
        "introspect",
        "revoke",
    ];
    connects(python("authlib_client.py"), KeyType::P256, &steps).await;
}

async fn joserfc_verifies_access_tokens() {
    verifies(|| python("authlib_resource_server.py")).await;
}

async fn authlibs_validator_refuses_ed25519() {
    let mut command = python("authlib_resource_server.py");
    command.arg("authlib");
    refuses(command).await;
}
