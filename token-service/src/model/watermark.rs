//! The `rev` claim: the feed positions that a token was checked at, `<epoch>.<registry seq>.<token seq>`.
//!
//! The epoch joins the registry's and token-service's own, so that either database, restored, refuses
//! the tokens of its former life.

use std::fmt;

use accord::position::Position;
use tokio::time::Instant;

use crate::error::Error;

/// An answer, and the position at which it was read.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The answer.
    pub value: T,
    /// It reflects all changes of its feed up to here.
    pub position: Position,
    /// It reflects all that had been committed then: when the question was sent, or that which told that
    /// an earlier answer still holds.
    pub asked_at: Instant,
}

impl<T> At<T> {
    /// The same answer in another form.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> At<U> {
        At {
            value: form(self.value),
            position: self.position,
            asked_at: self.asked_at,
        }
    }
}

/// The positions at which a decision was made: the lowest of all that was read for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The registry's feed.
    pub registry: Position,
    /// token-service's own feed.
    pub token: Position,
}

impl Revision {
    /// Begins with the first answers.
    pub fn new(registry: Position, token: Position) -> Self {
        Self { registry, token }
    }

    /// Adds an answer of token-service's own database; the revision falls to its position if that is
    /// lower.
    ///
    /// # Errors
    /// [`Error::Store`] when the database was replaced in between.
    pub fn with_own<T>(&mut self, answer: At<T>) -> Result<T, Error> {
        if answer.position.epoch != self.token.epoch {
            return Err(Error::Unavailable);
        }
        self.token.seq = self.token.seq.min(answer.position.seq);
        Ok(answer.value)
    }

    /// Adds an answer of the registry; the revision falls to its position if that is lower.
    ///
    /// # Errors
    /// [`Error::RegistryUnavailable`] when the registry's database was replaced in between.
    pub fn with<T>(&mut self, answer: At<T>) -> Result<T, Error> {
        if answer.position.epoch != self.registry.epoch {
            return Err(Error::RegistryUnavailable);
        }
        self.registry.seq = self.registry.seq.min(answer.position.seq);
        Ok(answer.value)
    }

    fn epoch(&self) -> String {
        format!("{}-{}", self.registry.epoch, self.token.epoch)
    }

    /// Reads a `rev` claim of these databases' present epochs; `None` for any other.
    pub fn parse_claim(&self, claim: &str) -> Option<Claimed> {
        let mut parts = claim.split('.');
        let (epoch, registry, token) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || epoch != self.epoch() {
            return None;
        }
        Some(Claimed {
            registry_seq: registry.parse().ok()?,
            token_seq: token.parse().ok()?,
        })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch(), self.registry.seq, self.token.seq)
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

    fn position(epoch: &str, seq: i64) -> Position {
        Position {
            epoch: accord::testing::epoch(epoch),
            seq,
        }
    }

    #[test]
    fn a_claim_reads_back_in_its_own_epochs_only() {
        let revision = Revision::new(position("aa", 7), position("bb", 9));
        let claim = revision.to_string();
        assert_eq!(claim, "aa-bb.7.9");
        let expected = Claimed {
            registry_seq: 7,
            token_seq: 9,
        };
        let later = Revision::new(position("aa", 70), position("bb", 90));
        assert_eq!(later.parse_claim(&claim), Some(expected));
        for other in [
            Revision::new(position("ab", 7), position("bb", 9)),
            Revision::new(position("aa", 7), position("bc", 9)),
        ] {
            assert_eq!(other.parse_claim(&claim), None);
        }
        for bad in ["", "aa-bb", "aa-bb.7", "aa-bb.7.9.1", "aa-bb.x.9", "aa-bb.7."] {
            assert_eq!(revision.parse_claim(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_lowest_position_counts_and_a_new_epoch_stops_everything() {
        let mut revision = Revision::new(position("aa", 7), position("bb", 9));
        let at = |epoch, seq| At {
            value: (),
            position: position(epoch, seq),
            asked_at: tokio::time::Instant::now(),
        };
        revision.with(at("aa", 5)).unwrap();
        revision.with(at("aa", 6)).unwrap();
        revision.with_own(at("bb", 12)).unwrap();
        revision.with_own(at("bb", 8)).unwrap();
        assert_eq!((revision.registry.seq, revision.token.seq), (5, 8));
        assert!(revision.with(at("other", 9)).is_err());
        assert!(revision.with_own(at("aa", 9)).is_err());
    }
}
