//! The `rev` claim: the feed positions that a token was checked at, `<epoch>.<registry seq>.<token seq>`.
//!
//! The epoch joins those of the registry and of token-service, so that a restore of either database ends every older
//! token.

use std::{fmt, time::Duration};

use accord::position::Position;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// How long an answer counts, from the moment its request was sent. `--registry-stale-max` adds to it for the
/// registry's answers.
pub const LEASE: Duration = Duration::from_millis(700);
/// How often a decision is made before it fails because its answers are too old or something changed meanwhile.
pub const ATTEMPTS: usize = 3;

/// An answer of a source, and how current it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf<T> {
    /// The answer.
    pub value: T,
    /// It reflects every change of its feed up to here.
    pub position: Position,
    /// It reflects everything that was committed before this moment of the monotonic clock.
    pub sent_at: Instant,
}

impl<T> AsOf<T> {
    /// Changes the answer alone.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> AsOf<U> {
        AsOf {
            value: change(self.value),
            position: self.position,
            sent_at: self.sent_at,
        }
    }

    /// Separates the answer from how current it is.
    pub fn split(self) -> (T, AsOf<()>) {
        let as_of = AsOf {
            value: (),
            position: self.position,
            sent_at: self.sent_at,
        };
        (self.value, as_of)
    }

    /// Lowers this to another answer of the same source, if that is older. Returns `None` if the source was replaced
    /// in between, because positions of different epochs can't be compared.
    pub fn lower_to<U>(&mut self, answer: AsOf<U>) -> Option<U> {
        if answer.position.epoch != self.position.epoch {
            return None;
        }
        self.position.seq = self.position.seq.min(answer.position.seq);
        self.sent_at = self.sent_at.min(answer.sent_at);
        Some(answer.value)
    }
}

/// How current a decision is: of each source the lowest position, and the earliest request, of all that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The registry.
    pub registry: AsOf<()>,
    /// token-service's own database.
    pub own: AsOf<()>,
}

impl Watermark {
    /// Adds an answer of the registry.
    pub fn include_registry<T>(&mut self, answer: AsOf<T>) -> Result<T> {
        self.registry.lower_to(answer).ok_or(Error::RegistryUnavailable)
    }

    /// Adds an answer of token-service's own database.
    pub fn include_own<T>(&mut self, answer: AsOf<T>) -> Result<T> {
        self.own.lower_to(answer).ok_or(Error::Unavailable)
    }

    /// Returns whether every answer still counts.
    pub fn is_current(&self, registry_lease: Duration) -> bool {
        self.registry.sent_at.elapsed() <= registry_lease && self.own.sent_at.elapsed() <= LEASE
    }

    /// Reads a `rev` claim. Returns `None` unless it is of the present epochs of both databases.
    pub fn parse_claim(&self, claim: &str) -> Option<Claimed> {
        let (registry, own) = (&self.registry.position.epoch, &self.own.position.epoch);
        let rest = claim.strip_prefix(registry.as_str())?.strip_prefix('-')?;
        let seqs = rest.strip_prefix(own.as_str())?.strip_prefix('.')?;
        let (registry_seq, token_seq) = seqs.split_once('.')?;
        Some(Claimed {
            registry_seq: registry_seq.parse().ok()?,
            token_seq: token_seq.parse().ok()?,
        })
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (registry, own) = (&self.registry.position, &self.own.position);
        write!(f, "{}-{}.{}.{}", registry.epoch, own.epoch, registry.seq, own.seq)
    }
}

/// The positions of a `rev` claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// In the registry's feed.
    pub registry_seq: i64,
    /// In token-service's own.
    pub token_seq: i64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(epoch: &str, seq: i64) -> AsOf<()> {
        AsOf {
            value: (),
            position: Position {
                epoch: accord::testing::epoch(epoch),
                seq,
            },
            sent_at: Instant::now(),
        }
    }

    fn watermark(registry: (&str, i64), own: (&str, i64)) -> Watermark {
        Watermark {
            registry: at(registry.0, registry.1),
            own: at(own.0, own.1),
        }
    }

    #[test]
    fn a_claim_reads_back_in_its_own_epochs_only() {
        let first = watermark(("aa", 7), ("bb", 9));
        let claim = first.to_string();
        assert_eq!(claim, "aa-bb.7.9");
        let expected = Claimed {
            registry_seq: 7,
            token_seq: 9,
        };
        assert_eq!(
            watermark(("aa", 70), ("bb", 90)).parse_claim(&claim),
            Some(expected)
        );
        for other in [watermark(("ab", 7), ("bb", 9)), watermark(("aa", 7), ("bc", 9))] {
            assert_eq!(other.parse_claim(&claim), None);
        }
        for bad in ["", "aa-bb", "aa-bb.7", "aa-bb.7.9.1", "aa-bb.x.9", "aa-bb.7."] {
            assert_eq!(first.parse_claim(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lowest_position_and_the_earliest_question_count() {
        let older = at("aa", 6);
        tokio::time::advance(Duration::from_millis(100)).await;
        let mut watermark = watermark(("aa", 7), ("bb", 9));
        watermark.include_registry(at("aa", 5)).unwrap();
        watermark.include_registry(older).unwrap();
        watermark.include_own(at("bb", 12)).unwrap();
        watermark.include_own(at("bb", 8)).unwrap();
        assert_eq!(watermark.to_string(), "aa-bb.5.8");
        assert!(
            watermark.include_registry(at("other", 9)).is_err()
                && watermark.include_own(at("aa", 9)).is_err()
        );

        tokio::time::advance(LEASE - Duration::from_millis(100)).await;
        assert!(watermark.is_current(LEASE));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!watermark.is_current(LEASE), "the registry's answer is too old");
        assert!(watermark.is_current(LEASE * 2), "unless it may be stale");
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(!watermark.is_current(LEASE * 2), "this database's may not");
    }
}
