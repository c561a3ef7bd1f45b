//! Lifetimes of tokens.

use std::time::Duration;

/// How long tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// An access token's life; 15 minutes at most.
    pub access_token: Duration,
    /// A refresh family's absolute life.
    pub family: Duration,
    /// How long a refresh family lives after its newest token was handed out.
    pub family_idle: Duration,
}

impl Lifetimes {
    /// The longest life of an access token.
    pub const MAX_ACCESS_TOKEN: Duration = Duration::from_secs(15 * 60);
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            access_token: Duration::from_secs(5 * 60),
            family: Duration::from_secs(90 * 24 * 3600),
            family_idle: Duration::from_secs(30 * 24 * 3600),
        }
    }
}
