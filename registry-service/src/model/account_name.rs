//! Account names: compared in a normal form, kept as salted keyed hashes, never shown back.

use std::fmt;

use accord::{
    keys::{KeyError, Keyring},
    text::id::TenantId,
};
use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointMapData, props::GeneralCategory};
use zeroize::Zeroizing;

use crate::model::purpose;

/// Version of the rules below, kept beside each hash: other rules hash other names.
pub const RULES_VERSION: i32 = 1;
/// The longest account name, in characters.
pub const MAX_CHARS: usize = 320;

/// A text that can't be an account name. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 320 assigned Unicode characters without controls and without white space at its ends")]
pub struct NotAnAccountName;

/// An account name in normal form: NFKC and full case folding (Unicode §3.13), so that names that
/// look or are typed alike are one name.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountName(Zeroizing<String>);

/// The hash of an account name, and the version of the key that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameHash {
    /// HMAC-SHA-256 over tenant and name, each with its length in front.
    pub hash: [u8; 32],
    /// The key's version.
    pub key_version: i32,
}

impl AccountName {
    /// Reads an account name.
    ///
    /// # Errors
    /// [`NotAnAccountName`]; unassigned code points are refused since a later Unicode version may
    /// fold them to something else.
    pub fn parse(text: &str) -> Result<Self, NotAnAccountName> {
        let category = CodePointMapData::<GeneralCategory>::new();
        let refused = |c: char| {
            matches!(
                category.get(c),
                GeneralCategory::Unassigned | GeneralCategory::Control | GeneralCategory::PrivateUse
            )
        };
        let too_long = text.len() > MAX_CHARS * 4 || text.chars().count() > MAX_CHARS;
        if text.is_empty() || too_long || text.trim() != text || text.chars().any(refused) {
            return Err(NotAnAccountName);
        }
        let nfkc = ComposingNormalizerBorrowed::new_nfkc();
        let normal = Zeroizing::new(nfkc.normalize(text).into_owned());
        let folded = Zeroizing::new(CaseMapper::new().fold_string(&normal).into_owned());
        Ok(Self(Zeroizing::new(nfkc.normalize(&folded).into_owned())))
    }

    /// The hash under the current key, for a new row.
    ///
    /// # Errors
    /// When the keyring was opened without [`purpose::ACCOUNT_NAME`].
    pub fn hash(&self, keyring: &Keyring, tenant_id: &TenantId) -> Result<NameHash, KeyError> {
        let key = keyring.current(purpose::ACCOUNT_NAME)?;
        Ok(NameHash {
            hash: key.hmac(&[tenant_id.as_str().as_bytes(), self.0.as_bytes()]),
            key_version: key.version(),
        })
    }

    /// The hashes under every key that a row may still name, for a look-up.
    pub fn hashes(&self, keyring: &Keyring, tenant_id: &TenantId) -> Vec<[u8; 32]> {
        keyring
            .versions(purpose::ACCOUNT_NAME)
            .map(|key| key.hmac(&[tenant_id.as_str().as_bytes(), self.0.as_bytes()]))
            .collect()
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountName([redacted])")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_look_alike_are_one_name() {
        for (one, other) in [
            ("Ada@Firm.example", "ada@firm.example"),
            ("ａｄａ", "ada"),
            ("Straße", "STRASSE"),
            ("ﬁrm", "FIRM"),
            ("e\u{301}ric", "\u{c9}RIC"),
            ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ] {
            assert!(
                AccountName::parse(one).unwrap() == AccountName::parse(other).unwrap(),
                "{one} {other}"
            );
        }
        assert!(
            AccountName::parse("ada").unwrap() != AccountName::parse("аda").unwrap(),
            "Cyrillic is another"
        );
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            " ",
            " ada",
            "ada ",
            "a\0b",
            "a\nb",
            "\u{378}",
            "\u{e000}",
            "\u{85}",
            &"x".repeat(321),
        ] {
            assert_eq!(AccountName::parse(bad).err(), Some(NotAnAccountName), "{bad:?}");
        }
        assert!(AccountName::parse(&"ä".repeat(320)).is_ok());
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(
            format!("{:?}", AccountName::parse("ada").unwrap()),
            "AccountName([redacted])"
        );
    }
}
