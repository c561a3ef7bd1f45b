//! Checks of single fields. They collect every violation of a message instead of stopping at the first. Rules
//! that need other records are not here.

use std::{cell::RefCell, collections::HashSet, fmt::Display, hash::Hash, ops::RangeInclusive};

use prost_types::Timestamp;
use uuid::Uuid;

use super::{uri, visible};
use crate::clock::UnixMillis;

/// One field that breaks its rule. Neither part holds the field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `scopes[2].reason`.
    pub field: String,
    /// The rule, to be read after the words "the field".
    pub description: String,
}

/// The violations of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<FieldViolation>);

tokio::task_local! {
    /// What decoding the message of the current call has found.
    static DECODED: RefCell<Violations>;
}

/// Runs a call, so that [`Violations::with_the_others`] works in it.
pub fn scope<F: Future>(call: F) -> impl Future<Output = F::Output> {
    DECODED.scope(RefCell::default(), call)
}

/// Converts between an enum of the model and one of a message, variant by variant. A number of the message that
/// is no variant of the model, UNSPECIFIED among them, converts to an error.
#[macro_export]
macro_rules! message_enum {
    ($model:ident = $message:ty { $($variant:ident),+ $(,)? }) => {
        impl From<$model> for $message {
            fn from(value: $model) -> Self {
                match value {
                    $($model::$variant => Self::$variant,)+
                }
            }
        }
        impl TryFrom<$message> for $model {
            type Error = ();
            fn try_from(value: $message) -> Result<Self, ()> {
                match value {
                    $(<$message>::$variant => Ok(Self::$variant),)+
                    _ => Err(()),
                }
            }
        }
    };
}

/// The violation of an element that a list contains twice.
pub const REPEATED: &str = "must be different from those before it";

/// Returns the value of a parsed field, or its violation. For messages in which no other field can be malformed.
///
/// # Errors
/// The violation.
pub fn only_field<T, E: Display>(name: &str, result: Result<T, E>) -> Result<T, Violations> {
    let mut v = Violations::default();
    let value = v.check(name, result);
    v.finish(|| value)
}

/// Returns the path of an element of a repeated field: `scopes[2]`.
pub fn list_field(field: &str, index: usize) -> String {
    format!("{field}[{index}]")
}

impl Violations {
    /// Returns a single violation.
    pub fn of(field: impl Into<String>, description: impl Into<String>) -> Self {
        let mut violations = Self::default();
        violations.add(field, description);
        violations
    }

    /// Records a violation.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation {
            field: field.into(),
            description: description.into(),
        });
    }

    /// Appends the violations of another check.
    pub fn extend(&mut self, others: Violations) {
        self.0.extend(others.0);
    }

    /// Reads a list of different elements, whose number is within `limits`. Returns those that `read` accepts, with
    /// their indexes.
    pub fn distinct<E, T: Clone + Eq + Hash>(
        &mut self,
        field: &str,
        list: &[E],
        limits: RangeInclusive<usize>,
        read: impl Fn(&mut Self, &str, &E) -> Option<T>,
    ) -> Vec<(usize, T)> {
        let (mut seen, mut values) = (HashSet::new(), Vec::new());
        for (index, element) in self.bounded_list(field, list, limits) {
            let field = list_field(field, index);
            let Some(value) = read(self, &field, element) else {
                continue;
            };
            if seen.insert(value.clone()) {
                values.push((index, value));
            } else {
                self.add(field, REPEATED);
            }
        }
        values
    }

    /// Returns the elements of a list up to the upper limit, with their indexes. Records a violation if the number of
    /// all is not within `limits`.
    pub fn bounded_list<'a, E>(
        &mut self,
        field: &str,
        list: &'a [E],
        limits: RangeInclusive<usize>,
    ) -> impl Iterator<Item = (usize, &'a E)> + use<'a, E> {
        if !limits.contains(&list.len()) {
            let rule = format!("must have {} to {} elements", limits.start(), limits.end());
            self.add(field, rule);
        }
        list.iter().take(*limits.end()).enumerate()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the violations in the order in which they were recorded.
    pub fn into_vec(self) -> Vec<FieldViolation> {
        self.0
    }

    /// Iterates over the violations in the order in which they were recorded.
    pub fn iter(&self) -> impl Iterator<Item = &FieldViolation> {
        self.0.iter()
    }

    /// Leaves these to the first [`Self::finish`] of this call, which rejects the message with all its violations.
    ///
    /// # Errors
    /// The violations, outside of a call.
    pub fn with_the_others(self) -> Result<(), Self> {
        let left = DECODED.try_with(|decoded| decoded.borrow_mut().0.extend_from_slice(&self.0));
        left.map_err(|_outside| self)
    }

    /// Returns the value that `build` makes from the parsed fields, or all violations if there are any. `build`
    /// returns `None` for a field that could not be parsed.
    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        let mut all = DECODED.try_with(RefCell::take).unwrap_or_default();
        all.extend(self);
        match build() {
            Some(value) if all.is_empty() => Ok(value),
            _ => Err(all),
        }
    }

    /// Parses an enum field that filters a list: `Some(None)` for UNSPECIFIED, which filters nothing. `M` is the message's enum, `T`
    /// the model's.
    pub fn filter<M: TryFrom<i32>, T: TryFrom<M>>(&mut self, field: &str, number: i32) -> Option<Option<T>> {
        match number {
            0 => Some(None),
            number => {
                let known = M::try_from(number).ok().and_then(|known| T::try_from(known).ok());
                let known = known.ok_or_else(|| format!("must be a known {field}"));
                self.check(field, known).map(Some)
            }
        }
    }

    /// Returns the value of a result, or records its error.
    pub fn check<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// Returns the value of another check, or appends its violations.
    pub fn merge<T>(&mut self, result: Result<T, Violations>) -> Option<T> {
        result.map_err(|violations| self.extend(violations)).ok()
    }

    /// Parses a field that may be empty: `Some(None)` if it is.
    pub fn optional<T, E: Display>(
        &mut self,
        field: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match text {
            "" => Some(None),
            text => self.check(field, parse(text)).map(Some),
        }
    }

    /// Parses a text on one line that people see. Returns it in NFC, without white space at its ends. Rejects what changes
    /// the direction of text.
    pub fn text(&mut self, field: &str, value: &str, limits: RangeInclusive<usize>) -> Option<String> {
        self.check(field, visible::line(value, limits))
    }

    /// Parses a text that people see, with line breaks, which become `\n`, and tabs; otherwise as [`Self::text`].
    pub fn multiline(&mut self, field: &str, value: &str, limits: RangeInclusive<usize>) -> Option<String> {
        self.check(field, visible::lines(value, limits))
    }

    /// Parses the `request_id` of a creating call: a UUID version 4, or nothing.
    pub fn request_id(&mut self, field: &str, value: &str) -> Option<Option<Uuid>> {
        self.optional(field, value, |value| {
            let id = Uuid::try_parse(value).ok();
            let id = id.filter(|id| id.get_version_num() == 4 && value.len() == 36);
            id.ok_or("must be empty or a UUID version 4 with hyphens")
        })
    }

    /// Parses a time that may be absent, and is in the future.
    pub fn future_time(
        &mut self,
        field: &str,
        time: Option<&Timestamp>,
        now: UnixMillis,
    ) -> Option<Option<UnixMillis>> {
        let future = |time| UnixMillis::from_timestamp(time).filter(|time| *time > now);
        let time = time.map(|time| future(time).ok_or("must be absent, or a valid time in the future"));
        self.check(field, time.transpose())
    }

    /// Parses an e-mail address. Checks its syntax only: a local part, one `@`, a domain of two labels or more.
    pub fn email(&mut self, field: &str, value: &str) -> Option<String> {
        let is_valid = value.len() <= 254
            && !value.chars().any(|c| c.is_whitespace() || c.is_control())
            && value.split_once('@').is_some_and(|(local, domain)| {
                !local.is_empty()
                    && !domain.contains('@')
                    && domain.contains('.')
                    && domain.split('.').all(|label| !label.is_empty())
            });
        let email = is_valid.then(|| value.to_owned());
        self.check(field, email.ok_or("must be an e-mail address of up to 254 bytes"))
    }

    /// Parses a base URL by [`uri::base_url`]. Returns it byte for byte.
    pub fn https_url(&mut self, field: &str, value: &str) -> Option<String> {
        self.check(field, uri::base_url(value))
    }

    /// Parses a redirect URI by [`uri::redirect_uri`]. Returns it byte for byte.
    pub fn redirect_uri(&mut self, field: &str, value: &str) -> Option<String> {
        self.check(field, uri::redirect_uri(value))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn texts_are_bounded_in_characters_and_free_of_controls() {
        let mut v = Violations::default();
        assert_eq!(v.text("a", " Müller ", 1..=6).as_deref(), Some("Müller"));
        assert_eq!(v.multiline("a", "one\ntwo", 1..=10).as_deref(), Some("one\ntwo"));
        assert!(v.is_empty());
        v.text("empty", "  ", 1..=5);
        v.text("long", "abcdef", 1..=5);
        v.text("huge", &"x".repeat(1_000_000), 1..=5);
        v.text("line", "a\nb", 1..=5);
        v.multiline("nul", "a\0b", 1..=5);
        v.text("c1", "a\u{85}b", 1..=5);
        v.text("reorder", "a\u{202E}b", 1..=5);
        v.multiline("isolate", "a\u{2066}b", 1..=5);
        v.text("separator", "a\u{2028}b", 1..=5);
        let fields: Vec<_> = v.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "empty",
                "long",
                "huge",
                "line",
                "nul",
                "c1",
                "reorder",
                "isolate",
                "separator"
            ]
        );
    }

    #[tokio::test]
    async fn what_decoding_finds_is_reported_with_the_other_violations_of_the_same_call() {
        let found = || {
            let mut v = Violations::default();
            v.add("later", "is not available yet");
            v
        };
        let fields = |v: Violations| -> Vec<String> { v.into_vec().into_iter().map(|v| v.field).collect() };
        assert_eq!(
            fields(found().with_the_others().unwrap_err()),
            ["later"],
            "outside of a call"
        );
        let call = async {
            found().with_the_others().unwrap();
            let rejected = only_field::<(), _>("id", Err("must be an id")).unwrap_err();
            assert_eq!(fields(rejected), ["later", "id"]);
            assert_eq!(only_field::<_, &str>("id", Ok(1)), Ok(1), "once");
            found().with_the_others().unwrap();
            assert_eq!(fields(only_field::<_, &str>("id", Ok(1)).unwrap_err()), ["later"]);
        };
        scope(call).await;
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let mut v = Violations::default();
        assert_eq!(v.request_id("r", ""), Some(None));
        assert!(
            v.request_id("r", "8e9b7f2c-6f0a-4c8e-9d7b-0f1e2d3c4b5a")
                .unwrap()
                .is_some()
        );
        for bad in [
            "8e9b7f2c-6f0a-1c8e-9d7b-0f1e2d3c4b5a",
            "8e9b7f2c6f0a4c8e9d7b0f1e2d3c4b5a",
            "{8e9b7f2c-6f0a-4c8e-9d7b-0f1e2d3c4b5a}",
            "x",
            " ",
        ] {
            assert_eq!(v.request_id("r", bad), None, "{bad}");
        }
    }

    #[test]
    fn e_mail_addresses_have_a_local_part_and_a_domain() {
        let mut v = Violations::default();
        assert!(v.email("e", "dev@partner.example").is_some());
        for bad in [
            "",
            "dev",
            "@partner.example",
            "dev@",
            "a@b@c.example",
            "d ev@p.example",
            "dev@partner",
            "dev@.example",
        ] {
            assert_eq!(v.email("e", bad), None, "{bad}");
        }
    }
}
