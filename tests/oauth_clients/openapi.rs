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

/// Runs Schemathesis in these phases with a configuration, always with the same requests.
async fn check(scene: &Scene, phases: &str, configuration: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("schemathesis.toml");
    std::fs::write(&file, configuration).unwrap();
    let target = &scene.world.target;
    let mut command = Command::from(suite::python());
    command
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()"])
        .arg("--config-file")
        .arg(&file)
        .args([
            "run",
            "--generation-deterministic",
            "--no-color",
            "--warnings",
            "off",
        ])
        .args(["--suppress-health-check", "all", "--continue-on-failure"])
        .args(["--max-examples", EXAMPLES, "--phases", phases])
        .args(["--url", &target.http_url])
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
    assert!(said.contains("9 selected / 9 total"), "{said}");
}

async fn strangers_get_what_openapi_json_describes() {
    let scene = Scene::set(KeyType::P256).await;
    // By default a request that is too large must not be refused with 413.
    let configuration = r#"
        [checks]
        negative_data_rejection.expected-statuses = [400, 401, 404, 405, 413, 415, 431]
    "#;
    check(&scene, "fuzzing", configuration).await;
    scene.stop().await;
}

async fn clients_get_what_openapi_json_describes() {
    let scene = Scene::set(KeyType::P256).await;
    scene.world.first_tokens(&scene.partner).await;
    // A code that is made up is refused, however well-formed it is. A parameter without a value counts as absent, which
    // no schema can say.
    let configuration = r#"
        [parameters]
        "path.tenant" = "${TENANT_ID}"
        "query.client_id" = "${CLIENT_ID}"
        "query.redirect_uri" = "${REDIRECT_URI}"
        [auth.openapi.client_secret_basic]
        username = "${CLIENT_ID}"
        password = "${CLIENT_SECRET}"
        [checks]
        positive_data_acceptance.enabled = false
        negative_data_rejection.enabled = false
    "#;
    check(&scene, "examples,coverage,fuzzing", configuration).await;
    scene.stop().await;
}
