//! Account names in the normal form by which they are compared.
//!
//! The registry stores a keyed hash of the normal form, and token-service counts failed sign-ins by it. So both
//! services agree on which spellings name the same account.

use icu_casemap::{CaseMapper, CaseMapperBorrowed};
use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{BidiControl, DefaultIgnorableCodePoint, GeneralCategory},
};
use zeroize::Zeroizing;

/// The version of the rules below. It is stored with each hash, because a change of the rules changes the hashes.
pub const RULES_VERSION: i32 = 1;
/// The longest account name, in characters of its normal form.
pub const MAX_CHARS: usize = 320;

/// The error for a text that can't be an account name. It does not hold the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to 320 visible, assigned Unicode characters without controls, line breaks and marks of writing direction"
)]
pub struct NotAnAccountName;

/// An account name in normal form: NFKC_Casefold (Unicode 3.13, R5), without white space at its ends. The mapping
/// removes default-ignorable code points, so that two names never differ only in invisible characters.
#[derive(Clone, derive_more::Debug, Eq, PartialEq)]
#[debug("AccountName([redacted])")]
pub struct AccountName(Zeroizing<String>);

impl AccountName {
    /// Reads an account name.
    ///
    /// # Errors
    /// [`NotAnAccountName`]. Private-use code points are rejected, and so are unassigned ones, because a later version
    /// of Unicode may map them to something else.
    pub fn parse(text: &str) -> Result<Self, NotAnAccountName> {
        let mapping = Mapping::new();
        let text = text.trim_matches(|c: char| c.is_whitespace() || mapping.removes(c));
        // Bounds the work on oversize input. A decomposed character can take more bytes than its composed form.
        if text.len() > MAX_CHARS * 16 || text.chars().any(is_rejected) {
            return Err(NotAnAccountName);
        }
        let name = mapping.normal_form(text);
        if name.is_empty() || name.chars().count() > MAX_CHARS {
            return Err(NotAnAccountName);
        }
        Ok(Self(name))
    }

    /// Returns the normal forms of the parts of a text that lie between characters that no account name holds.
    pub fn normal_parts(text: &str) -> impl Iterator<Item = Zeroizing<String>> {
        text.split(is_rejected)
            .map(|part| Mapping::new().normal_form(part))
    }

    /// Returns the normal form, which is personal data.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn is_rejected(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    // Decoders replace invalid bytes with U+FFFD, so different names would become equal.
    is_bidi_control(c)
        || c == char::REPLACEMENT_CHARACTER
        || matches!(
            category,
            GeneralCategory::Unassigned
                | GeneralCategory::Control
                | GeneralCategory::PrivateUse
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
        )
}

/// Returns whether a character changes the direction of text (UAX #9).
pub(super) fn is_bidi_control(c: char) -> bool {
    CodePointSetData::new::<BidiControl>().contains(c)
}

/// Returns whether a character is default-ignorable (UAX #44), such as a joiner, a variation selector or a filler.
/// Programs that don't support it show nothing.
pub(super) fn is_default_ignorable(c: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// The Unicode data that NFKC_Casefold needs.
struct Mapping {
    nfc: ComposingNormalizerBorrowed<'static>,
    nfkc: ComposingNormalizerBorrowed<'static>,
    case: CaseMapperBorrowed<'static>,
}

impl Mapping {
    const fn new() -> Self {
        Self {
            nfc: ComposingNormalizerBorrowed::new_nfc(),
            nfkc: ComposingNormalizerBorrowed::new_nfkc(),
            case: CaseMapper::new(),
        }
    }

    /// Returns whether the mapping removes a character. Bidi controls are rejected instead.
    fn removes(&self, c: char) -> bool {
        is_default_ignorable(c) && !is_bidi_control(c)
    }

    /// Maps each character, composes the result, and trims it, because some characters map to a space with a mark.
    fn normal_form(&self, text: &str) -> Zeroizing<String> {
        let mut mapped = Zeroizing::new(String::with_capacity(text.len()));
        for c in text.chars() {
            mapped.push_str(&self.map(c));
        }
        let mapped = Zeroizing::new(self.nfc.normalize(&mapped).into_owned());
        Zeroizing::new(mapped.trim().to_owned())
    }

    /// Maps one character to its NFKC_CF as the Unicode Character Database defines it: repeats the steps until the
    /// result no longer changes.
    fn map(&self, c: char) -> Zeroizing<String> {
        let mut text = Zeroizing::new(c.to_string());
        loop {
            text.retain(|c| !self.removes(c));
            let folded = Zeroizing::new(self.case.fold_string(&text).into_owned());
            let next = Zeroizing::new(self.nfkc.normalize(&folded).into_owned());
            if next == text {
                return text;
            }
            text = next;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use icu_normalizer::DecomposingNormalizerBorrowed;
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Option<String> {
        AccountName::parse(text).ok().map(|name| name.expose().to_owned())
    }

    /// Every code point that a name may hold.
    fn accepted() -> impl Iterator<Item = char> {
        ('\0'..=char::MAX).filter(|c| !is_rejected(*c))
    }

    #[test]
    fn names_that_look_alike_are_equal() {
        for (one, other) in [
            ("Ada@Firm.example", "ada@firm.example"),
            ("ａｄａ＠firm．example", "ada@firm.example"),
            ("Straße", "STRASSE"),
            ("STRA\u{1e9e}E", "strasse"),
            ("ﬁrm", "FIRM"),
            ("e\u{301}ric", "\u{c9}RIC"),
            ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
            ("i\u{307}stanbul", "\u{130}STANBUL"),
            ("ada\u{200b}@firm.example", "ada@firm.example"),
            ("\u{feff}ada", "ada"),
            ("a\u{ad}d\u{2060}a\u{fe0f}", "ada"),
            ("x\u{e0061}\u{3164}\u{180e}", "x"),
            ("ada king", "ada\u{a0}king"),
        ] {
            assert!(name(one).is_some() && name(one) == name(other), "{one} {other}");
        }
        for (one, other) in [("ada", "аda"), ("ali", "alı"), ("a-b", "a\u{2010}b")] {
            assert!(name(one).is_some() && name(one) != name(other), "{one} {other}");
        }
    }

    #[test]
    fn white_space_at_the_ends_is_trimmed() {
        for c in ('\0'..=char::MAX)
            .filter(|c| c.is_whitespace() || (is_default_ignorable(*c) && !is_bidi_control(*c)))
        {
            for text in [
                format!("{c}ada"),
                format!("ada{c}"),
                format!("\u{200b}\t{c} ada \u{feff}\n{c}"),
            ] {
                assert_eq!(name(&text).as_deref(), Some("ada"), "{c:?}");
            }
        }
        assert_eq!(
            name("\u{a8}ada"),
            name("\u{308}ada"),
            "a leading space that the mapping adds is trimmed too"
        );
    }

    #[test]
    fn invalid_names_are_rejected() {
        let (long, marks) = ("x".repeat(321), "\u{301}".repeat(1000));
        let expands = "\u{fdfa}".repeat(320);
        for bad in [
            "",
            " ",
            "\u{200b}",
            "\u{3164} \u{fe0f}",
            "a\0b",
            "a\nb",
            "a\u{85}b",
            "a\u{2028}b",
            "\u{378}",
            "\u{e000}",
            "\u{fffff}",
            "\u{fdd0}",
            "a\u{fffd}b",
            "a\u{200e}b",
            "\u{202e}ada",
            "ada\u{61c}",
            "a\u{2066}b\u{2069}",
            &long,
            &marks,
            &expands,
        ] {
            assert_eq!(AccountName::parse(bad).err(), Some(NotAnAccountName), "{bad:?}");
        }
        assert!(name(&"ä".repeat(320)).is_some() && name(&"𝒳".repeat(320)).is_some());
        for (composed, decomposed) in [("각", "\u{1100}\u{1161}\u{11a8}"), ("ệ", "e\u{323}\u{302}")] {
            let (composed, decomposed) = (name(&composed.repeat(320)), name(&decomposed.repeat(320)));
            assert!(composed.is_some() && composed == decomposed);
        }
    }

    #[test]
    fn bidi_controls_are_rejected_anywhere() {
        for c in ('\0'..=char::MAX).filter(|c| is_bidi_control(*c)) {
            for text in [
                format!("{c}ada"),
                format!("a{c}da"),
                format!("ada{c}"),
                c.to_string(),
            ] {
                assert_eq!(name(&text), None, "{c:?}");
            }
        }
    }

    #[test]
    fn normalizing_any_code_point_twice_changes_nothing() {
        for c in accepted() {
            if let Some(normal) = name(&format!("a{c}b")) {
                assert_eq!(name(&normal).as_ref(), Some(&normal), "{c:?}");
            }
        }
    }

    /// Names that differ only in canonical or compatibility form, case or invisible characters are equal.
    #[test]
    fn every_form_of_a_code_point_is_the_same_name() {
        let (mapping, nfkd) = (Mapping::new(), DecomposingNormalizerBorrowed::new_nfkd());
        for c in accepted() {
            let text = format!("a{c}b");
            let expected = name(&text);
            let forms = [
                nfkd.normalize(&text),
                mapping.nfc.normalize(&text),
                mapping.case.fold_string(&text),
            ];
            for form in forms.iter().filter(|form| **form != text) {
                assert_eq!(name(form), expected, "{c:?} {form:?}");
            }
            assert_eq!(name(&format!("a\u{200d}{c}\u{2060}b")), expected, "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(text in "\\PC{1,12}|[\\p{M}\\p{L}\\p{Cf}\\p{Z}]{1,12}") {
            if let Some(normal) = name(&text) {
                prop_assert_eq!(name(&normal), Some(normal));
            }
        }

        #[test]
        fn invisible_characters_and_surrounding_white_space_change_no_name(
            text in "[\\p{L}\\p{M}\\p{N}\\p{P}]{1,8}",
            at in 0_usize..8,
            invisible in "[\u{200b}-\u{200d}\u{ad}\u{34f}\u{2060}\u{feff}\u{3164}\u{fe00}-\u{fe0f}\u{e0100}]{1,3}",
            around in "[\t\n \u{85}\u{a0}\u{1680}\u{2003}\u{202f}\u{3000}\u{200b}]{0,3}",
        ) {
            let mut with: Vec<char> = text.chars().collect();
            let invisible = invisible.chars();
            let at = at.min(with.len());
            with.splice(at..at, invisible);
            let with: String = with.into_iter().collect();
            prop_assert_eq!(name(&format!("{around}{with}{around}")), name(&text));
        }
    }

    #[test]
    fn debug_shows_nothing() {
        let name = AccountName::parse("ada").unwrap();
        assert_eq!(format!("{name:?}"), "AccountName([redacted])");
    }
}
