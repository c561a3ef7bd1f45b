//! What is measured, and the limits of the design.

use clap::ValueEnum;
use serde::Serialize;

use self::Limit::{AtLeast, AtMost};
use crate::protocol::{
    CALLERS,
    Variant::{self, MutualTls, Replicas, Silent, Traced},
    Work,
};

/// Slices that are measured in the same rounds and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// IssueToken with client credentials
    Issue,
    /// The token endpoint with client credentials
    Form,
    /// IssueToken with refresh tokens
    Refresh,
    /// IssueToken with authorization codes
    Code,
    /// IssueToken with client credentials and a DPoP proof, signed by ES256
    Dpop,
    /// PushAuthorizationRequest, and IssueToken with authorization codes
    Par,
    /// IntrospectToken by an internal service
    Introspect,
    /// IssueToken at half of the highest load
    HalfLoad,
    /// First calls to a new replica by clients that another one has verified
    NewReplica,
    /// IssueToken at half load under 2,000 wrong secrets a second
    Flood,
    /// The same on a replica that has just started
    FloodNewReplica,
    /// IssueToken with 10 clients and grants, and with 1,000,000
    Growth,
    /// IssueToken over mutual TLS, and without
    Tls,
    /// IssueToken with metrics and one trace in a hundred, and without
    Telemetry,
    /// IssueToken by 1, 2 and 3 token-services on one database, with 96 callers
    Replicas,
    /// IssueToken at 5,000 calls a second while a token-service stops
    Drain,
    /// How soon services are ready, and their memory when idle; every run has these figures
    Startup,
    /// An audit record of 10,000,000 events
    Record,
    /// The memory of the proofs of the last minute, at 20,000 a second
    Replay,
    /// Minutes of calls of all kinds, only if it is named
    Soak,
}

/// Token-services by name.
type Variants = &'static [(&'static str, Variant)];

const TLS: Variants = &[("plaintext", Replicas(1)), ("mutual TLS", MutualTls)];
const TELEMETRY: Variants = &[
    ("no telemetry", Silent),
    ("metrics", Replicas(1)),
    ("metrics and traces", Traced),
];
const REPLICAS: Variants = &[
    ("1 replica", Replicas(1)),
    ("2 replicas", Replicas(2)),
    ("3 replicas", Replicas(3)),
];

impl Case {
    /// The work of the cases that every build has a bare counterpart for.
    pub const BESIDE_BARE: [(Self, Work); 8] = [
        (Self::Issue, Work::Issue),
        (Self::Form, Work::Form),
        (Self::Refresh, Work::Refresh),
        (Self::Code, Work::Code),
        (Self::Dpop, Work::IssueBound),
        (Self::Introspect, Work::Introspect),
        (Self::HalfLoad, Work::Issue),
        (Self::NewReplica, Work::IssueOnce),
    ];

    /// Cases that compare token-services of this build that are set up differently: the members, the first of which the
    /// others are compared with, and the callers.
    pub const OF_VARIANTS: [(Self, Variants, usize); 3] = [
        (Self::Tls, TLS, CALLERS),
        (Self::Telemetry, TELEMETRY, CALLERS),
        (Self::Replicas, REPLICAS, 96),
    ];

    /// The bound of the CPU that a token costs, to that of the first member: the server's or the database's.
    pub fn cpu_limit(self) -> Option<(usize, &'static str, Limit)> {
        match self {
            Self::Telemetry => Some((0, "CPU", AtMost(1.03))),
            Self::Replicas => Some((2, "database CPU", AtMost(1.3))),
            _ => None,
        }
    }

    /// Whether it compares latencies, at half of the load that `Issue` reached.
    pub fn is_latency(self) -> bool {
        matches!(self, Self::HalfLoad | Self::Flood | Self::FloodNewReplica)
    }

    /// The bound of its ratios.
    pub fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::Issue | Self::Introspect | Self::Growth => AtLeast(0.9),
            Self::Form => AtLeast(0.75),
            Self::Refresh => AtLeast(0.4),
            Self::Code => AtLeast(0.1),
            Self::HalfLoad => AtMost(1.5),
            Self::Flood | Self::FloodNewReplica => AtMost(1.2),
            Self::Tls | Self::Dpop => AtLeast(0.85),
            Self::Par => AtLeast(0.5),
            _ => return None,
        })
    }

    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A bound of the design.
#[derive(Clone, Copy, Debug, Serialize)]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    /// The bound in words, and whether a value keeps it.
    pub fn check(self, value: f64) -> (String, bool) {
        match self {
            AtLeast(least) => (format!("≥ {least}"), value >= least),
            AtMost(most) => (format!("≤ {most}"), value <= most),
        }
    }
}
