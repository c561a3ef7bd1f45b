//! Hosts that are cut off or gone, and certificates that are replaced, under load.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{
    installation::{Installation, NO_CONNECTION},
    load::{EXCUSED, Load},
};

tests_on_hosts!(
    a_host_that_is_cut_off_fails_no_call_two_seconds_later,
    a_process_that_is_killed_fails_no_call_two_seconds_later,
    certificates_are_replaced_without_a_failed_call,
    another_authority_is_brought_in_without_a_failed_call,
);

/// How long the load is watched before a fault.
const STEADY: Duration = Duration::from_secs(1);
/// How long it is watched during a fault, in which every lease ends, and every connection that says nothing.
const FAULT: Duration = Duration::from_secs(5);
/// How long it is watched once a host is back.
const RETURN: Duration = Duration::from_secs(4);
/// Services look at their files every two seconds, and take what two looks have found.
const REPLACEMENT: Duration = Duration::from_secs(6);

/// How often everything is done.
fn rounds() -> usize {
    match std::env::var_os("ACCORD_TEST_LONG") {
        Some(_) => 10,
        None => 1,
    }
}

async fn a_host_that_is_cut_off_fails_no_call_two_seconds_later() {
    let installation = Installation::start().await;
    let load = Load::start(&installation).await;
    load.is_whole().await;
    for round in 0..rounds() {
        let began = Instant::now();
        sleep(STEADY).await;
        // One of each, so that calls of a replica that is left meet the registry that is gone.
        let nodes = [&installation.registries, &installation.tokens].map(|nodes| &nodes[round % 2]);
        let cut = Instant::now();
        nodes.iter().for_each(|node| node.host.cut());
        sleep(FAULT).await;
        load.seen.assert_whole(cut + EXCUSED, &[], "without one of each");
        nodes.iter().for_each(|node| node.host.join());
        sleep(RETURN).await;
        load.seen.assert_whole(began, &[cut], "one of each cut off");
    }
    load.stop().await;
}

async fn a_process_that_is_killed_fails_no_call_two_seconds_later() {
    let mut installation = Installation::start().await;
    let load = Load::start(&installation).await;
    load.is_whole().await;
    for round in 0..rounds() {
        let index = round % 2;
        let began = Instant::now();
        sleep(STEADY).await;
        let killed = Instant::now();
        installation.registries[index].kill();
        installation.tokens[index].kill();
        sleep(FAULT).await;
        load.seen
            .assert_whole(killed + EXCUSED, &[], "without one of each");
        installation.registries[index].start_again();
        installation.tokens[index].start_again();
        sleep(RETURN).await;
        load.seen.assert_whole(began, &[killed], "one of each killed");
    }
    load.stop().await;
}

async fn certificates_are_replaced_without_a_failed_call() {
    let installation = Installation::start().await;
    let load = Load::start(&installation).await;
    load.is_whole().await;
    for _ in 0..rounds() {
        let began = Instant::now();
        sleep(STEADY).await;
        let before = installation.presented().await;
        installation.replace_certificates();
        sleep(REPLACEMENT).await;
        let after = installation.presented().await;
        for ((address, before), (_, after)) in before.iter().zip(&after) {
            assert_ne!(before, after, "{address} still presents the old certificate");
        }
        load.seen.assert_whole(began, &[], "other certificates");
    }
    load.stop().await;
}

async fn another_authority_is_brought_in_without_a_failed_call() {
    let installation = Installation::start().await;
    let (first, other) = (installation.first_authority(), installation.other_authority());
    let load = Load::start(&installation).await;
    load.is_whole().await;
    let began = Instant::now();
    for answer in installation.answers(&other).await {
        let cause = answer.unwrap_err();
        assert!(cause.starts_with(NO_CONNECTION), "{cause}");
    }
    installation.trust(&[&first, &other]);
    sleep(REPLACEMENT).await;
    installation.certify(&other);
    sleep(REPLACEMENT).await;
    for answer in installation.answers(&first).await {
        answer.expect("the first authority counts still");
    }
    installation.trust(&[&other]);
    sleep(REPLACEMENT).await;
    for answer in installation.answers(&other).await {
        answer.unwrap();
    }
    for answer in installation.answers(&first).await {
        let cause = answer.unwrap_err();
        assert!(cause.starts_with(NO_CONNECTION), "{cause}");
    }
    load.seen.assert_whole(began, &[], "another authority");
    load.stop().await;
    // New sessions verify the database by the other authority.
    installation.database.end_sessions();
    for answer in installation.answers(&other).await {
        answer.unwrap();
    }
}
