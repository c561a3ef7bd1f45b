//! PgBouncer between the services and PostgreSQL, with its stock configuration.

use std::process::Command;

use accord::testing::durable_postgres;

use super::{Stage, address};
use crate::harness::{pgbouncer::PgBouncer, process::accord};

tests!(
    the_services_run_behind_pgbouncer,
    migrate_says_why_a_database_can_not_be_reached,
);

async fn the_services_run_behind_pgbouncer() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    for mode in ["session", "transaction"] {
        let (registry, token) = (server.database(), server.database());
        let pooler = PgBouncer::start(address(server.url()), mode);
        let stage = Stage::set(&pooler.url(&registry.url), &pooler.url(&token.url)).await;
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accord'",
        );
        stage.is_whole_soon("ended sessions behind a pooler").await;
        stage.ends(format_args!("pool_mode = {mode}")).await;
    }
}

async fn migrate_says_why_a_database_can_not_be_reached() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let migrate = |url: &str| {
        let mut command: Command = accord();
        command
            .args(["registry", "migrate"])
            .env("ACCORD_REGISTRY_DATABASE_URL", url);
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let at = |database: &str| format!("postgres://postgres:hunter2@{}/{database}", address(server.url()));
    let missing = migrate(&at("missing"));
    assert!(missing.contains("\"missing\" does not exist"), "{missing}");
    let refused = migrate("postgres://postgres:hunter2@127.0.0.1:1/any");
    assert!(refused.contains("connection refused"), "{refused}");
    for message in [missing, refused] {
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
