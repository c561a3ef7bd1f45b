//! The identifiers of Accord, each a type of its own. Ids are public and prove nothing, except that of a secret.
//!
//! All but scope names are stored inline, so that a clone copies some bytes and allocates nothing.

use std::fmt;

use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ulid::Ulid;

use crate::{
    clock::{Clock, UnixMillis},
    random::Random,
};

/// Characters of a ULID.
const ULID_LENGTH: usize = 26;

/// The error for a text that does not have the form of an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct MalformedId(pub(crate) &'static str);

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }
    };
}

pub(crate) use text_type;

macro_rules! ulid_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ArrayString<{ $prefix.len() + ULID_LENGTH }>);

        impl $name {
            /// Generates an id from the clock's milliseconds and 80 random bits.
            pub fn generate(clock: &dyn Clock, random: &dyn Random) -> Self {
                Self::of(new_ulid(clock, random))
            }

            /// Returns the id with these bits.
            pub(crate) fn of(ulid: Ulid) -> Self {
                let mut id = ArrayString::new();
                id.push_str($prefix);
                id.push_str(ulid.array_to_str(&mut [0; ULID_LENGTH]));
                id.make_ascii_lowercase();
                Self(id)
            }

            /// Returns the 16 bytes of its ULID.
            #[cfg(feature = "service")]
            pub fn to_bytes(&self) -> [u8; 16] {
                let ulid = Ulid::from_string(&self.0[$prefix.len()..]);
                ulid.unwrap_or_default().to_bytes()
            }

            /// Returns the id with these 16 bytes, or `None` for another number of bytes.
            #[cfg(feature = "service")]
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::of(Ulid::from_bytes(bytes.try_into().ok()?)))
            }

            /// Parses an id: the prefix and a lowercase ULID.
            pub fn parse(text: &str) -> Result<Self, MalformedId> {
                let is_valid = text.strip_prefix($prefix).is_some_and(is_lowercase_ulid);
                let id = ArrayString::from(text).ok().filter(|_| is_valid).map(Self);
                const RULE: &str = match $prefix.is_empty() {
                    true => "a lowercase ULID",
                    false => concat!("`", $prefix, "` followed by a lowercase ULID"),
                };
                id.ok_or(MalformedId(RULE))
            }
        }

        text_type!($name);
    )+};
}

ulid_ids! {
    /// A Client ID, `cli_...`.
    ClientId = "cli_";
    /// A tenant's user, `usr_...`.
    UserId = "usr_";
    /// An integration request, `irq_...`.
    IntegrationRequestId = "irq_";
    /// A setup, `set_...`.
    SetupId = "set_";
    /// A grant, `grt_...`.
    GrantId = "grt_";
    /// A delivery, `dlv_...`.
    DeliveryId = "dlv_";
    /// A Client Secret's id, `sec_...`; it is part of the secret. It must stay confidential: with it an
    /// attacker can keep the secret from being checked.
    SecretId = "sec_";
    /// An operator, `opr_...`.
    OperatorId = "opr_";
    /// A workload, `wkl_...`.
    WorkloadId = "wkl_";
    /// A refresh family: a bare ULID.
    FamilyId = "";
    /// An audit event: a bare ULID.
    EventId = "";
}

#[cfg(feature = "service")]
impl EventId {
    /// Returns the time of the event, in milliseconds since 1970.
    pub(crate) fn millis(&self) -> u64 {
        Ulid::from_bytes(self.to_bytes()).timestamp_ms()
    }

    /// Returns the time of the event.
    pub fn time(&self) -> UnixMillis {
        UnixMillis::from_millis(i64::try_from(self.millis()).unwrap_or(i64::MAX))
    }

    /// Returns the first id of an earlier millisecond.
    pub(crate) fn earlier(&self, millis: u64) -> Self {
        let time = self.millis().saturating_sub(millis);
        Self::of(ulid_at(UnixMillis::from_millis(time.cast_signed()), 0))
    }

    /// Returns the first id of a later millisecond.
    pub(crate) fn later(&self, millis: u64) -> Self {
        let time = self.millis().saturating_add(millis);
        Self::of(ulid_at(UnixMillis::from_millis(time.cast_signed()), 0))
    }
}

/// A tenant's id: a slug that the operator chose, `[a-z][a-z0-9-]{1,38}[a-z0-9]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(ArrayString<40>);

impl TenantId {
    /// Parses a tenant id of 3 to 40 characters.
    pub fn parse(text: &str) -> Result<Self, MalformedId> {
        let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_valid = text.len() >= 3
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(is_inner)
            && !text.ends_with('-');
        let id = ArrayString::from(text).ok().filter(|_| is_valid).map(Self);
        id.ok_or(MalformedId(
            "3 to 40 characters of a-z, 0-9 and -, beginning with a letter and not ending with -",
        ))
    }
}

text_type!(TenantId);

/// A scope's name: an RFC 6749 §3.3 scope-token of 1 to 128 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName(String);

impl ScopeName {
    /// Parses a scope name of the characters %x21, %x23-5B and %x5D-7E.
    pub fn parse(text: &str) -> Result<Self, MalformedId> {
        let is_allowed = |b: u8| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        let is_valid = (1..=128).contains(&text.len()) && text.bytes().all(is_allowed);
        is_valid.then(|| Self(text.to_owned())).ok_or(MalformedId(
            "1 to 128 printable ASCII characters without space, quote and backslash",
        ))
    }
}

text_type!(ScopeName);

/// Joins scopes with single spaces (RFC 6749 §3.3).
pub fn join_scopes<'a>(scopes: impl IntoIterator<Item = &'a ScopeName>) -> String {
    let names: Vec<_> = scopes.into_iter().map(ScopeName::as_str).collect();
    names.join(" ")
}

fn new_ulid(clock: &dyn Clock, random: &dyn Random) -> Ulid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes[6..]);
    ulid_at(clock.now(), u128::from_be_bytes(bytes))
}

/// Returns the ULID of a time with these 80 random bits.
pub(crate) fn ulid_at(time: UnixMillis, random: u128) -> Ulid {
    let millis = u64::try_from(time.as_millis()).unwrap_or(0);
    Ulid::from_parts(millis.min((1 << 48) - 1), random)
}

/// Returns whether a text is 128 bits in lowercase Crockford base32, which has no i, l, o and u.
fn is_lowercase_ulid(text: &str) -> bool {
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
    let bytes = text.as_bytes();
    bytes.len() == ULID_LENGTH && bytes[0] <= b'7' && bytes.iter().all(digit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{clock::ManualClock, random::SeededRandom};

    #[test]
    fn ids_sort_by_time_and_round_trip() {
        let clock = ManualClock::new(UnixMillis::from_millis(1_800_000_000_000));
        let random = SeededRandom::new(3);
        let first = ClientId::generate(&clock, &random);
        clock.set(UnixMillis::from_millis(1_800_000_000_001));
        let second = ClientId::generate(&clock, &random);
        assert!(first < second);
        assert_eq!(ClientId::parse(first.as_str()).unwrap(), first);
        assert_eq!(first.as_str().len(), 30);
    }

    #[test]
    fn other_prefixes_cases_and_lengths_are_rejected() {
        let good = "cli_01k9zzzzzzzzzzzzzzzzzzzzzz";
        assert_eq!(
            EventId::parse(good).unwrap_err().to_string(),
            "must be a lowercase ULID"
        );
        assert!(ClientId::parse(good).is_ok());
        for bad in [
            "",
            "cli_",
            "usr_01k9zzzzzzzzzzzzzzzzzzzzzz",
            "cli_01K9ZZZZZZZZZZZZZZZZZZZZZZ",
            "cli_01k9zzzzzzzzzzzzzzzzzzzzz",
            "cli_01k9zzzzzzzzzzzzzzzzzzzzzzz",
            "cli_81k9zzzzzzzzzzzzzzzzzzzzzz",
            "cli_01k9zzzzzzzzzzzzzzzzzzzzzu",
            "cli_01k9zzzzzzzzzzzzzzzzzzzzzo",
            " cli_01k9zzzzzzzzzzzzzzzzzzzzzz",
            "cli_01k9zzzzzzzzzzzzzzzzzzzz\0z",
        ] {
            assert!(ClientId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tenant_ids_are_slugs() {
        for good in ["abc", "a-b", "smith-partners", "a1b"] {
            assert!(TenantId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            "1abc",
            "-abc",
            "abc-",
            "Abc",
            "a_b",
            "a.b",
            "a/b",
            &"a".repeat(41),
            "äbc",
        ] {
            assert!(TenantId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scope_names_are_scope_tokens_and_join_with_single_spaces() {
        let scopes = ["contacts.read", "api:write"].map(|name| ScopeName::parse(name).unwrap());
        assert_eq!(join_scopes(&scopes), "contacts.read api:write");
        assert_eq!(join_scopes([]), "");
        for bad in [
            "",
            "a b",
            " a",
            "a ",
            "a\tb",
            "a\"b",
            "a\\b",
            "ä",
            &"a".repeat(129),
        ] {
            assert!(ScopeName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
