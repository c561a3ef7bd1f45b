//! A password of the database that is changed while a service runs.

use std::{fs, os::unix::fs::PermissionsExt};

use accord::{keys::FileMasterKey, random::SystemRandom, testing::durable_postgres};
use url::Url;

use crate::harness::{
    process::{Process, accord},
    services::write_private,
};

tests!(a_changed_password_is_read_again_from_its_file);

/// Requires passwords of everybody but the superuser.
const REQUIRE_PASSWORDS: &str = "DO $do$ BEGIN EXECUTE format('COPY (SELECT unnest(ARRAY[''local all postgres trust'', \
    ''host all postgres all trust'', ''local all all scram-sha-256'', ''host all all all scram-sha-256''])) TO %L', \
    current_setting('hba_file')); END $do$";

async fn a_changed_password_is_read_again_from_its_file() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let databases = ["registry", "token"].map(|_| server.database());
    server.execute("CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'first'");
    server.execute(REQUIRE_PASSWORDS);
    server.execute("SELECT pg_reload_conf()");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    FileMasterKey::create(&at("key"), &SystemRandom).unwrap();
    write_private(&at("pgpass"), b"*:*:*:rotated:first\n");
    // As Kubernetes and Compose mount it for a service whose user is another.
    fs::set_permissions(at("pgpass"), fs::Permissions::from_mode(0o640)).unwrap();
    let command = |service: &str, arguments: &[&str]| {
        let database = &databases[usize::from(service == "token")];
        let mut url = Url::parse(&database.url).unwrap();
        url.set_username("rotated").unwrap();
        let name = |setting: &str| format!("ACCORD_{}_{setting}", service.to_uppercase());
        let mut command = accord();
        command
            .arg(service)
            .args(arguments)
            .env("PGPASSFILE", at("pgpass"))
            .env(name("DATABASE_URL"), url.as_str())
            .env(name("MASTER_KEY_FILE"), at("key"))
            .env(name("LISTEN"), "127.0.0.1:0")
            .env(name("DRAIN_DELAY"), "0");
        command
    };
    for service in ["registry", "token"] {
        assert!(command(service, &["migrate"]).status().unwrap().success());
    }
    let create = ["workload", "create", "token-service", "--kind", "token-service"];
    let created = command("registry", &create).output().unwrap();
    assert!(created.status.success(), "{created:?}");
    write_private(&at("registry-token"), &created.stdout);
    let mut serve = command("registry", &["serve"]);
    serve.env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example");
    let mut registry = Process::start(serve, directory.path(), "registry");
    let mut serve = command("token", &["serve"]);
    serve
        .env("ACCORD_TOKEN_HTTP_LISTEN", "127.0.0.1:0")
        .env("ACCORD_TOKEN_REGISTRY_TOKEN_FILE", at("registry-token"))
        .env(
            "ACCORD_TOKEN_REGISTRY_URL",
            format!("http://{}", registry.listening("--listen")),
        );
    let mut token = Process::start(serve, directory.path(), "token");
    let mut both_say = |text: &'static str, times: usize| {
        for process in [&mut registry, &mut token] {
            process.wait_for(text, |process| {
                (process.stderr().matches(text).count() >= times).then_some(())
            });
        }
    };
    both_say("\"ready\"", 1);

    // A line that is malformed, as while somebody edits the file, is not in the log.
    server.execute("ALTER ROLE rotated PASSWORD 'second'");
    fs::write(at("pgpass"), "*:*:*:rotated_second_in_part").unwrap();
    server.number("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'rotated'");
    both_say("not ready", 1);
    fs::write(at("pgpass"), "*:*:*:rotated:second\n").unwrap();
    both_say("\"ready\"", 2);
    for process in [&registry, &token] {
        let log = process.stderr();
        assert!(!log.contains("second") && !log.contains("pgpass"), "{log}");
    }
}
