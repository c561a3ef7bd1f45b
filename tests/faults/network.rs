//! A network between the services and PostgreSQL that fails without a word.

use std::time::Duration;

use accord::testing::durable_postgres;
use tokio::time::sleep;

use super::{FAULT, SESSIONS, Stage, TOLD, address, sessions};
use crate::harness::{
    partner::{World, code_grant, refresh_grant},
    proxy::{
        Proxy,
        Traffic::{self, Delay, Pass, Reset, Stall, Swallow},
    },
    services::Services,
};

tests!(
    the_services_outlive_every_fault_of_the_network,
    a_code_is_redeemed_although_the_answer_to_its_commit_is_lost,
);

async fn the_services_outlive_every_fault_of_the_network() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let proxy = Proxy::start(address(server.url())).await;
    let stage = Stage::set(&proxy.url(&registry.url), &proxy.url(&token.url)).await;

    // Old connections keep silent for ever, with and without acknowledging; new ones work.
    for (existing, what) in [
        (Stall, "stalled connections"),
        (Swallow, "swallowing connections"),
    ] {
        proxy.set(existing, Pass);
        sleep(Duration::from_millis(200)).await;
        stage.is_whole_soon(what).await;
    }
    // Nothing works, for a while.
    let outages: [(Traffic, Traffic, &str); 3] = [
        (Stall, Stall, "a stalled network"),
        (Swallow, Swallow, "a network that swallows"),
        (Reset, Reset, "a network that resets"),
    ];
    for (existing, new, what) in outages {
        proxy.set(existing, new);
        stage.say(&[0, 1], false, TOLD, what).await;
        sleep(FAULT).await;
        // The connections of the outage keep silent also afterwards.
        proxy.set(existing, Pass);
        stage.is_whole_soon(what).await;
    }
    // Slow is not broken.
    proxy.set(Delay(Duration::from_millis(20)), Delay(Duration::from_millis(20)));
    sleep(FAULT).await;
    proxy.set(Pass, Pass);
    stage.is_whole_soon("a slow network").await;

    // What the server believes of connections that the services gave up is bounded by its own settings.
    let open = sessions(&server);
    stage.ends("network").await;
    assert!(open <= 4 * SESSIONS, "{open} sessions");
    drop(proxy);
}

async fn a_code_is_redeemed_although_the_answer_to_its_commit_is_lost() {
    let Some(server) = durable_postgres(&[&std::env::temp_dir()]) else {
        return;
    };
    let (registry, token) = (server.database(), server.database());
    let proxy = Proxy::start(address(server.url())).await;
    let services = Services::start(&registry.url, &proxy.url(&token.url)).await;
    let world = World::new(&services.target);
    let partner = world.partner().await;
    let approved = world.approve(&partner).await;

    proxy.lose_commits_with(Some(&services.target.tenant_id));
    let first = world.issue(&partner, code_grant(&approved)).await.unwrap();
    assert!(proxy.lost_answers() > 0);
    proxy.lose_commits_with(None);
    assert!(world.active(&first.access_token).await);
    let renewed = world.issue(&partner, refresh_grant(&first.refresh_token)).await;
    assert_ne!(renewed.unwrap().refresh_token, first.refresh_token);
}
