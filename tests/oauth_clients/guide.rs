//! The commands of docs/PARTNERS.md, run as they stand there, with curl and openssl.

use std::{path::Path, process::Stdio};

use accord::registry::v1 as reg;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::Command,
};

use super::{
    admin::{Admin, Decision},
    stop,
};
use crate::harness::{
    dev,
    partner::{REDIRECT_URI, SCOPES, World},
};

/// The shell lines between the markers, in order.
fn commands() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PARTNERS.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let (_, rest) = guide
        .split_once("<!-- partners-guide -->")
        .expect("the first marker");
    let (guide, _) = rest
        .split_once("<!-- /partners-guide -->")
        .expect("the second marker");
    let mut blocks = guide
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap());
    let commands = blocks.by_ref().collect::<String>();
    assert!(commands.lines().count() > 60, "the guide has shrunk: {commands}");
    commands
}

/// Whether the tools that the guide asks for are there. A line on stderr if they are not; a panic with
/// `ACCORD_REQUIRE_ALL=1`.
async fn tools() -> bool {
    let ask =
        "command -v curl && command -v openssl && openssl list -public-key-algorithms | grep -i ed25519";
    let found = Command::new("bash")
        .args(["-c", ask])
        .stdout(Stdio::null())
        .status()
        .await;
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    let required = std::env::var("ACCORD_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(!required, "ACCORD_REQUIRE_ALL=1, and curl or openssl is missing");
    eprintln!("SKIPPED: curl or openssl is missing, the partner's guide is not tried out");
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn the_partners_guide_runs_as_it_stands() {
    if !tools().await {
        return;
    }
    let (directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let script = directory.path().join("guide.sh");
    std::fs::write(&script, commands()).unwrap();
    let mut shell = Command::new("bash")
        .args(["-euo", "pipefail"])
        .arg(&script)
        .current_dir(directory.path())
        .env("TENANT_AUTHORITY_URL", &world.target.tenant_authority_url)
        .env("CLOUD_API_URL", &world.target.cloud_api_url)
        .env("CLIENT_ID", &partner.client_id)
        .env("CLIENT_SECRET", &partner.client_secret)
        .env("REDIRECT_URI", REDIRECT_URI)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();

    let told = lines.next_line().await.unwrap().expect("the first question");
    let (_, authorization_url) = told.split_once("open ").unwrap();
    let mut admin = Admin::new(&world.target);
    let back = admin.decide(authorization_url, Decision::Approve(&SCOPES)).await;
    input.write_all(format!("{back}\n").as_bytes()).await.unwrap();

    let mut printed = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        // What has no line break at its end comes before what the next command prints.
        if let Some(at) = line.find("{\"keys\":") {
            printed.push_str(&line[..at]);
            let request = reg::SetClientKeysRequest {
                client_id: partner.client_id.clone(),
                json_web_key_set: line[at..].to_owned(),
            };
            world.clients().set_client_keys(request).await.unwrap();
            input.write_all(b"\n").await.unwrap();
            break;
        }
        printed.push_str(&line);
    }
    let mut own = String::new();
    lines.into_inner().read_to_string(&mut own).await.unwrap();
    assert!(shell.wait().await.unwrap().success(), "{printed}{own}");

    assert_eq!(printed.matches("\"active\":true").count(), 1, "{printed}");
    let (_, signed) = printed.rsplit_once('}').unwrap();
    assert_eq!(signed.split('.').count(), 3, "a signed answer: {signed}");
    let (_, answer) = own.split_once('{').expect("tokens by private_key_jwt");
    let answer: serde_json::Value = serde_json::from_str(&format!("{{{answer}")).unwrap();
    let introspected = world.introspect(answer["access_token"].as_str().unwrap()).await;
    assert_eq!(
        (introspected.active, introspected.client_id),
        (Some(true), partner.client_id)
    );
    stop(dev).await;
}
