//! Account names: compared in a normal form, stored as keyed hashes, never shown again.

use accord::{
    keys::{DataKey, KeyError, Keyring},
    text::id::TenantId,
};
use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointMapData, props::GeneralCategory};
use zeroize::Zeroizing;

use crate::model::purpose;

/// The version of the rules below. Each row holds it, because other rules give other hashes.
pub const RULES_VERSION: i32 = 1;
/// The longest account name, in characters.
pub const MAX_CHARS: usize = 320;

/// The error for a text that can't be an account name. It does not hold the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 320 assigned Unicode characters without controls and without white space at its ends")]
pub struct NotAnAccountName;

/// An account name in normal form: NFKC and full case folding (Unicode §3.13), so that names that look alike are
/// equal.
#[derive(Clone, derive_more::Debug, Eq, PartialEq)]
#[debug("AccountName([redacted])")]
pub struct AccountName(Zeroizing<String>);

impl AccountName {
    /// Reads an account name.
    ///
    /// # Errors
    /// [`NotAnAccountName`], also for unassigned code points, which a later version of Unicode may fold.
    pub fn parse(text: &str) -> Result<Self, NotAnAccountName> {
        let category = CodePointMapData::<GeneralCategory>::new();
        let is_rejected = |c: char| {
            matches!(
                category.get(c),
                GeneralCategory::Unassigned | GeneralCategory::Control | GeneralCategory::PrivateUse
            )
        };
        let too_long = text.len() > MAX_CHARS * 4 || text.chars().count() > MAX_CHARS;
        if text.is_empty() || too_long || text.trim() != text || text.chars().any(is_rejected) {
            return Err(NotAnAccountName);
        }
        let nfkc = ComposingNormalizerBorrowed::new_nfkc();
        let normal = Zeroizing::new(nfkc.normalize(text).into_owned());
        let folded = Zeroizing::new(CaseMapper::new().fold_string(&normal).into_owned());
        Ok(Self(Zeroizing::new(nfkc.normalize(&folded).into_owned())))
    }

    /// Returns the name's hash under the current key, and the version of that key. The hash is HMAC-SHA-256 over the
    /// tenant and the name, each preceded by its length.
    pub fn hash(&self, keyring: &Keyring, tenant_id: &TenantId) -> Result<([u8; 32], i32), KeyError> {
        let key = keyring.current(purpose::ACCOUNT_NAME)?;
        Ok((self.hash_under(key, tenant_id), key.version()))
    }

    /// Returns the name's hash under each key that a row may name, for a look-up.
    pub fn hashes(&self, keyring: &Keyring, tenant_id: &TenantId) -> Vec<[u8; 32]> {
        let keys = keyring.versions(purpose::ACCOUNT_NAME);
        keys.map(|key| self.hash_under(key, tenant_id)).collect()
    }

    fn hash_under(&self, key: &DataKey, tenant_id: &TenantId) -> [u8; 32] {
        key.hmac(&[tenant_id.as_str().as_bytes(), self.0.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_look_alike_are_equal() {
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
    fn a_text_that_is_no_name_is_rejected() {
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
