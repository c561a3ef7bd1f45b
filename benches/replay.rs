//! The replay cache alone: what it remembers, and the memory that it takes.

use std::time::{Duration, Instant};

use accord::{
    clock::UnixMillis,
    dpop::{ReplayCache, VerifiedProof},
};
use anyhow::{Context, Result};

use crate::{
    cases::Limit::{AtLeast, AtMost},
    deployment::memory,
    results::Results,
};

/// Seconds of proofs: more than twice the time for which the cache remembers one.
const SECONDS: i64 = 150;
/// When the first proof is made.
const BEGINS: i64 = 1_800_000_000;
/// Proofs are made up to so many seconds ahead of the server's clock.
const AHEAD: i64 = 10;
/// Clients that send them.
const CLIENTS: i64 = 100;
/// How often memory is read each second.
const READINGS: i64 = 4;

/// Fills a cache with so many proofs a second, on a clock that jumps from second to second.
pub fn measure(results: &mut Results, each_second: i64) -> Result<()> {
    let own = std::process::id();
    let cache = ReplayCache::default();
    let (idle, mut most, mut refused, mut spent) = (memory(own)?, 0.0_f64, 0, Duration::ZERO);
    for second in 0..SECONDS {
        let now = BEGINS + second;
        let time = UnixMillis::from_millis(now * 1_000);
        for part in 0..READINGS {
            let numbers = (each_second * part / READINGS)..(each_second * (part + 1) / READINGS);
            let proofs: Vec<_> = numbers.map(|number| proof(now, number)).collect();
            let started = Instant::now();
            for (client_id, proof) in &proofs {
                refused += u64::from(cache.accept(client_id, proof, time).is_err());
            }
            spent += started.elapsed();
            drop(proofs);
            most = most.max(memory(own)?);
        }
    }
    let sent = u32::try_from(SECONDS * each_second).context("too many proofs")?;
    let remembered = cache.len() as f64;
    // The cache must remember at least the proofs of the last 61 seconds.
    let least = (61 * each_second) as f64;
    let member = ("none", "this build");
    for (what, value, limit) in [
        ("proofs a second", each_second as f64, None),
        ("proofs remembered", remembered, Some(AtLeast(least))),
        ("proofs refused", refused as f64, Some(AtMost(0.0))),
        ("MiB", most - idle, Some(AtMost(64.0))),
        ("ns for a proof", (spent / sent).as_nanos() as f64, None),
    ] {
        results.figure(format!("replay: {what}"), member, value, limit);
    }
    Ok(())
}

fn proof(now: i64, number: i64) -> (String, VerifiedProof) {
    let proof = VerifiedProof {
        jkt: format!("{:043}", number % CLIENTS),
        jti: format!("{now}-{number:024}"),
        iat: now + number % (AHEAD + 1),
        nonce: None,
    };
    (format!("client {}", number % CLIENTS), proof)
}
