//! The command line: which cases, on which databases, for how long, against which other build.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;

use crate::{cases::Case, protocol::CALLERS};

const DATABASES: [&str; 2] = ["sqlite", "postgres"];

/// What issuing and checking tokens costs, beside a bare server that only signs or verifies.
#[derive(Debug, Parser)]
#[command(name = "issuance")]
pub struct Options {
    /// Every case in tiny form, for correctness: about two minutes, and its figures mean little
    #[arg(long)]
    pub quick: bool,
    /// Only these cases
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<Case>,
    /// Which databases
    #[arg(long, value_delimiter = ',', default_value = "sqlite,postgres", value_parser = DATABASES)]
    pub database: Vec<String>,
    /// Another build to measure in the same rounds: a directory with its `issuance` and `accord`, and the programs of
    /// both services if these are to be measured alone
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// How many slices each member of a case gets [default: 40]
    #[arg(long)]
    rounds: Option<usize>,
    /// Clients with a secret, at most. More make the slices of `new-replica` longer, whose first calls otherwise end before
    /// its connections to the database are open [default: 1000]
    #[arg(long)]
    clients: Option<usize>,
    /// Events in the audit record [default: 10000000]
    #[arg(long)]
    events: Option<u64>,
    /// How long a soak sends calls, to each database [default: 30]
    #[arg(long)]
    minutes: Option<f64>,
    /// Calls a second of a soak [default: 2000]
    #[arg(long)]
    rate: Option<f64>,
    /// Fail if any figure is beyond its limit, not only those of a soak
    #[arg(long)]
    pub judge: bool,
    /// Passed by cargo; without effect
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub fn wants(&self, case: Case) -> bool {
        let needed = |wanted: &Case| *wanted == case || wanted.is_latency() && case == Case::Issue;
        let by_default = self.only.is_empty() && (self.quick || case != Case::Soak);
        by_default || self.only.iter().any(needed)
    }

    /// Whether a case is wanted that compares builds.
    pub fn wants_builds(&self) -> bool {
        let others = [Case::Growth, Case::Record, Case::Replay, Case::Soak];
        self.only.is_empty() || self.only.iter().any(|case| !others.contains(case))
    }

    /// Stops under load: how many, how long each is measured, and calls a second. A stop begins after a third of the time and
    /// takes three seconds.
    pub fn drain(&self) -> (usize, Duration, f64) {
        if self.quick {
            (1, Duration::from_secs(6), 200.0)
        } else {
            (3, Duration::from_secs(9), 5_000.0)
        }
    }

    /// How long a soak sends calls, and calls a second. In tiny form, a rate that an unoptimised build keeps up with.
    pub fn soak(&self) -> (Duration, f64) {
        let (minutes, rate) = if self.quick {
            (0.35, 100.0)
        } else {
            (30.0, 2_000.0)
        };
        let seconds = 60.0 * self.minutes.unwrap_or(minutes);
        (Duration::from_secs_f64(seconds), self.rate.unwrap_or(rate))
    }

    /// Length of a slice.
    pub fn span(&self) -> Duration {
        Duration::from_millis(if self.quick { 200 } else { 500 })
    }

    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 40 }).max(1)
    }

    /// Clients with a secret, at most. Renewals and redemptions use different ones.
    pub fn active(&self) -> usize {
        let default = if self.quick { 2 * CALLERS } else { 1_000 };
        self.clients.unwrap_or(default).max(2 * CALLERS)
    }

    /// Proofs a second that the replay cache is filled with.
    pub fn proofs(&self) -> i64 {
        if self.quick { 1_000 } else { 20_000 }
    }

    /// Events in the audit record.
    pub fn events(&self) -> u64 {
        self.events
            .unwrap_or(if self.quick { 10_000 } else { 10_000_000 })
    }

    /// Clients and grants of the two deployments that growth compares.
    pub fn growth(&self) -> [usize; 2] {
        [10, if self.quick { 1_000 } else { 1_000_000 }]
    }

    /// The benchmark of the other build. Its path counts from the root of the workspace: cargo starts
    /// benchmarks in the directory of their package.
    pub fn other_build(&self) -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Some(root.join(self.against.as_ref()?).join("issuance"))
    }
}
