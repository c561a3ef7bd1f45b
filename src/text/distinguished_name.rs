//! Distinguished names: in text, as people register them (RFC 4514), and in certificates (RFC 5280 §4.1.2.4).

use std::{collections::BTreeSet, str::FromStr};

use x509_cert::{
    attr::AttributeTypeAndValue,
    der::{
        Decode, Tag, Tagged,
        asn1::{BmpString, Ia5StringRef, PrintableStringRef, Utf8StringRef},
    },
    name::Name,
};

/// The longest text of a name, in bytes.
pub const MAX_BYTES: usize = 1024;

/// A distinguished name, in a form in which equal names are equal: attributes by their object identifiers, and values without
/// regard to case and to the number of spaces (RFC 5280 §7.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinguishedName(Vec<BTreeSet<(String, Value)>>);

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    /// A text, folded.
    Text(String),
    /// The bytes of what is no text, which are compared as they are.
    Bytes(u8, Vec<u8>),
}

impl DistinguishedName {
    /// Reads the text form of RFC 4514, such as `CN=sync,O=Partner Ltd,C=DE`: the last part of the name comes first.
    ///
    /// # Errors
    /// Returns the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be a distinguished name such as CN=sync,O=Partner Ltd,C=DE (RFC 4514)";
        if text.len() > MAX_BYTES {
            return Err("must have at most 1024 bytes");
        }
        // The separator of RFC 1779 is part of a value only if it is escaped (RFC 4514 §2.4).
        let has_old_separator = text.match_indices(';').any(|(at, _)| !text[..at].ends_with('\\'));
        if has_old_separator {
            return Err(FORM);
        }
        let name = Name::from_str(text).map_err(|_| FORM)?;
        match Self::of(&name) {
            Some(name) if !name.0.is_empty() => Ok(name),
            _ => Err(FORM),
        }
    }

    /// Reads a name of a certificate. Returns `None` for bytes that are none, and for the empty name.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        Self::of(&Name::from_der(der).ok()?).filter(|name| !name.0.is_empty())
    }

    fn of(name: &Name) -> Option<Self> {
        let parts = name.0.iter().map(|part| {
            let attributes = part.0.iter();
            let attributes = attributes.map(|attribute| Some((attribute.oid.to_string(), value(attribute)?)));
            attributes.collect::<Option<BTreeSet<_>>>()
        });
        parts.collect::<Option<_>>().map(Self)
    }
}

/// Returns the value of an attribute; `None` for a malformed one, or an empty one.
fn value(attribute: &AttributeTypeAndValue) -> Option<Value> {
    let any = &attribute.value;
    let text = match any.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(any).ok()?.as_str().to_owned(),
        Tag::PrintableString => PrintableStringRef::try_from(any).ok()?.as_str().to_owned(),
        Tag::Ia5String => Ia5StringRef::try_from(any).ok()?.as_str().to_owned(),
        Tag::BmpString => BmpString::from_ucs2(any.value().to_vec()).ok()?.to_string(),
        tag => return Some(Value::Bytes(tag.octet(), any.value().to_vec())),
    };
    let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
    (!words.is_empty()).then(|| Value::Text(words.join(" ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use x509_cert::der::Encode;

    use super::*;

    fn parsed(text: &str) -> DistinguishedName {
        DistinguishedName::parse(text).unwrap()
    }

    #[test]
    fn names_are_equal_whatever_their_case_spaces_and_order_within_a_part() {
        let name = parsed("CN=Sync Service,OU=A+L=Berlin,O=Partner Ltd,C=DE");
        for same in [
            "cn=sync  service,ou=a+l=berlin,o=PARTNER LTD,c=de",
            "CN=Sync Service,L=Berlin+OU=A,O=Partner Ltd,C=DE",
            "2.5.4.3=Sync Service,OU=A+L=Berlin,O=Partner Ltd,C=DE",
        ] {
            assert_eq!(parsed(same), name, "{same}");
        }
        for other in [
            "C=DE,O=Partner Ltd,OU=A+L=Berlin,CN=Sync Service",
            "CN=Sync Service,OU=A,L=Berlin,O=Partner Ltd,C=DE",
            "CN=Sync Service,O=Partner Ltd,C=DE",
            "CN=SyncService,OU=A+L=Berlin,O=Partner Ltd,C=DE",
            "O=Sync Service,OU=A+L=Berlin,O=Partner Ltd,C=DE",
        ] {
            assert_ne!(parsed(other), name, "{other}");
        }
    }

    #[test]
    fn a_name_is_the_one_of_a_certificate() {
        let text = "CN=sync,O=Partner\\, Ltd,C=DE";
        let der = Name::from_str(text).unwrap().to_der().unwrap();
        assert_eq!(DistinguishedName::from_der(&der), Some(parsed(text)));
        assert_eq!(DistinguishedName::from_der(&der[1..]), None);
        assert_eq!(DistinguishedName::from_der(&[0x30, 0]), None, "the empty name");
    }

    #[test]
    fn what_is_no_name_is_rejected() {
        let long = format!("CN={}", "a".repeat(MAX_BYTES));
        for text in ["", "sync", "CN", "CN=", "CN=a,", "NOSUCH=a", "CN=a;O=b", &long] {
            assert!(DistinguishedName::parse(text).is_err(), "{text}");
        }
    }
}
