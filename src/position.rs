//! A position in the change feed of a database.

use std::fmt;

use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    random::Random,
    text::id::{MalformedId, text_type},
};

/// The length of a generated epoch; each character holds 5 random bits.
const EPOCH_LENGTH: usize = 10;
const EPOCH_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A position in a change feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch; numbers of different epochs can't be compared.
    pub epoch: Epoch,
    /// The number of a committed change; 0 before the first.
    pub seq: i64,
}

/// The epoch of a change feed: 1 to 10 lowercase letters and digits, chosen at random when a database is created or
/// restored from a backup.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch(ArrayString<EPOCH_LENGTH>);

impl Epoch {
    /// Generates an epoch of ten characters.
    pub fn generate(random: &dyn Random) -> Self {
        let mut bytes = [0; EPOCH_LENGTH];
        random.fill(&mut bytes);
        let mut epoch = ArrayString::new();
        for byte in bytes {
            epoch.push(char::from(EPOCH_ALPHABET[usize::from(byte & 31)]));
        }
        Self(epoch)
    }

    /// Parses an epoch.
    pub fn parse(text: &str) -> Result<Self, MalformedId> {
        let is_valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let epoch = ArrayString::from(text).ok().filter(|_| is_valid).map(Self);
        epoch.ok_or(MalformedId("1 to 10 lowercase letters and digits"))
    }
}

text_type!(Epoch);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn epochs_are_short_and_plain() {
        let generated = Epoch::generate(&crate::random::SystemRandom);
        assert_eq!(generated.as_str().len(), EPOCH_LENGTH);
        assert_eq!(Epoch::parse(generated.as_str()).unwrap(), generated);
        for good in ["a", "abcdefghij", "a234567z"] {
            assert_eq!(Epoch::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "abcdefghijk", "Abc", "a-b", "a.b", "ä"] {
            assert!(Epoch::parse(bad).is_err(), "{bad}");
        }
    }
}
