//! What the planning process asks of a deployment, and what it gets back.
//!
//! Two builds are compared through these messages alone: schema and wire format may differ between them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// Callers of a closed loop.
pub const CALLERS: usize = 64;

/// Answered by the type in brackets.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Creates and fills the databases, starts the services, verifies every secret once ([`Startup`]).
    Deploy(Plan),
    /// Calls a server and measures ([`Sample`]).
    Measure(Slice),
    /// Fills the audit record with at least so many events, and measures (`Vec<(String, f64)>`).
    Record(u64),
    /// Ends the services and compares the tokens with the audit record (`()`).
    Finish,
}

/// A deployment: both services on databases of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// For keys, logs and SQLite files.
    pub directory: PathBuf,
    pub registry_url: String,
    pub token_url: String,
    /// The process that all of the database's descend from, if it has any.
    pub database_pid: Option<u32>,
    /// Clients, each with a grant.
    pub clients: usize,
    /// Those of them with a secret. Calls are made in their name.
    pub active: usize,
}

/// Services that have started on existing databases, and that nobody has called yet.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Startup {
    /// Milliseconds from starting the program until its health is SERVING, the median of a few starts.
    pub registry_ready: f64,
    pub token_ready: f64,
    /// MiB of resident memory.
    pub registry_memory: f64,
    pub token_memory: f64,
}

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Slice {
    pub target: Target,
    pub work: Work,
    /// How long to call before anything counts.
    pub warm_up: Duration,
    /// How long to measure; less if nothing is left to call with.
    pub span: Duration,
    pub pace: Pace,
    /// Wrong secrets a second beside the work, in an open loop.
    pub wrong_secrets: Option<f64>,
}

impl Slice {
    /// Measures from the first call on, and does nothing beside the work.
    pub fn new(target: Target, work: Work, pace: Pace, span: Duration) -> Self {
        Self {
            target,
            work,
            warm_up: Duration::ZERO,
            span,
            pace,
            wrong_secrets: None,
        }
    }
}

/// When calls are made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Pace {
    /// A closed loop: so many callers, each of which calls as soon as it has its answer.
    Callers(usize),
    /// An open loop: so many calls a second, whatever the server does.
    Rate(f64),
}

/// The server that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The bare server.
    Bare,
    /// token-service, with warm caches.
    Service,
    /// A token-service that starts for this slice.
    NewReplica,
    /// Token-services beside the first one that are set up like this, with warm caches.
    Variant(Variant),
    /// Two token-services that start for this slice. One is told to stop in its middle.
    Draining,
}

/// How token-services of this build may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Variant {
    /// So many with plaintext and metrics, as all others here.
    Replicas(usize),
    /// One that speaks mutual TLS.
    MutualTls,
    /// One without metrics.
    Silent,
    /// One that exports one trace in a hundred.
    Traced,
}

/// What is called: `IssueToken` with client credentials, if it doesn't say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    Issue,
    /// By each client once.
    IssueOnce,
    /// The token endpoint.
    Form,
    Refresh,
    Code,
    /// With a DPoP proof.
    IssueBound,
    /// `PushAuthorizationRequest`.
    Push,
    Introspect,
    /// Tokens by client credentials, with renewals, revocations and registrations.
    Mixed,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    pub outcome: Outcome,
    /// Answers to wrong secrets by code and reason, those of the warm-up included.
    pub wrong_secrets: BTreeMap<String, u64>,
    pub usage: Usage,
    /// Calls to registry-service from the beginning of the warm-up to the last answer, by method. The poll
    /// for changes is left out.
    pub registry_calls: BTreeMap<String, u64>,
    /// argon2 runs in the same time.
    pub argon2_runs: u64,
}

/// What callers saw.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// How long was measured.
    pub seconds: f64,
    /// Right answers in that time.
    pub answers: u64,
    /// Right answers, those before and after it included.
    pub all_answers: u64,
    /// Milliseconds from sending, or in an open loop from when the call was due, to the answer: the median,
    /// 99 %, 99.9 %. Of calls that were due in that time.
    pub latency: [f64; 3],
    /// Calls that were refused, by code and reason.
    pub refused: BTreeMap<String, u64>,
}

/// What the processes behind a server use. A bare server has neither registry nor database.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Microseconds on a processor in the time that is measured: server, registry-service, database.
    pub cpu: [Option<f64>; 3],
    /// MiB of resident memory at its end.
    pub server_memory: f64,
    pub registry_memory: f64,
}

impl Sample {
    /// Right answers a second.
    pub fn throughput(&self) -> f64 {
        self.outcome.answers as f64 / self.outcome.seconds
    }
}
