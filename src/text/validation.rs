//! Checks of single fields, which collect every violation of a message instead of stopping at the
//! first. Rules that need other records are not here.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive};

use url::{Host, Url};
use uuid::Uuid;

/// The longest URL that is taken, in bytes.
pub const MAX_URL_BYTES: usize = 2048;

/// One field that breaks its rule. Neither part holds the field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `scopes[2].reason`.
    pub field: String,
    /// What is wrong, after the words "the field".
    pub description: String,
}

/// All violations found in one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations(Vec<FieldViolation>);

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

/// The path of an element of a repeated field: `scopes[2]`.
pub fn list_field(field: &str, index: usize) -> String {
    format!("{field}[{index}]")
}

impl Violations {
    /// Records a violation.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(FieldViolation {
            field: field.into(),
            description: description.into(),
        });
    }

    /// Records another check's violations after these.
    pub fn extend(&mut self, others: Violations) {
        self.0.extend(others.0);
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The violations in the order of their recording.
    pub fn into_vec(self) -> Vec<FieldViolation> {
        self.0
    }

    /// The violations in the order of their recording.
    pub fn iter(&self) -> impl Iterator<Item = &FieldViolation> {
        self.0.iter()
    }

    /// Returns what `build` makes of the fields read, or the violations if there are any. `build` gives up with
    /// `?` at a field that could not be read.
    ///
    /// # Errors
    /// Every violation recorded.
    pub fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, Self> {
        match build() {
            Some(value) if self.is_empty() => Ok(value),
            _ => Err(self),
        }
    }

    /// The variant of an enum field that filters a list: `Some(None)` for UNSPECIFIED, which filters nothing.
    pub fn filter<M, T>(&mut self, field: &str, number: i32) -> Option<Option<T>>
    where
        M: TryFrom<i32>,
        T: TryFrom<M>,
    {
        match number {
            0 => Some(None),
            number => self.variant(field, number).map(Some),
        }
    }

    /// The variant of an enum field that must be set. `M` is the message's enum, `T` the model's.
    pub fn variant<M, T>(&mut self, field: &str, number: i32) -> Option<T>
    where
        M: TryFrom<i32>,
        T: TryFrom<M>,
    {
        let known = M::try_from(number).ok().and_then(|known| T::try_from(known).ok());
        if known.is_none() {
            self.add(field, format!("must be a known {field}"));
        }
        known
    }

    /// The value of a result, or a violation with its error.
    pub fn check<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// A text on one line, without the white space at its ends: no control characters, and a length
    /// in characters within `limits`. Characters that reorder what is displayed count as control
    /// characters: such texts are shown to the people who consent.
    pub fn text(&mut self, field: &str, value: &str, limits: RangeInclusive<usize>) -> Option<String> {
        self.bounded(field, value, limits, is_control)
    }

    /// A text that may hold line breaks and tabs.
    pub fn multiline(&mut self, field: &str, value: &str, limits: RangeInclusive<usize>) -> Option<String> {
        self.bounded(field, value, limits, |c| is_control(c) && c != '\n' && c != '\t')
    }

    fn bounded(
        &mut self,
        field: &str,
        value: &str,
        limits: RangeInclusive<usize>,
        refused: impl Fn(char) -> bool,
    ) -> Option<String> {
        let value = value.trim();
        if value.is_empty() && *limits.start() > 0 {
            self.add(field, "must not be empty");
            return None;
        }
        // A character has at most four bytes: this bounds the work on oversize input.
        let length = if value.len() > limits.end().saturating_mul(4) {
            usize::MAX
        } else {
            value.chars().count()
        };
        if !limits.contains(&length) {
            self.add(
                field,
                format!("must have {} to {} characters", limits.start(), limits.end()),
            );
            return None;
        }
        if value.chars().any(refused) {
            self.add(field, "must not hold control characters");
            return None;
        }
        Some(value.to_owned())
    }

    /// The `request_id` of a creating call: a UUID version 4, or nothing.
    pub fn request_id(&mut self, field: &str, value: &str) -> Option<Option<Uuid>> {
        if value.is_empty() {
            return Some(None);
        }
        match Uuid::try_parse(value) {
            Ok(id) if id.get_version_num() == 4 && value.len() == 36 => Some(Some(id)),
            _ => {
                self.add(field, "must be empty or a UUID version 4 with hyphens");
                None
            }
        }
    }

    /// An e-mail address, as far as syntax goes: something, one `@`, a domain.
    pub fn email(&mut self, field: &str, value: &str) -> Option<String> {
        let sound = value.len() <= 254
            && !value.chars().any(|c| c.is_whitespace() || c.is_control())
            && value.split_once('@').is_some_and(|(local, domain)| {
                !local.is_empty()
                    && !domain.contains('@')
                    && domain.split('.').count() > 1
                    && domain.split('.').all(|label| !label.is_empty())
            });
        if sound {
            Some(value.to_owned())
        } else {
            self.add(field, "must be an e-mail address of up to 254 bytes");
            None
        }
    }

    /// A base URL, returned byte for byte: https, or http on a loopback host, in normal form, without
    /// query.
    pub fn https_url(&mut self, field: &str, value: &str) -> Option<String> {
        let problem = match normal_url(value) {
            Ok(url) if url.query().is_some() => "must not have a query",
            Ok(_) => return Some(value.to_owned()),
            Err(problem) => problem,
        };
        self.add(field, problem);
        None
    }

    /// A redirect URI (RFC 6749 §3.1.2, RFC 9700 §2.1), returned byte for byte. It must be https, or
    /// http on a loopback host, and already in normal form, so that the bytes that are compared
    /// later mean the same to every browser.
    pub fn redirect_uri(&mut self, field: &str, value: &str) -> Option<String> {
        let problem = match normal_url(value) {
            Ok(_) if value.contains('*') => "must not hold a wildcard",
            Ok(_) => return Some(value.to_owned()),
            Err(problem) => problem,
        };
        self.add(field, problem);
        None
    }
}

/// Control characters, the separators that break lines as they do, and the embeddings, overrides and
/// isolates of bidirectional text (UAX #9). Its plain marks and the joiners are ordinary spelling.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A URL that its parser would write just as it stands, but for the slash of an empty path.
fn normal_url(value: &str) -> Result<Url, &'static str> {
    let url = check_url(value)?;
    if url.as_str() == value || url.as_str() == format!("{value}/") {
        Ok(url)
    } else {
        Err("must be in normal form: lowercase host, no default port, no dot segments")
    }
}

/// The rules that all URLs share.
fn check_url(value: &str) -> Result<Url, &'static str> {
    if value.is_empty() {
        return Err("must not be empty");
    }
    if value.len() > MAX_URL_BYTES {
        return Err("must have at most 2048 bytes");
    }
    if !value.bytes().all(|b| b.is_ascii_graphic()) || value.contains('\\') {
        return Err("must hold printable ASCII alone, and no backslash");
    }
    let url = Url::parse(value).map_err(|_| "must be an absolute URL")?;
    // The parser drops empty user info and fragments and supplies missing slashes: look at the text.
    let scheme_end = format!("{}://", url.scheme());
    let authority = value
        .strip_prefix(scheme_end.as_str())
        .ok_or("must begin with https://")?
        .split(['/', '?', '#'])
        .next()
        .unwrap_or_default();
    if authority.contains('@') {
        return Err("must not hold user info");
    }
    if value.contains('#') {
        return Err("must not have a fragment");
    }
    if authority.contains('%') {
        return Err("must not have an encoded host");
    }
    let Some(host) = url.host() else {
        return Err("must have a host");
    };
    if matches!(host, Host::Domain(name) if name.ends_with('.')) {
        return Err("must not have a host that ends with a dot");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&host) => Ok(url),
        _ => Err("must use https (http on loopback hosts only)"),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::V4(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::V6(*address).is_loopback(),
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
        let fields: Vec<_> = v.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            ["empty", "long", "huge", "line", "nul", "c1", "reorder", "isolate"]
        );
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
    fn redirect_uris_are_kept_byte_for_byte() {
        for good in [
            "https://app.example/callback",
            "https://app.example",
            "https://app.example/",
            "https://app.example:8443/a/b?x=1&y=%20",
            "http://127.0.0.1:9000/callback",
            "http://localhost/cb",
            "http://[::1]:9000/cb",
        ] {
            let mut v = Violations::default();
            assert_eq!(v.redirect_uri("u", good).as_deref(), Some(good), "{v:?}");
        }
    }

    #[test]
    fn bad_redirect_uris_are_refused() {
        let long = format!("https://app.example/{}", "a".repeat(2048));
        for bad in [
            "",
            "app.example/callback",
            "/callback",
            "//app.example/callback",
            "http://app.example/callback",
            "ftp://app.example/callback",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp://callback",
            "https:/app.example/cb",
            "https:app.example/cb",
            "https:///app.example/cb",
            "https://",
            "https://app.example/cb#",
            "https://app.example/cb#x",
            "https://*.example/cb",
            "https://app.example/*",
            "https://good.example@evil.example/cb",
            "https://user:pass@app.example/cb",
            "https://@app.example/cb",
            "https://:@app.example/cb",
            "https://app.example./cb",
            "https://APP.example/cb",
            "HTTPS://app.example/cb",
            "https://app.example:443/cb",
            "https://app.example/a/../cb",
            "https://app.example/./cb",
            "https://app.example/%2e%2e/cb",
            "https://app.example\\cb",
            "https://app.example\\@evil.example/cb",
            "https://app%2eexample/cb",
            "https://app.example/c b",
            "https://app.example/cb\n",
            " https://app.example/cb",
            "https://äpp.example/cb",
            "https://app.example/cä",
            "https://app.example:99999/cb",
            "https://[::1/cb",
            "http://localhost.evil.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://0x7f.1/cb",
            "http://2130706433/cb",
            "http://[::ffff:7f00:1]/cb",
            long.as_str(),
        ] {
            let mut v = Violations::default();
            assert_eq!(v.redirect_uri("u", bad), None, "{bad}");
            assert_eq!(v.iter().count(), 1, "{bad}");
        }
    }

    #[test]
    fn e_mail_addresses_have_both_halves() {
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

    #[test]
    fn urls_of_apis_have_neither_query_nor_fragment() {
        let mut v = Violations::default();
        assert!(v.https_url("u", "https://api.example/v1").is_some());
        for bad in [
            "https://api.example/?a=1",
            "http://api.example/",
            "https://api.example/#",
            "https://u@api.example/",
        ] {
            assert_eq!(v.https_url("u", bad), None, "{bad}");
        }
    }
}
