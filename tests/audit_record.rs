//! The record of running services, as an auditor sees it from outside: sealed, verified, proven and exported.

use std::{
    fs,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{GetCheckpointRequest, audit_service_client::AuditServiceClient},
    store::Database,
    testing::calls::ok,
    tlog::{ProofFile, VerifierKey},
};
use sea_orm::ConnectionTrait;
use tokio::time::sleep;

use crate::{
    harness::{
        partner::{World, own_grant},
        process::accord,
        services::Services,
    },
    observability::scrape::fetch,
};

tests!(
    a_record_is_verified_from_outside_and_an_edit_is_named,
    two_persons_let_a_record_go_on_and_the_witness_has_both_logs,
);

/// How soon an event is sealed.
const SEALED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Runs `accord audit` on a database, without an operator.
pub async fn audit(url: &str, arguments: &[&str]) -> Output {
    audit_as(url, "", arguments).await
}

/// Does the same as an operator, by the token in the environment.
async fn audit_as(url: &str, operator_token: &str, arguments: &[&str]) -> Output {
    let mut command = accord();
    command.arg("audit").args(arguments);
    // Not an argument: it may hold a password.
    command.env("ACCORD_AUDIT_DATABASE_URL", url);
    command.env("ACCORD_OPERATOR_TOKEN", operator_token);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

pub async fn output(url: &str, arguments: &[&str]) -> String {
    let output = audit(url, arguments).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the proof of an event, once it is sealed.
async fn proof(url: &str, event_id: &str) -> String {
    let started = Instant::now();
    loop {
        let output = audit(url, &["proof", event_id]).await;
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap();
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(started.elapsed() < SEALED, "{error}");
        sleep(POLL).await;
    }
}

fn kept(directory: &Path, name: &str, content: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Traces a token by the command line, with the operator's token from the environment.
async fn traced(services: &Services, world: &World, jti: &str) {
    let url = format!("http://{}", services.target.token_grpc);
    let arguments = ["trace", jti, "--token-url", &url, "--json"];
    let trace = async |arguments: &[&str]| {
        let mut command = accord();
        command.arg("audit").args(arguments);
        command.env("ACCORD_OPERATOR_TOKEN", &services.target.operator_token);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let told: serde_json::Value = serde_json::from_str(&trace(&arguments).await).unwrap();
    assert_eq!(told["jti"], jti);
    let admin = world.user_id(&services.target.admin_account_name).await;
    assert_eq!(told["granted_by_user_id"], admin);
    // One operator did everything.
    let operator = told["approved_by_operator_id"].as_str().unwrap();
    assert!(operator.starts_with("opr_"), "{told}");
    assert_eq!(told["submitted_by_operator_id"], operator);
    let text = trace(&arguments[..4]).await;
    for id in ["grant_id", "client_id", "integration_request_id"] {
        assert!(text.contains(told[id].as_str().unwrap()), "{text}");
    }
    assert!(text.contains(&admin), "{text}");
}

async fn a_record_is_verified_from_outside_and_an_edit_is_named() {
    for database in accord::testing::databases() {
        let registry = accord::testing::sqlite();
        let url = database.url.as_str();
        let mut services = Services::start(&registry.url, url).await;
        let world = World::new(&services.target);
        let partner = world.partner().await;
        world.first_tokens(&partner).await;
        let issued = world.issue(&partner, own_grant()).await.unwrap();
        let jti = super::faults::jti(&issued.access_token);

        let directory = tempfile::tempdir().unwrap();
        let proof = ProofFile::parse(&proof(url, &jti).await).unwrap();
        let mut client = AuditServiceClient::new(world.token_operator.clone());
        let newest = ok(client.get_checkpoint(GetCheckpointRequest {}).await);
        let key: VerifierKey = newest.verifier_key.parse().unwrap();
        proof.verify(&key).unwrap();
        let key = kept(directory.path(), "key", &newest.verifier_key);
        let checkpoint = kept(
            directory.path(),
            "checkpoint",
            &output(url, &["checkpoint"]).await,
        );
        let verify = ["verify", "--key", &key, "--checkpoint", &checkpoint];
        let verified = output(url, &verify).await;
        assert!(verified.contains("as they were sealed"), "{verified}");
        assert!(verified.contains("rows that sealed events name"), "{verified}");
        let service = format!("http://{}", services.target.token_grpc);
        let asked = [&verify[..], &["--service-url", &service]].concat();
        let (is_intact, told) = said(&audit_as(url, &services.target.operator_token, &asked).await);
        assert!(
            is_intact && told.contains("the service has found nothing wrong"),
            "{told}"
        );

        // A position that the record does not have is no end of it.
        for beyond in ["1/1000000/0", "77/0/0"] {
            let refused = audit(url, &["export", "--after", beyond]).await;
            let (is_intact, told) = said(&refused);
            assert!(!is_intact && told.contains("--after"), "{told}");
        }
        let exported = output(url, &["export"]).await;
        let lines: Vec<serde_json::Value> = exported
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let token = lines.iter().find(|line| line["detail"]["jti"] == *jti).unwrap();
        assert_eq!(
            (&token["action"], &token["event_id"]),
            (&"token.issue".into(), &jti.as_str().into())
        );
        let middle = lines.len() / 2;
        let position = lines[middle]["position"].as_str().unwrap();
        let rest = output(url, &["export", "--after", position]).await;
        assert_eq!(rest.lines().count(), lines.len() - middle - 1);

        traced(&services, &world, &jti).await;

        let db = Database::connect(url).await.unwrap();
        let edit = "UPDATE grants SET scopes = '[\"everything\"]'";
        db.read().execute_unprepared(edit).await.unwrap();
        for arguments in [&verify[..], &asked] {
            let (is_whole, error) = said(&audit_as(url, &services.target.operator_token, arguments).await);
            assert!(
                !is_whole && error.contains("is not as the event has left it"),
                "{error}"
            );
            let is_asked = error.contains("the service says: the row grants/");
            assert_eq!(is_asked, arguments.len() > verify.len(), "{error}");
        }
        // The replica that seals finds it by itself.
        services.token.signal("TERM");
        assert!(services.token.wait().success());
        services.start_token_service_again();
        let started = Instant::now();
        while !fetch(&mut services.token, "/metrics")
            .await
            .1
            .contains("accord_audit_rows_fault 1")
        {
            assert!(started.elapsed() < SEALED, "no replica has compared the rows");
            sleep(POLL).await;
        }
        services.stop();
        let removed = db.read().execute_unprepared("DELETE FROM grants").await.unwrap();
        assert!(removed.rows_affected() > 0);
        // An event that nobody has sealed hides nothing. By its id it is older than a minute.
        let forged = "INSERT INTO audit_events SELECT number + 1000000, '0', action, outcome, actor_id, tenant_id, client_id, subject, record, key_version, mac FROM audit_events WHERE action = 'consent.approve'";
        db.read().execute_unprepared(forged).await.unwrap();
        let unsettled = audit(url, &verify).await;
        let (_, told) = said(&unsettled);
        assert_eq!(unsettled.status.code(), Some(3), "{told}");
        assert!(
            told.contains("1 rows that were changed by events which are not sealed yet"),
            "{told}"
        );
        assert!(told.contains("older than a minute and not sealed"), "{told}");
        let edit = "DELETE FROM audit_events WHERE event_id = '0'";
        db.read().execute_unprepared(edit).await.unwrap();
        let (is_whole, error) = said(&audit(url, &verify).await);
        assert!(
            !is_whole && error.contains("the row grants/") && error.contains("is gone since"),
            "{error}"
        );
        let edit = "UPDATE audit_events SET actor_id = 'opr_somebody' WHERE action = 'consent.approve'";
        let edited = db.read().execute_unprepared(edit).await.unwrap();
        assert_eq!(edited.rows_affected(), 1);
        let approved = lines
            .iter()
            .find(|line| line["action"] == "consent.approve")
            .unwrap();
        let found = audit(url, &verify).await;
        let error = String::from_utf8(found.stderr).unwrap();
        assert_eq!(found.status.code(), Some(1), "{error}");
        assert!(error.contains(approved["event_id"].as_str().unwrap()), "{error}");
        // The counter shows that there was a log.
        db.read()
            .execute_unprepared("DELETE FROM audit_logs")
            .await
            .unwrap();
        let found = audit(url, &verify).await;
        let (_, told) = said(&found);
        assert_eq!(found.status.code(), Some(1), "{told}");
        assert!(
            told.contains("the database has no log") && told.contains("log 1 is gone"),
            "{told}"
        );
        db.close().await;
    }
}

pub fn said(output: &Output) -> (bool, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

async fn two_persons_let_a_record_go_on_and_the_witness_has_both_logs() {
    let (registry, token) = (accord::testing::sqlite(), accord::testing::sqlite());
    let directory = tempfile::tempdir().unwrap();
    let witness = directory.path().join("witness");
    let setting = ("ACCORD_TOKEN_AUDIT_WITNESS", witness.to_str().unwrap());
    let mut services = Services::start_with(&registry.url, &token.url, &[setting]).await;
    let world = World::new(&services.target);
    let partner = world.partner().await;
    let tokens = world.first_tokens(&partner).await;
    let jti = super::faults::jti(&tokens.access_token);
    let url = token.url.as_str();
    proof(url, &jti).await;
    let mut client = AuditServiceClient::new(world.token_operator.clone());
    let old_key = ok(client.get_checkpoint(GetCheckpointRequest {}).await).verifier_key;
    let started = Instant::now();
    while fs::read_to_string(&witness).unwrap_or_default().is_empty() {
        assert!(started.elapsed() < SEALED, "the witness has no checkpoint");
        sleep(POLL).await;
    }
    let operator = |name: &str, role: &str, person: &str| {
        let create = ["operator", "create", name, "--role", role, "--person", person];
        services.run_registry(&create)
    };
    let ann = operator("ann", "security", "ann");
    let second_ann = operator("ann.admin", "admin", "ann");
    let bea = operator("bea", "admin", "bea");
    let carl = operator("carl", "auditor", "carl");

    services.token.signal("TERM");
    assert!(services.token.wait().success());
    let (is_done, why) = said(&services.resume("token", &ann, &["--reason", "case 1"]));
    assert!(!is_done && why.contains("no fault"), "{why}");
    let db = Database::connect(url).await.unwrap();
    let edit = "UPDATE audit_events SET actor_id = 'opr_somebody' WHERE action = 'consent.approve'";
    db.read().execute_unprepared(edit).await.unwrap();
    let (is_done, why) = said(&services.resume("token", &carl, &["--reason", "case 1"]));
    assert!(!is_done && why.contains("security or admin"), "{why}");
    let (is_done, requested) = said(&services.resume("token", &ann, &["--reason", "case 1"]));
    assert!(is_done, "{requested}");
    let id = requested
        .lines()
        .find_map(|line| line.strip_prefix("request: "))
        .unwrap();
    for same in [&ann, &second_ann] {
        let (is_done, why) = said(&services.resume("token", same, &["--confirm", id]));
        assert!(!is_done && why.contains("another person"), "{why}");
    }
    let (is_done, resumed) = said(&services.resume("token", &bea, &["--confirm", id]));
    assert!(is_done, "{resumed}");
    let new_key = resumed
        .lines()
        .find_map(|line| line.strip_prefix("its key:"))
        .unwrap()
        .trim();

    services.start_token_service_again();
    let checkpoint = kept(directory.path(), "witness-of-both", &{
        let started = Instant::now();
        let origin = new_key.split('+').next().unwrap();
        loop {
            let pushed = fs::read_to_string(&witness).unwrap();
            if pushed.contains(&format!("{origin}\n")) {
                break pushed;
            }
            assert!(started.elapsed() < SEALED, "{pushed}");
            sleep(POLL).await;
        }
    });
    let keys =
        [("old", old_key.as_str()), ("new", new_key)].map(|(name, key)| kept(directory.path(), name, key));
    let verify = [
        "verify",
        "--key",
        &keys[0],
        "--key",
        &keys[1],
        "--checkpoint",
        &checkpoint,
    ];
    let verified = output(url, &verify).await;
    assert!(verified.contains("two persons have accepted"), "{verified}");
    assert!(verified.contains("as they were sealed"), "{verified}");
    let exported = output(url, &["export"]).await;
    let resume = exported
        .lines()
        .find(|line| line.contains("audit_log.resume"))
        .unwrap();
    assert!(resume.contains("case 1"), "{resume}");
    // What the older log holds is proven by its key.
    let proof = ProofFile::parse(&proof(url, &jti).await).unwrap();
    proof.verify(&old_key.parse().unwrap()).unwrap();

    // What could not be checked is no finding.
    for (key, told) in [("/no/such/key", "No such file"), (checkpoint.as_str(), "--key")] {
        let unchecked = audit(url, &["verify", "--key", key]).await;
        let (_, said) = said(&unchecked);
        assert_eq!(unchecked.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }

    let one = audit(url, &["verify", "--key", &keys[1]]).await;
    let (_, told) = said(&one);
    assert_eq!(one.status.code(), Some(3), "{told}");
    assert!(told.contains("no --key is its key"), "{told}");
    db.close().await;
    services.stop();
}
