//! The programs in docs/PARTNERS.md, run unchanged: with curl and openssl, and on Node.js.

use std::process::Stdio;

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
    document::shell_lines,
    partner::{Partner, REDIRECT_URI, SCOPES, World},
    refusal::BOUND,
};

tests!(
    the_commands_of_the_partners_guide_run,
    the_commands_that_bind_tokens_run,
);

/// What an operator hands to a partner, for a program of the guide.
pub fn with_credentials(mut command: Command, world: &World, partner: &Partner) -> Command {
    command
        .env("TENANT_AUTHORITY_URL", &world.target.tenant_authority_url)
        .env("CLOUD_API_URL", &world.target.cloud_api_url)
        .env("CLIENT_ID", &partner.client_id)
        .env("CLIENT_SECRET", &partner.client_secret)
        .env("REDIRECT_URI", REDIRECT_URI)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn the_commands_of_the_partners_guide_run() {
    let (directory, dev) = dev::start().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    let script = directory.path().join("guide.sh");
    std::fs::write(&script, shell_lines("docs/PARTNERS.md", "partners-guide")).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail"]).arg(&script);
    shell.current_dir(directory.path());
    let mut shell = with_credentials(shell, &world, &partner).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();

    let line = lines.next_line().await.unwrap().expect("the first question");
    let (_, authorization_url) = line.split_once("open ").unwrap();
    let mut admin = Admin::new(&world.target);
    let back = admin.decide(authorization_url, Decision::Approve(&SCOPES)).await;
    input.write_all(format!("{back}\n").as_bytes()).await.unwrap();

    let mut printed = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        // A text without a line break at its end precedes the output of the next command.
        if let Some(at) = line.find("{\"keys\":") {
            printed.push_str(&line[..at]);
            world.add_keys(&partner, line[at..].to_owned()).await;
            tokio::time::sleep(BOUND).await;
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

/// Checks what a program of the guide printed about its token: it is bound to a key, and the Cloud API takes it with a proof.
pub async fn check_bound(world: &World, printed: &str) {
    let line = |name: &str| {
        let mut lines = printed.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().unwrap_or_else(|| panic!("no {name} in {printed}"))
    };
    // Its letter case is up to the library.
    assert!(line("type: ").eq_ignore_ascii_case("DPoP"), "{printed}");
    let introspected = world.introspect(line("token: ")).await;
    assert_eq!(introspected.active, Some(true));
    assert!(!introspected.cnf.unwrap().jkt.is_empty());
    assert!(line("contacts: ").contains("Harbour Street Estates"), "{printed}");
}

async fn the_commands_that_bind_tokens_run() {
    let (directory, dev) = dev::start_with_api().await;
    let world = World::new(&dev.file);
    let partner = world.partner().await;
    world.first_tokens(&partner).await;
    let script = directory.path().join("bound.sh");
    let mut lines = shell_lines("docs/PARTNERS.md", "bound-shell");
    lines.push_str("printf 'token: %s\n' \"$ACCESS_TOKEN\"\n");
    std::fs::write(&script, lines).unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail"]).arg(&script);
    shell.current_dir(directory.path());
    let output = with_credentials(shell, &world, &partner).output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    check_bound(&world, &printed).await;
    stop(dev).await;
}
