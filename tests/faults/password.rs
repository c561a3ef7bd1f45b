//! A password of the database that is changed while a service runs.

use std::fs;

use accord::{
    random::{Random, SystemRandom},
    testing::durable_postgres,
};
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
    let database = server.database();
    server.execute("CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'first'");
    server.execute(REQUIRE_PASSWORDS);
    server.execute("SELECT pg_reload_conf()");
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut key = [0; 32];
    SystemRandom.fill(&mut key);
    write_private(&at("key"), &key);
    write_private(&at("pgpass"), b"*:*:*:rotated:first\n");
    let mut url = Url::parse(&database.url).unwrap();
    url.set_username("rotated").unwrap();
    let command = |name: &str| {
        let mut command = accord();
        command
            .args(["registry", name])
            .env("PGPASSFILE", at("pgpass"))
            .env("ACCORD_REGISTRY_DATABASE_URL", url.as_str())
            .env("ACCORD_REGISTRY_MASTER_KEY_FILE", at("key"))
            .env("ACCORD_REGISTRY_PUBLIC_BASE_URL", "https://auth.example")
            .env("ACCORD_REGISTRY_LISTEN", "127.0.0.1:0")
            .env("ACCORD_REGISTRY_DRAIN_DELAY", "0");
        command
    };
    assert!(command("migrate").status().unwrap().success());
    let mut registry = Process::start(command("serve"), directory.path(), "registry");
    let mut says = |text: &'static str, times: usize| {
        registry.wait_for(text, |process| {
            (process.stderr().matches(text).count() >= times).then_some(())
        });
    };
    says("\"ready\"", 1);

    server.execute("ALTER ROLE rotated PASSWORD 'second'");
    server.number("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'rotated'");
    says("not ready", 1);
    fs::write(at("pgpass"), "*:*:*:rotated:second\n").unwrap();
    says("\"ready\"", 2);
}
