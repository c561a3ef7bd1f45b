//! The command line: which cases, on which databases, for how long.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, ValueEnum};

/// What issuing and checking tokens costs, beside the best that this machine could do.
#[derive(Debug, Parser)]
#[command(name = "issuance")]
pub struct Options {
    /// Everything in tiny form, for correctness: about a minute, and no figure means much
    #[arg(long)]
    pub quick: bool,
    /// These cases alone; a ratio is there if both of its cases are
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    pub only: Vec<Case>,
    /// Which databases
    #[arg(long, value_enum, default_value_t = Databases::Both)]
    pub database: Databases,
    /// How long a case is measured in each round [default: 3]
    #[arg(long)]
    seconds: Option<f64>,
    /// How often every case is measured [default: 5]
    #[arg(long)]
    rounds: Option<usize>,
    /// Callers at a time, where a case does not say otherwise
    #[arg(long, default_value_t = 64)]
    pub callers: usize,
    /// Where the results go, from the root of the workspace [default: target/bench]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What cargo passes to benchmarks; of no effect
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured. `bare-*` are the limits that others are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// A gRPC server that only signs
    BareGrpc,
    /// IssueToken with client credentials
    Issue,
    /// An HTTP server that only signs
    BareHttp,
    /// The token endpoint with client credentials
    Form,
    /// IssueToken with refresh tokens, each caller its own chain
    Refresh,
    /// IssueToken with authorization codes
    Code,
    /// A gRPC server that only verifies a signature
    BareVerify,
    /// IntrospectToken by an internal service
    Introspect,
    /// A check without asking anybody, in this process
    Offline,
    /// IssueToken with secrets that were not verified before
    Cold,
    /// IssueToken with 1 to 256 callers
    Callers,
    /// IssueToken with 10 to 1,000,000 clients and grants
    Growth,
    /// Latency of IssueToken at half of the highest load
    HalfLoad,
    /// The same while others try bad secrets
    Flood,
    /// Memory of idle services, and how long they take to start
    Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Databases {
    Sqlite,
    Postgres,
    Both,
}

impl Case {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::BareGrpc => "bare-grpc",
            Self::Issue => "issue",
            Self::BareHttp => "bare-http",
            Self::Form => "form",
            Self::Refresh => "refresh",
            Self::Code => "code",
            Self::BareVerify => "bare-verify",
            Self::Introspect => "introspect",
            Self::Offline => "offline",
            Self::Cold => "cold",
            Self::Callers => "callers",
            Self::Growth => "growth",
            Self::HalfLoad => "half-load",
            Self::Flood => "flood",
            Self::Start => "start",
        }
    }
}

impl Options {
    pub fn wants(&self, case: Case) -> bool {
        self.only.is_empty() || self.only.contains(&case)
    }

    pub fn wants_any(&self, cases: &[Case]) -> bool {
        cases.iter().any(|&case| self.wants(case))
    }

    /// How long a case is measured in each round.
    pub fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { 0.6 } else { 3.0 }))
    }

    /// How long a case runs before it is measured: connections and caches get going.
    pub fn warm_up(span: Duration) -> Duration {
        span / 10
    }

    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// Clients with a secret, at most: who is called for.
    pub fn active(&self) -> usize {
        // Those who refresh and those who redeem codes are not the same.
        let least = 2 * self.callers;
        if self.quick { least } else { least.max(1_000) }
    }

    /// How many clients and grants there are, one database each.
    pub fn growth(&self) -> &'static [usize] {
        if self.quick {
            &[10, 1_000]
        } else {
            &[10, 10_000, 1_000_000]
        }
    }

    pub fn caller_counts(&self) -> &'static [usize] {
        &[1, 4, 16, 64, 256]
    }

    /// Where results and databases go: on the disk of the build, since a temporary directory may be in
    /// memory. Cargo starts benchmarks elsewhere than it was started itself.
    pub fn directory(&self) -> PathBuf {
        match &self.out {
            Some(directory) => Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory),
            None => Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench"),
        }
    }
}
