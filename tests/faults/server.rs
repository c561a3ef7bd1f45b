//! A PostgreSQL server that is restarted, becomes read-only, ends sessions, or is replaced by its standby.

use std::{
    thread,
    time::{Duration, Instant},
};

use accord::testing::durable_postgres;
use tokio::time::sleep;
use tonic::Code;

use super::{FAULT, SESSIONS, Stage, TOLD, address, sessions};
use crate::harness::{
    partner::{code_grant, own_grant, refresh_grant},
    proxy::{Proxy, Traffic::Pass},
};

tests!(
    the_services_outlive_every_fault_of_the_server,
    after_a_failover_the_services_are_whole_and_nothing_is_lost,
);

/// How soon connections that are suspect are closed. It happens once a second.
const SWEPT: Duration = Duration::from_secs(10);
/// Sessions that may answer a read. One whose commit waits for a standby that is none any more waits for ever, and does not
/// notice that its client has gone.
const READERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'accord' AND wait_event IS DISTINCT FROM 'SyncRep'";
const END_SESSIONS: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'accord'";

async fn the_services_outlive_every_fault_of_the_server() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let stage = Stage::set(&registry.url, &token.url).await;

    server.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    server.execute("SELECT pg_reload_conf()");
    stage.say(&[0, 1], false, TOLD, "read-only").await;
    sleep(FAULT).await;
    server.execute("ALTER SYSTEM RESET default_transaction_read_only");
    server.execute("SELECT pg_reload_conf()");
    stage.is_whole_soon("read-only").await;

    // SIGINT ends all sessions and the server, which its supervisor starts again.
    server.signal("INT");
    stage.is_whole_soon("a restart").await;
    // SIGQUIT is a crash.
    server.signal("QUIT");
    stage.is_whole_soon("a crash").await;

    // A person locks tables.
    let url = token.url.clone();
    let lock = thread::spawn(move || {
        accord::testing::execute_on(
            &url,
            "BEGIN; LOCK TABLE audit_groups, audit_events, change_counter; SELECT pg_sleep(6); COMMIT",
        );
    });
    sleep(Duration::from_secs(1)).await;
    lock.join().unwrap();
    stage.is_whole_soon("locked tables").await;

    let open = sessions(&server);
    assert!(open <= SESSIONS, "{open} sessions");
    let idle = stage.ends("server").await;

    // Sessions that end while nobody uses them cost no call.
    let (world, partner) = (&idle.world, &idle.partners[0]);
    let mut failures = 0;
    let first = world.first_tokens(partner).await;
    let approved = world.approve(partner).await;
    assert!(server.number(END_SESSIONS) > 0);
    let code = world.issue(partner, code_grant(&approved)).await;
    failures += usize::from(code.is_err());
    if let Err(status) = code {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        world.issue(partner, code_grant(&approved)).await.unwrap();
    }
    assert!(server.number(END_SESSIONS) > 0);
    // The code has superseded the grant of the first tokens: this client's token of another grant is not renewed.
    drop(first);
    let other = &idle.partners[1];
    let tokens = world.first_tokens(other).await;
    server.number(END_SESSIONS);
    let renewed = world.issue(other, refresh_grant(&tokens.refresh_token)).await;
    failures += usize::from(renewed.is_err());
    for _ in 0..15 {
        failures += usize::from(world.issue(partner, own_grant()).await.is_err());
        world.active(&tokens.access_token).await;
    }
    assert!(failures <= 1, "{failures} calls failed");
    drop(idle.services);
}

async fn after_a_failover_the_services_are_whole_and_nothing_is_lost() {
    let Some(primary) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (primary.database(), primary.database());
    let standby = primary.standby();
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.execute("SELECT pg_reload_conf()");
    let deadline = Instant::now() + Duration::from_secs(20);
    while primary.number("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 0 {
        assert!(Instant::now() < deadline, "the standby does not follow");
        sleep(Duration::from_millis(50)).await;
    }
    let proxy = Proxy::start(address(primary.url())).await;
    let stage = Stage::set(&proxy.url(&registry.url), &proxy.url(&token.url)).await;

    // The old primary goes on answering reads over the connections that exist. It commits nothing any more.
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on");
    primary.execute("SELECT pg_reload_conf()");
    stage.say(&[0, 1], false, TOLD, "failover").await;
    assert_eq!(standby.number("SELECT CAST(pg_promote() AS integer)::bigint"), 1);
    proxy.lead_to(address(standby.url()));
    proxy.set(Pass, Pass);
    stage.is_whole_soon("failover").await;
    // An idle connection that is suspect is closed by the next sweep.
    let deadline = Instant::now() + SWEPT;
    while primary.number(READERS) > 0 {
        assert!(Instant::now() < deadline, "sessions are left at the old primary");
        sleep(Duration::from_millis(50)).await;
    }
    stage.ends("failover").await;
    // So that the databases can be dropped.
    primary.execute("ALTER SYSTEM RESET ALL");
    primary.execute("SELECT pg_reload_conf()");
}
