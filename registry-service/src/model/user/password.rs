//! Passwords of Tenant Admins: their form, and the rules against passwords that are easy to guess.

use accord::text::account_name::AccountName;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointMapData, props::GeneralCategory};
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

/// The shortest password, in characters.
pub const MIN_CHARS: usize = 15;
/// The longest password, in characters.
pub const MAX_CHARS: usize = 1024;
/// The longest text that is read, in bytes. A composed character comes from a few code points of up to four bytes each.
const MAX_BYTES: usize = MAX_CHARS * 16;
/// The longest password whose strength is estimated, in characters; also how far an account name is searched for. It
/// bounds the time that both take. No list of common passwords has a longer one.
const MAX_CHECKED_CHARS: usize = 64;
/// The shortest account name that a password must not contain, in characters.
const MIN_NAME_CHARS: usize = 4;

/// The error for a text that can't be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 15 to 1024 characters, all of them assigned in Unicode")]
pub struct NotAPassword;

/// Why a password is too easy to guess. Each message completes a sentence that begins with "the password".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weakness {
    /// It is common, or follows a pattern.
    #[error(
        "must be harder to guess: common passwords, repetitions, sequences, and the names of the \
         organisation and the product are tried first"
    )]
    Common,
    /// It contains the account name.
    #[error("must not contain the account name")]
    AccountName,
}

/// A password as it is hashed. Maps every space to U+0020 and composes characters (NFC), like the profile OpaqueString
/// (RFC 8265 §4.2.2), so that every keyboard gives the same password. Unlike the profile, allows control characters.
#[derive(derive_more::Debug)]
#[debug("Password([redacted])")]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Reads a password.
    ///
    /// # Errors
    /// [`NotAPassword`], also for unassigned code points, because a later version of Unicode may compose them.
    pub fn parse(text: &str) -> Result<Self, NotAPassword> {
        if text.len() > MAX_BYTES {
            return Err(NotAPassword);
        }
        let category = CodePointMapData::<GeneralCategory>::new();
        let mut spaced = Zeroizing::new(String::with_capacity(MAX_BYTES));
        for c in text.chars() {
            match category.get(c) {
                GeneralCategory::Unassigned => return Err(NotAPassword),
                GeneralCategory::SpaceSeparator => spaced.push(' '),
                _ => spaced.push(c),
            }
        }
        let composed = ComposingNormalizerBorrowed::new_nfc().normalize(&spaced);
        let password = Self(Zeroizing::new(composed.into_owned()));
        let fits = (MIN_CHARS..=MAX_CHARS).contains(&password.0.chars().count());
        fits.then_some(password).ok_or(NotAPassword)
    }

    /// Returns the bytes that are hashed.
    pub fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.as_bytes().to_vec())
    }

    /// Rejects a password whose first 64 characters contain the account name, or take less than a million guesses: they
    /// are common, or consist of `words`, repetitions, sequences and the like. `is_account_name` returns whether a text in
    /// normal form is the user's account name. Blocks for up to a few tenths of a second.
    ///
    /// # Errors
    /// [`Weakness`].
    pub fn require_strong(
        &self,
        words: &[&str],
        is_account_name: impl Fn(&str) -> bool,
    ) -> Result<(), Weakness> {
        let head = self.0.char_indices().nth(MAX_CHECKED_CHARS);
        let head = head.map_or(self.0.as_str(), |(end, _)| &self.0[..end]);
        if contains(head, is_account_name) {
            return Err(Weakness::AccountName);
        }
        if zxcvbn(head, words).score() < Score::Two {
            return Err(Weakness::Common);
        }
        Ok(())
    }
}

/// Returns whether a part of the text is the account name. Tries each part, because only a keyed hash of the name is
/// known.
fn contains(text: &str, is_account_name: impl Fn(&str) -> bool) -> bool {
    AccountName::normal_parts(text).any(|normal| {
        // A longer part has characters that stand for many others, and bounds the work.
        let starts = || normal.char_indices().take(MAX_CHARS);
        let ends = || starts().map(|(at, c)| at + c.len_utf8());
        starts().enumerate().any(|(index, (start, _))| {
            ends()
                .skip(index + MIN_NAME_CHARS - 1)
                .any(|end| is_account_name(&normal[start..end]))
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(text: &str) -> Option<Zeroizing<Vec<u8>>> {
        Password::parse(text).ok().map(|password| password.bytes())
    }

    #[test]
    fn passwords_are_counted_in_characters() {
        for (text, is_password) in [
            ("ä".repeat(15), true),
            ("a\u{308}".repeat(15), true),
            ("ä".repeat(1024), true),
            ("a\u{308}".repeat(1024), true),
            ("𝒳".repeat(1024), true),
            ("spaces and \0 count too".to_owned(), true),
            (" ".repeat(15), true),
            ("ä".repeat(14), false),
            ("a\u{308}".repeat(14), false),
            ("ä".repeat(1025), false),
            ("x".repeat(1_000_000), false),
            (format!("{}\u{378}", "x".repeat(20)), false),
            (String::new(), false),
        ] {
            assert_eq!(
                bytes(&text).is_some(),
                is_password,
                "{} {text:.20}",
                text.chars().count()
            );
        }
    }

    #[test]
    fn a_password_is_the_same_on_every_keyboard() {
        for (one, other) in [
            ("caf\u{e9} au lait, 2 sucres", "cafe\u{301} au lait, 2 sucres"),
            ("\u{1100}\u{1161}, fifteen and more", "\u{ac00}, fifteen and more"),
            ("words with\u{a0}a space", "words with a space"),
            ("words with\u{3000}a space", "words with a space"),
        ] {
            assert!(
                bytes(one).is_some() && bytes(one) == bytes(other),
                "{one} {other}"
            );
        }
        for (one, other) in [
            ("words with a space", "words with  a space"),
            (" words with a space", "words with a space"),
            ("words with a space", "Words with a space"),
            ("words with a space\n", "words with a space"),
            ("ﬁfteen characters", "fifteen characters"),
            ("fifteen charac\u{200d}ters", "fifteen characters"),
        ] {
            assert_ne!(bytes(one), bytes(other), "{one} {other}");
        }
    }

    fn strong(text: &str) -> Result<(), Weakness> {
        let words = ["firm-one", "Firm One Ltd", "Firm", "Accord"];
        let password = Password::parse(text).unwrap();
        password.require_strong(&words, |name| name == "ada@firm.example")
    }

    #[test]
    fn what_a_guesser_tries_first_is_refused() {
        for weak in [
            "passwordpassword",
            "Password12345678",
            "P@ssw0rd12345678",
            "123456789012345",
            "111111111111111",
            "qwertyuiopasdfgh",
            "abcdefghijklmnopqrstuvwxyz",
            "iloveyouiloveyou",
            "               ",
            "\u{3000}\u{3000}              ",
            "accordaccordaccord",
            "firm-onefirm-one",
            &"x".repeat(64),
            &"x".repeat(65),
            &"𝒳".repeat(1024),
        ] {
            assert_eq!(strong(weak), Err(Weakness::Common), "{weak}");
        }
        for with_name in [
            "ada@firm.example",
            "ADA@Firm.Example",
            "xK9$ada@firm.example",
            "my name is ａｄａ@firm.example, and I like long passwords",
            "ada\u{200b}@firm.example and some more words",
            "ada@firm.example\0 and some more words",
            "\u{e000}\u{fffd}ada@firm.example\u{202e} and more",
        ] {
            assert_eq!(strong(with_name), Err(Weakness::AccountName), "{with_name}");
        }
        for good in [
            "a long enough password",
            "correct horse battery staple",
            "firm-one, three unrelated words",
            "kJ8#vQ2!mZ5&xR7",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "четыре слова подряд тут",
            &"four unrelated words here ".repeat(39),
        ] {
            assert_eq!(strong(good), Ok(()), "{good:.20}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let password = Password::parse("a long enough password").unwrap();
        assert_eq!(format!("{password:?}"), "Password([redacted])");
    }
}
