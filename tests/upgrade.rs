//! Upgrades: the baseline and this build serve the same PostgreSQL, while their replicas are replaced one after the other,
//! from old to new and back. The baseline is the commit that `tests/upgrade/baseline` names. Where it is not there, this build
//! stands in for the old one, and crosses to the schema of a made-up next version.

mod fleet;
mod load;
mod next;

use std::{
    io::Write,
    panic::resume_unwind,
    path::{Path, PathBuf},
};

use accord::clock::{Clock, SystemClock};

use self::{
    fleet::{Fleet, Replica},
    load::Load,
};
use crate::harness::process::ACCORD;

tests!(replicas_are_replaced_one_after_the_other_and_no_call_fails,);

/// The binary of the baseline in the directory that `ACCORD_TEST_BASELINE` names.
fn baseline() -> Option<PathBuf> {
    let directory = std::env::var_os("ACCORD_TEST_BASELINE");
    let binary = directory.map(|directory| Path::new(&directory).join("accord"));
    say(match binary {
        Some(_) => "from and back to the baseline",
        None => "this build, to a schema one version newer, because ACCORD_TEST_BASELINE is not set",
    });
    binary
}

async fn replicas_are_replaced_one_after_the_other_and_no_call_fails() {
    let databases = [(); 2].map(|()| accord::testing::postgres());
    let [Some(registry), Some(token)] = databases else {
        return;
    };
    let (baseline, new) = (baseline(), Path::new(ACCORD));
    let old = baseline.clone().unwrap_or_else(|| ACCORD.into());
    let mut fleet = Fleet::start(&old, [registry, token]).await;
    let mut load = Load::start(&fleet).await;
    for replica in &mut fleet.replicas {
        load.goes_on_with(replica).await.unwrap();
    }
    match baseline {
        Some(_) => fleet.migrate(new),
        // The old replicas serve on.
        None => next::migrate::<1>(&fleet.databases).await,
    }
    let all = fleet.replicas.len();
    let upgrade = (0..all).map(|index| (index, new));
    // The last one that was upgraded is the first one that goes back.
    let roll_back = (0..all).rev().map(|index| (index, old.as_path()));
    for (index, build) in upgrade.chain(roll_back) {
        let replaced_at = SystemClock.now().as_millis();
        tokio::task::block_in_place(|| fleet.replace(index, build));
        if let Err(failure) = load.goes_on_with(&mut fleet.replicas[index]).await {
            let name = fleet.replicas[index].name();
            say(&format!(
                "{name} was told to stop {replaced_at} ms after 1970 began"
            ));
            let lines = fleet.gateway.log().into_iter();
            let failed = lines.filter(|line| line["status"].as_u64() >= Some(500));
            let failed = failed.map(|line| format!("gateway: {line}"));
            let warnings = fleet.replicas.iter().flat_map(Replica::warnings);
            failed.chain(warnings).for_each(|line| say(&line));
            resume_unwind(failure);
        }
    }
    match load.finish().await {
        Ok(counts) => say(&format!("0 failed calls of {counts:?}")),
        Err(failure) => resume_unwind(failure),
    }
    if baseline.is_none() {
        // A release that was skipped.
        next::migrate::<2>(&fleet.databases).await;
        for index in [0, all - 1] {
            let refused = fleet.refused(index, new);
            assert!(refused.contains("more than one version newer"), "{refused}");
        }
    }
}

/// Writes a line that the runner does not swallow.
fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "upgrade: {what}");
}
