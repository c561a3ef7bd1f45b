//! What is measured, and the limits of the design.

use clap::ValueEnum;
use serde::Serialize;

use self::Limit::{AtLeast, AtMost};
use crate::protocol::Work;

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
}

impl Case {
    /// The work of the cases that every build has a bare counterpart for.
    pub const BESIDE_BARE: [(Self, Work); 7] = [
        (Self::Issue, Work::Issue),
        (Self::Form, Work::Form),
        (Self::Refresh, Work::Refresh),
        (Self::Code, Work::Code),
        (Self::Introspect, Work::Introspect),
        (Self::HalfLoad, Work::Issue),
        (Self::NewReplica, Work::IssueOnce),
    ];

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
            Self::NewReplica => return None,
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
    pub fn check(self, value: f64) -> (String, &'static str) {
        let (text, is_met) = match self {
            AtLeast(least) => (format!("≥ {least}"), value >= least),
            AtMost(most) => (format!("≤ {most}"), value <= most),
        };
        (text, if is_met { "yes" } else { "NO" })
    }
}
