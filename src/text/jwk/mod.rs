//! Reads and writes one public key as a JSON Web Key (RFC 7517 §4).
//!
//! A partner's set also holds keys for other uses, which are skipped (RFC 7517 §5). Leaves out unknown members, also those
//! that name certificates: nobody follows them. Of a member that comes twice, the last one counts.

use std::ops::RangeInclusive;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Map, Value};

use super::validation::Violations;
use crate::dpop::{
    has_small_order,
    jwk::{PRIVATE_MEMBERS, RSA_BITS},
};

pub mod certificate;

/// The longest `kid`, in bytes.
const MAX_KID_BYTES: usize = 128;
/// The types and curves of keys for signatures, with their algorithms. One algorithm has two names (RFC 9864 §2.2).
const KINDS: [(&str, &str, &[&str]); 3] = [
    ("EC", "P-256", &["ES256"]),
    ("OKP", "Ed25519", &["EdDSA", "Ed25519"]),
    ("RSA", "", &["RS256", "PS256"]),
];
/// RSA exponents. The library that verifies takes at most 33 bits.
const EXPONENTS: RangeInclusive<u64> = 3..=(1 << 33) - 1;

/// A valid public key. Its members are written in this order.
#[derive(Debug, Serialize)]
pub struct Key {
    /// The key's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Without one, every algorithm of the key's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(flatten)]
    numbers: Numbers,
    /// The certificate of the key, if the key came with one that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<[String; 1]>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kty")]
enum Numbers {
    #[serde(rename = "EC")]
    P256 { crv: &'static str, x: String, y: String },
    #[serde(rename = "OKP")]
    Ed25519 { crv: &'static str, x: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

/// Reads a key without its certificate, or adds all its violations. Returns `None` without a violation for a key that is not
/// meant for signatures of a supported algorithm.
pub fn read(v: &mut Violations, field: String, value: &Value) -> Option<Key> {
    read_key(v, field, value, |_, _| Some(None))
}

/// Does the same with the certificate.
pub fn read_with_certificate(v: &mut Violations, field: String, value: &Value) -> Option<Key> {
    read_key(v, field, value, certificate::first)
}

/// The certificate of a key that has one; the outer `None` for a violation.
type ReadCertificate = fn(&mut Violations, &Members<'_>) -> Option<Option<[String; 1]>>;

fn read_key(
    v: &mut Violations,
    field: String,
    value: &Value,
    read_certificate: ReadCertificate,
) -> Option<Key> {
    let Some(members) = value.as_object() else {
        v.add(field, "must be a JSON object");
        return None;
    };
    reject_members(v, &field, members);
    let key = Members { field, members };
    let alg = key.signature_algorithm()?;
    let kid = kid(v, &key);
    let numbers = match key.text("kty") {
        "EC" => p256(v, &key),
        "OKP" => ed25519(v, &key),
        _ => rsa(v, &key),
    };
    let x5c = read_certificate(v, &key);
    Some(Key {
        kid: kid?,
        alg,
        usage: "sig",
        numbers: numbers?,
        x5c: x5c?,
    })
}

/// Adds a violation for each member of a private key, which no object of a key set may have.
pub fn reject_members(v: &mut Violations, field: &str, members: &Map<String, Value>) {
    for name in PRIVATE_MEMBERS.iter().filter(|name| members.contains_key(**name)) {
        v.add(
            format!("{field}.{name}"),
            "must not be sent: replace this key, it is exposed",
        );
    }
}

/// Returns whether an object of a key set has a member of a private key.
pub fn has_private_member(members: &Map<String, Value>) -> bool {
    PRIVATE_MEMBERS.iter().any(|name| members.contains_key(*name))
}

/// The members of a key, and the path of the key.
struct Members<'a> {
    field: String,
    members: &'a Map<String, Value>,
}

impl Members<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.field)
    }

    /// Returns the algorithm of a key for signatures, if it names one. `None` for a key of another type, algorithm or use.
    fn signature_algorithm(&self) -> Option<Option<&'static str>> {
        let (kty, crv) = (self.text("kty"), self.text("crv"));
        let kind = |kind: &&(&str, &str, _)| kind.0 == kty && (kind.1.is_empty() || kind.1 == crv);
        let (_, _, known) = KINDS.iter().find(kind)?;
        let is_for_signatures = self.members.get("use").is_none_or(|usage| usage == "sig")
            && self.members.get("key_ops").is_none_or(verifies_only);
        if !is_for_signatures {
            return None;
        }
        match self.members.get("alg") {
            None => Some(None),
            Some(alg) if alg == "Ed25519" && kty == "OKP" => Some(Some("EdDSA")),
            Some(alg) => known
                .iter()
                .find(|known| alg == **known)
                .map(|known| Some(*known)),
        }
    }

    /// Returns a member that is a text, or an empty text.
    fn text(&self, name: &str) -> &str {
        self.members.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Reads bytes in base64url without padding. Returns them with their text, the only one for these bytes.
    fn bytes(&self, v: &mut Violations, name: &str) -> Option<(Vec<u8>, String)> {
        let text = self.text(name);
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .filter(|bytes| !bytes.is_empty());
        let bytes = v.check(&self.path(name), bytes.ok_or("must be base64url without padding"));
        Some((bytes?, text.to_owned()))
    }

    /// Reads a coordinate on a curve of 256 bits.
    fn coordinate(&self, v: &mut Violations, name: &str) -> Option<([u8; 32], String)> {
        let (bytes, text) = self.bytes(v, name)?;
        let bytes = bytes.try_into().map_err(|_| "must have 32 bytes");
        Some((v.check(&self.path(name), bytes)?, text))
    }

    /// Reads a big-endian number that is odd, has no leading zeros, and passes `test`.
    fn odd_number(
        &self,
        v: &mut Violations,
        name: &str,
        rule: &str,
        test: impl Fn(&[u8]) -> bool,
    ) -> Option<String> {
        let (bytes, text) = self.bytes(v, name)?;
        let is_odd = bytes.last().is_some_and(|byte| byte % 2 == 1);
        let is_sound = is_odd && bytes.first() != Some(&0) && test(&bytes);
        v.check(&self.path(name), is_sound.then_some(text).ok_or(rule))
    }
}

/// Returns the key's name, if it has one.
fn kid(v: &mut Violations, key: &Members<'_>) -> Option<Option<String>> {
    if !key.members.contains_key("kid") {
        return Some(None);
    }
    let kid = key.text("kid");
    let printable = kid.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let is_sound = printable && (1..=MAX_KID_BYTES).contains(&kid.len());
    let rule = format!("must have 1 to {MAX_KID_BYTES} characters, all printable ASCII");
    v.check(
        &key.path("kid"),
        is_sound.then(|| Some(kid.to_owned())).ok_or(rule),
    )
}

fn verifies_only(key_ops: &Value) -> bool {
    key_ops
        .as_array()
        .is_some_and(|ops| !ops.is_empty() && ops.iter().all(|op| op == "verify"))
}

/// A point of P-256 (RFC 7518 §6.2.1).
fn p256(v: &mut Violations, key: &Members<'_>) -> Option<Numbers> {
    let (x, y) = (key.coordinate(v, "x"), key.coordinate(v, "y"));
    let ((x, x_text), (y, y_text)) = (x?, y?);
    let uncompressed = [&[4], &x[..], &y[..]].concat();
    if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed).is_err() {
        v.add(key.path("x"), "must be, together with y, a point on the curve");
        return None;
    }
    Some(Numbers::P256 {
        crv: "P-256",
        x: x_text,
        y: y_text,
    })
}

/// A point of Ed25519 (RFC 8037 §2).
fn ed25519(v: &mut Violations, key: &Members<'_>) -> Option<Numbers> {
    let (x, text) = key.coordinate(v, "x")?;
    if has_small_order(x) {
        v.add(key.path("x"), "must not be a point for which anyone can sign");
        return None;
    }
    Some(Numbers::Ed25519 {
        crv: "Ed25519",
        x: text,
    })
}

/// A modulus and an exponent (RFC 7518 §6.3.1).
fn rsa(v: &mut Violations, key: &Members<'_>) -> Option<Numbers> {
    let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
    let rule = format!("must be an odd number of {least} to {most} bits, without leading zeros");
    let n = key.odd_number(v, "n", &rule, |n| RSA_BITS.contains(&bits(n)));
    let (least, most) = (EXPONENTS.start(), EXPONENTS.end());
    let rule = format!("must be an odd number from {least} to {most}, without leading zeros");
    let e = key.odd_number(v, "e", &rule, |e| EXPONENTS.contains(&number(e)));
    Some(Numbers::Rsa { n: n?, e: e? })
}

/// Returns how many bits a big-endian number without leading zeros has.
fn bits(number: &[u8]) -> usize {
    let leading_zeros = number.first().map_or(0, |byte| byte.leading_zeros());
    number.len() * 8 - leading_zeros as usize
}

/// Reads a big-endian number. One that is too large becomes `u64::MAX`.
fn number(bytes: &[u8]) -> u64 {
    let shifted = |value: u64, byte: &u8| value.checked_mul(256)?.checked_add(u64::from(*byte));
    bytes.iter().try_fold(0, shifted).unwrap_or(u64::MAX)
}
