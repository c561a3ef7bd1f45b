//! The identifiers of Accord, each a type of its own. An id is public, but for that of a secret: it proves nothing.
//!
//! All but scopes are short and kept in place: a clone is a copy of some bytes.

use std::fmt;

use arrayvec::ArrayString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use ulid::Ulid;

use crate::{clock::Clock, random::Random};

/// Characters of a ULID.
const ULID_LENGTH: usize = 26;

/// A text that is not an id of the kind asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {0}")]
pub struct MalformedId(pub(crate) &'static str);

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The id as text.
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

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
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

macro_rules! ulid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(ArrayString<{ $prefix.len() + ULID_LENGTH }>);

        impl $name {
            /// A new id: the clock's milliseconds and 80 random bits.
            pub fn generate(clock: &dyn Clock, random: &dyn Random) -> Self {
                Self::of(new_ulid(clock, random))
            }

            /// The id with these bits.
            pub(crate) fn of(ulid: Ulid) -> Self {
                let mut id = ArrayString::new();
                id.push_str($prefix);
                id.push_str(ulid.array_to_str(&mut [0; ULID_LENGTH]));
                id.make_ascii_lowercase();
                Self(id)
            }

            /// Reads an id.
            ///
            /// # Errors
            /// [`MalformedId`] unless `text` is exactly the prefix and a lowercase ULID.
            pub fn parse(text: &str) -> Result<Self, MalformedId> {
                let ulid = text.strip_prefix($prefix).filter(|ulid| is_lowercase_ulid(ulid));
                match ulid.map(|_| ArrayString::from(text)) {
                    Some(Ok(id)) => Ok(Self(id)),
                    _ => Err(MalformedId(concat!("`", $prefix, "` followed by a lowercase ULID"))),
                }
            }
        }

        text_type!($name);
    };
}

ulid_id!(
    /// A Client ID, `cli_...`.
    ClientId,
    "cli_"
);
ulid_id!(
    /// A tenant's user, `usr_...`.
    UserId,
    "usr_"
);
ulid_id!(
    /// An integration request, `irq_...`.
    IntegrationRequestId,
    "irq_"
);
ulid_id!(
    /// A setup, `set_...`.
    SetupId,
    "set_"
);
ulid_id!(
    /// A grant, `grt_...`.
    GrantId,
    "grt_"
);
ulid_id!(
    /// A one-time link to credentials, `dlv_...`.
    DeliveryId,
    "dlv_"
);
ulid_id!(
    /// A Client Secret's id, `sec_...`; it is part of the secret. Strangers must not see it: whoever knows it can keep
    /// the secret from being checked.
    SecretId,
    "sec_"
);
ulid_id!(
    /// An operator, `opr_...`.
    OperatorId,
    "opr_"
);
ulid_id!(
    /// A workload, `wkl_...`.
    WorkloadId,
    "wkl_"
);
ulid_id!(
    /// A refresh family: a bare ULID.
    FamilyId,
    ""
);
ulid_id!(
    /// An audit event: a bare ULID.
    EventId,
    ""
);

/// A tenant's id: a slug that the operator chose, `[a-z][a-z0-9-]{1,38}[a-z0-9]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(ArrayString<40>);

impl TenantId {
    /// Reads a tenant id.
    ///
    /// # Errors
    /// [`MalformedId`] unless `text` is such a slug of 3 to 40 characters.
    pub fn parse(text: &str) -> Result<Self, MalformedId> {
        let bytes = text.as_bytes();
        let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let sound = (3..=40).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(inner)
            && bytes[bytes.len() - 1] != b'-';
        match ArrayString::from(text) {
            Ok(id) if sound => Ok(Self(id)),
            _ => Err(MalformedId(
                "3 to 40 characters of a-z, 0-9 and -, beginning with a letter and not ending with -",
            )),
        }
    }
}

text_type!(TenantId);

/// A scope's name: an RFC 6749 §3.3 scope-token of 1 to 128 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeName(String);

impl ScopeName {
    /// Reads a scope name.
    ///
    /// # Errors
    /// [`MalformedId`] unless every character is %x21, %x23-5B or %x5D-7E.
    pub fn parse(text: &str) -> Result<Self, MalformedId> {
        let token = |b: u8| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        if (1..=128).contains(&text.len()) && text.bytes().all(token) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedId(
                "1 to 128 printable ASCII characters without space, quote and backslash",
            ))
        }
    }
}

text_type!(ScopeName);

/// Reads scopes separated by single spaces (RFC 6749 §3.3). An empty text is an empty list.
///
/// # Errors
/// [`MalformedId`] for the first part that is not a scope-token.
pub fn parse_scope_list(text: &str) -> Result<Vec<ScopeName>, MalformedId> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(' ').map(ScopeName::parse).collect()
}

/// Writes scopes separated by single spaces (RFC 6749 §3.3).
pub fn join_scopes<'a>(scopes: impl IntoIterator<Item = &'a ScopeName>) -> String {
    scopes
        .into_iter()
        .map(ScopeName::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

fn new_ulid(clock: &dyn Clock, random: &dyn Random) -> Ulid {
    let mut bytes = [0; 16];
    random.fill(&mut bytes[6..]);
    let bits = u128::from_be_bytes(bytes);
    let millis = u64::try_from(clock.now().as_millis()).unwrap_or(0);
    Ulid::from_parts(millis, bits)
}

/// Whether a text is 128 bits in Crockford's base32, which has no i, l, o and u.
fn is_lowercase_ulid(text: &str) -> bool {
    let digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'h' | b'j' | b'k' | b'm' | b'n' | b'p'..=b't' | b'v'..=b'z');
    let bytes = text.as_bytes();
    bytes.len() == ULID_LENGTH && bytes[0] <= b'7' && bytes.iter().all(digit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        clock::{ManualClock, UnixMillis},
        random::SeededRandom,
    };

    #[test]
    fn ids_are_in_the_order_of_time_and_read_back() {
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
    fn another_prefix_case_or_length_is_refused() {
        let good = "cli_01k9zzzzzzzzzzzzzzzzzzzzzz";
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
    fn scope_lists_are_separated_by_single_spaces() {
        let scopes = parse_scope_list("contacts.read api:write").unwrap();
        assert_eq!(join_scopes(&scopes), "contacts.read api:write");
        assert_eq!(parse_scope_list("").unwrap(), []);
        for bad in [" a", "a ", "a  b", "a\tb", "a\"b", "a\\b", "ä"] {
            assert!(parse_scope_list(bad).is_err(), "{bad:?}");
        }
    }
}
