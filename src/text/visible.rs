//! Texts that people see: normalizes them, and rejects characters that would disturb the text around them.

use std::{borrow::Cow, ops::RangeInclusive};

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointMapData, props::GeneralCategory};

use super::account_name::{is_bidi_control, is_default_ignorable};

/// The most nonspacing and enclosing marks in a row (UTS #39 §5.4).
const MAX_MARKS: usize = 4;

/// Reads a text of one line with [`read`]. Rejects all bidi controls: Tenant Admins read such texts before they
/// consent.
pub(super) fn line(value: &str, limits: RangeInclusive<usize>) -> Result<String, Cow<'static, str>> {
    read(value, limits, |c| is_control(c) || is_bidi_control(c))
}

/// Reads a text with [`read`]. Accepts line breaks, tabs, and the direction marks that belong to ordinary spelling.
pub(super) fn lines(value: &str, limits: RangeInclusive<usize>) -> Result<String, Cow<'static, str>> {
    read(value, limits, |c| is_control(c) && c != '\n' && c != '\t')
}

/// Trims a text, composes it (NFC), and replaces each line break with `\n`. `limits` bounds the length of the result in
/// characters. A text without visible characters becomes empty.
fn read(
    value: &str,
    limits: RangeInclusive<usize>,
    is_rejected: impl Fn(char) -> bool,
) -> Result<String, Cow<'static, str>> {
    let (min, max) = limits.into_inner();
    let wrong_length = || format!("must have {min} to {max} characters").into();
    let value = value.trim();
    // Bounds the work on oversize input. Allows four code points of four bytes for each composed character.
    if value.len() > max.saturating_mul(16) {
        return Err(wrong_length());
    }
    let value = value.replace("\r\n", "\n").replace('\r', "\n");
    let value = ComposingNormalizerBorrowed::new_nfc()
        .normalize(&value)
        .into_owned();
    let value = if value.chars().all(is_invisible) {
        String::new()
    } else {
        value
    };
    if value.is_empty() && min > 0 {
        Err("must not be empty".into())
    } else if !(min..=max).contains(&value.chars().count()) {
        Err(wrong_length())
    } else if value.chars().any(is_rejected) {
        Err("must not hold control characters".into())
    } else if has_stacked_marks(&value) {
        Err("must not hold more than four combining marks in a row".into())
    } else {
        Ok(value)
    }
}

/// Returns whether a character is a control character, a line or paragraph separator, or an embedding, override or
/// isolate of bidirectional text (UAX #9). Joiners are not among them, because ordinary spelling needs them.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// Returns whether a character is invisible: white space, default-ignorable, the blank Braille pattern, or a mark of an
/// interlinear annotation.
fn is_invisible(c: char) -> bool {
    let is_blank = matches!(c, '\u{2800}' | '\u{FFF9}'..='\u{FFFB}');
    is_blank || c.is_whitespace() || is_default_ignorable(c)
}

/// Returns whether more than [`MAX_MARKS`] marks follow each other. They would cover the lines above and below.
fn has_stacked_marks(text: &str) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new();
    let mut marks = 0;
    text.chars().any(|c| {
        let is_mark = matches!(
            category.get(c),
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark
        );
        marks = if is_mark { marks + 1 } else { 0 };
        marks > MAX_MARKS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_is_stored_in_one_form() {
        for text in ["one\r\ntwo", "one\rtwo", "one\ntwo", "\r\none\ntwo\r\n"] {
            assert_eq!(lines(text, 1..=7).as_deref(), Ok("one\ntwo"), "{text:?}");
        }
        assert_eq!(lines("one\r\r\n\ttwo", 1..=10).as_deref(), Ok("one\n\n\ttwo"));
        for text in ["one\r\ntwo", "one\rtwo", "one\ntwo", "one\u{2028}two"] {
            assert!(line(text, 1..=20).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_text_without_visible_characters_is_empty() {
        for c in ('\0'..=char::MAX).filter(|c| is_invisible(*c)) {
            for text in [c.to_string(), format!("{c} \u{200b}{c}\u{3164}")] {
                assert_eq!(line(&text, 1..=100), Err("must not be empty".into()), "{text:?}");
                assert_eq!(lines(&text, 0..=100).as_deref(), Ok(""), "{text:?}");
            }
        }
    }

    #[test]
    fn a_text_of_one_line_holds_no_bidi_control() {
        for c in ('\0'..=char::MAX).filter(|c| is_bidi_control(*c)) {
            assert!(line(&format!("a{c}b"), 1..=5).is_err(), "{c:?}");
        }
        let marked = "\u{5d0}\u{200f}!";
        assert_eq!(lines(marked, 1..=5).as_deref(), Ok(marked));
        assert!(lines("a\u{202e}b", 1..=5).is_err() && lines("a\u{2066}b", 1..=5).is_err());
    }

    #[test]
    fn texts_are_composed_and_marks_do_not_pile_up() {
        let composed = line(&"e\u{301}".repeat(6), 1..=6);
        assert_eq!(composed, Ok("\u{e9}".repeat(6)));
        let ordinary = "👨\u{200d}👩\u{200d}👧 1\u{fe0f}\u{20e3} نمی\u{200c}خواهم \u{e2}\u{323}\u{30c}";
        assert!(line(ordinary, 1..=30).is_ok());
        let marked = |mark: &str, times: usize| format!("q{}", mark.repeat(times));
        assert!(line(&marked("\u{30d}", 4), 1..=30).is_ok());
        assert!(line(&marked("\u{30d}", 5), 1..=30).is_err());
        assert!(lines(&marked("\u{489}", 5), 1..=30).is_err());
    }
}
