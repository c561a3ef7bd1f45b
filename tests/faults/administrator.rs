//! What a person does to a PostgreSQL server that others use: locks tables, and changes the settings of sessions.

use std::thread;

use accord::testing::{durable_postgres, execute_on};
use tokio::time::sleep;

use super::{FAULT, Stage, TOLD, address};
use crate::harness::pgbouncer::PgBouncer;

tests!(
    a_locked_table_is_told_of_and_outlived,
    settings_of_the_role_and_the_server_are_outlived,
    settings_of_the_server_are_outlived_behind_pgbouncer,
);

async fn a_locked_table_is_told_of_and_outlived() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let stage = Stage::set(&registry.url, &token.url).await;
    for (service, url, table) in [
        (0, &registry.url, "scopes"),
        (1, &token.url, "families"),
        (1, &token.url, "audit_groups"),
    ] {
        let url = url.clone();
        let lock = format!("BEGIN; LOCK TABLE {table}; SELECT pg_sleep(5); COMMIT");
        let lock = thread::spawn(move || execute_on(&url, &lock));
        stage.say(&[service], false, TOLD, table).await;
        lock.join().unwrap();
        stage.is_whole_soon(table).await;
    }
    stage.ends("locked tables").await;
}

/// With these hardly a statement succeeds in a session that does not set them itself.
const SETTINGS: [&str; 3] = [
    "lock_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
];
const END_SESSIONS: &str =
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'accord'";

async fn settings_of_the_role_and_the_server_are_outlived() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let stage = Stage::set(&registry.url, &token.url).await;
    let admin = |sql: &str| {
        let own = "options=-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0";
        execute_on(&format!("{}&{}", server.url(), own.replace(' ', "%20")), sql);
    };
    for setting in SETTINGS {
        for whose in ["SYSTEM", "ROLE postgres"] {
            admin(&format!("ALTER {whose} SET {setting} = '1ms'"));
            admin("SELECT pg_reload_conf()");
            // Sessions that begin now have it from their start.
            admin(END_SESSIONS);
            sleep(FAULT).await;
            admin(&format!("ALTER {whose} RESET {setting}"));
            admin("SELECT pg_reload_conf()");
            stage.is_whole_soon(setting).await;
        }
    }
    stage.ends("settings").await;
}

async fn settings_of_the_server_are_outlived_behind_pgbouncer() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let pooler = PgBouncer::start(address(server.url()), "transaction");
    let stage = Stage::set(&pooler.url(&registry.url), &pooler.url(&token.url)).await;
    server.execute("ALTER SYSTEM SET lock_timeout = '1ms'");
    server.execute("SELECT pg_reload_conf()");
    sleep(FAULT).await;
    server.execute("ALTER SYSTEM RESET lock_timeout");
    server.execute("SELECT pg_reload_conf()");
    stage.is_whole_soon("lock_timeout behind a pooler").await;
    stage.ends("settings behind a pooler").await;
}
