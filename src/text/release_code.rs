//! Release codes: a link opens only together with its code, which reaches the recipient another way, such as by telephone.

use zeroize::Zeroizing;

use crate::random::Random;

/// Characters of a code. Each holds five bits, so that a guess is right once in 2^40.
const LENGTH: usize = 8;
/// Crockford's Base32: digits and letters that are not mistaken for one another.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The error for a text that does not have the form of a release code. It tells nothing about any link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a release code of eight letters and digits, such as 7KQ2-M9XD")]
pub struct MalformedReleaseCode;

/// A release code, in capital letters and without its hyphen.
#[derive(Clone, derive_more::Debug)]
#[debug("ReleaseCode([redacted])")]
pub struct ReleaseCode(Zeroizing<String>);

impl ReleaseCode {
    /// Generates a code of 40 random bits.
    pub fn generate(random: &dyn Random) -> Self {
        let mut bits = Zeroizing::new([0; 8]);
        random.fill(&mut bits[3..]);
        let number = u64::from_be_bytes(*bits);
        let digit = |at: usize| char::from(ALPHABET[(number >> (5 * at) & 31) as usize]);
        Self(Zeroizing::new((0..LENGTH).rev().map(digit).collect()))
    }

    /// Parses what a person typed: capital or small letters, with or without hyphens and spaces, O for 0, I and L for 1.
    pub fn parse(text: &str) -> Result<Self, MalformedReleaseCode> {
        let mut code = Zeroizing::new(String::with_capacity(LENGTH));
        for character in text.chars().filter(|c| *c != '-' && !c.is_whitespace()) {
            let character = match character.to_ascii_uppercase() {
                'O' => '0',
                'I' | 'L' => '1',
                other => other,
            };
            let is_known = ALPHABET.iter().any(|known| char::from(*known) == character);
            if !is_known || code.len() == LENGTH {
                return Err(MalformedReleaseCode);
            }
            code.push(character);
        }
        match code.len() {
            LENGTH => Ok(Self(code)),
            _ => Err(MalformedReleaseCode),
        }
    }

    /// Returns the code, without a hyphen.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the code as people pass it on: two groups of four, with a hyphen.
    pub fn grouped(&self) -> Zeroizing<String> {
        let (one, other) = self.0.split_at(LENGTH / 2);
        Zeroizing::new(format!("{one}-{other}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for typed in ["10K0-M9XD", "10k0m9xd", " iOKo m9xd ", "L0-K0-M9-XD"] {
            assert_eq!(ReleaseCode::parse(typed).unwrap().expose(), "10K0M9XD", "{typed}");
        }
        for bad in [
            "",
            "10K0-M9X",
            "10K0-M9XDD",
            "10K0-M9XU",
            "10K0-M9X\u{301}",
            "10K0_M9XD",
        ] {
            assert!(ReleaseCode::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn generated_codes_use_every_character_at_every_place() {
        let mut seen = vec![BTreeSet::new(); LENGTH];
        for _ in 0..2_000 {
            let code = ReleaseCode::generate(&SystemRandom);
            let again = ReleaseCode::parse(&code.grouped()).unwrap();
            assert_eq!(again.expose(), code.expose());
            for (place, character) in code.expose().chars().enumerate() {
                seen[place].insert(character);
            }
        }
        assert!(seen.iter().all(|characters| characters.len() == 32));
    }

    #[test]
    fn debug_shows_no_code() {
        let code = ReleaseCode::parse("7KQ2-M9XD").unwrap();
        assert_eq!(format!("{code:?}"), "ReleaseCode([redacted])");
    }
}
