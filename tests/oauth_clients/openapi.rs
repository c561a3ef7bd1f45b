//! `/openapi.json` and the endpoints, by Schemathesis: requests that follow the description, and requests that don't.

use tokio::process::Command;

use super::program::{KeyType, Scene};
use crate::harness::{partner::REDIRECT_URI, suite};

tests!(
    strangers_get_what_openapi_json_describes,
    clients_get_what_openapi_json_describes,
);

/// How many requests it makes up for an endpoint, besides those that follow from the description.
const EXAMPLES: &str = "25";

/// Runs Schemathesis with `settings` beside its own, always with the same requests.
async fn check(scene: &Scene, settings: &str, checks: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("schemathesis.toml");
    std::fs::write(&config, settings).unwrap();
    let target = &scene.world.target;
    let mut command = Command::from(suite::python());
    command
        .arg("-c")
        .arg("from schemathesis.cli import schemathesis; schemathesis()")
        .arg("--config-file")
        .arg(&config)
        .args([
            "run",
            "--generation-deterministic",
            "--no-color",
            "--phases",
            "examples,coverage,fuzzing",
        ])
        .args([
            "--suppress-health-check",
            "all",
            "--continue-on-failure",
            "--warnings",
            "off",
        ])
        .args(["--max-examples", EXAMPLES, "--url", &target.http_url])
        .args(checks)
        .arg(format!("{}/openapi.json", target.http_url))
        .current_dir(directory.path())
        .env("TENANT_ID", &target.tenant_id)
        .env("CLIENT_ID", &scene.partner.client_id)
        .env("CLIENT_SECRET", &scene.partner.client_secret)
        .env("REDIRECT_URI", REDIRECT_URI)
        .env("NO_PROXY", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    let output = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("8 selected / 8 total"), "{said}");
}

async fn strangers_get_what_openapi_json_describes() {
    let scene = Scene::set(KeyType::P256).await;
    check(&scene, "", &[]).await;
    scene.stop().await;
}

async fn clients_get_what_openapi_json_describes() {
    let scene = Scene::set(KeyType::P256).await;
    scene.world.first_tokens(&scene.partner).await;
    let settings = r#"
        [parameters]
        "path.tenant" = "${TENANT_ID}"
        "query.client_id" = "${CLIENT_ID}"
        "query.redirect_uri" = "${REDIRECT_URI}"
        [auth.openapi.client_secret_basic]
        username = "${CLIENT_ID}"
        password = "${CLIENT_SECRET}"
    "#;
    // A code or a token that is made up is rejected, however well-formed it is.
    check(
        &scene,
        settings,
        &["--exclude-checks", "positive_data_acceptance"],
    )
    .await;
    scene.stop().await;
}
