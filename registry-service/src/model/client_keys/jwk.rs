//! One public key as a JSON Web Key (RFC 7517 §4): what it must be like, and how it is written.
//!
//! Keys are given inline. Members that name or hold certificates (`jku`, `x5u`, `x5c`) are refused
//! rather than ignored: who sends them expects somebody to follow or check them, and nobody does.
//! Members that are not known are left out, as RFC 7517 says. Where a member stands twice, the last
//! one counts.

use std::ops::RangeInclusive;

use accord::text::validation::Violations;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::{Map, Value};

/// The longest `kid`, in bytes.
const MAX_KID_BYTES: usize = 128;
/// Members of private and of shared keys (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// Members that point to keys elsewhere, or to certificates.
const ELSEWHERE: [&str; 3] = ["jku", "x5u", "x5c"];
/// Bits of an RSA modulus: a shorter one is weak, a longer one is work that any stranger can ask for.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=4096;
/// RSA exponents; the library that verifies takes none of more than 33 bits.
const EXPONENTS: RangeInclusive<u64> = 3..=(1 << 33) - 1;

/// A sound public key. Its members are written in this order.
#[derive(Serialize)]
pub(super) struct Key {
    /// The key's name.
    pub(super) kid: String,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Serialize)]
#[serde(tag = "kty")]
enum Numbers {
    #[serde(rename = "EC")]
    P256 { crv: &'static str, x: String, y: String },
    #[serde(rename = "OKP")]
    Ed25519 { crv: &'static str, x: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

/// Reads a key, or adds all its violations.
pub(super) fn read(v: &mut Violations, field: String, value: &Value) -> Option<Key> {
    let Some(members) = value.as_object() else {
        v.add(field, "must be a JSON object");
        return None;
    };
    refuse_members(v, &field, members);
    let key = Members { field, members };
    let kid = kid(v, &key);
    let kty = key.text("kty");
    let alg = algorithm(v, &key, kty);
    if key.members.get("use").is_some_and(|usage| usage != "sig") {
        v.add(key.path("use"), "must be sig, if it is there");
    }
    if key.members.get("key_ops").is_some_and(|ops| !verifies_only(ops)) {
        v.add(key.path("key_ops"), "must hold verify alone, if it is there");
    }
    let numbers = match kty {
        "EC" => p256(v, &key),
        "OKP" => ed25519(v, &key),
        "RSA" => rsa(v, &key),
        _ => {
            v.add(key.path("kty"), "must be EC, OKP or RSA");
            None
        }
    };
    Some(Key {
        kid: kid?,
        alg: alg?,
        usage: "sig",
        numbers: numbers?,
    })
}

/// Adds a violation for each member that no object of a key set may have.
pub(super) fn refuse_members(v: &mut Violations, field: &str, members: &Map<String, Value>) {
    let mut refuse = |names: &[&str], why: &str| {
        for name in names.iter().filter(|name| members.contains_key(**name)) {
            v.add(format!("{field}.{name}"), why);
        }
    };
    refuse(
        &PRIVATE,
        "must not be sent: replace this key, it is secret no more",
    );
    refuse(&ELSEWHERE, "must not be sent: keys are given inline");
}

/// A key's members, and where it stands.
struct Members<'a> {
    field: String,
    members: &'a Map<String, Value>,
}

impl Members<'_> {
    fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.field)
    }

    /// A member that is a text; empty if there is none.
    fn text(&self, name: &str) -> &str {
        self.members.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Bytes in base64url without padding, and their text: there is only one for the same bytes.
    fn bytes(&self, v: &mut Violations, name: &str) -> Option<(Vec<u8>, String)> {
        let text = self.text(name);
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if !bytes.is_empty() => Some((bytes, text.to_owned())),
            _ => {
                v.add(self.path(name), "must be base64url without padding");
                None
            }
        }
    }

    /// A coordinate on a curve of 256 bits.
    fn coordinate(&self, v: &mut Violations, name: &str) -> Option<([u8; 32], String)> {
        let (bytes, text) = self.bytes(v, name)?;
        if let Ok(bytes) = bytes.try_into() {
            return Some((bytes, text));
        }
        v.add(self.path(name), "must have 32 bytes");
        None
    }

    fn curve(&self, v: &mut Violations, curve: &'static str) -> Option<&'static str> {
        if self.text("crv") == curve {
            return Some(curve);
        }
        v.add(self.path("crv"), format!("must be {curve}"));
        None
    }
}

fn kid(v: &mut Violations, key: &Members<'_>) -> Option<String> {
    let kid = key.text("kid");
    let printable = kid.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if printable && (1..=MAX_KID_BYTES).contains(&kid.len()) {
        return Some(kid.to_owned());
    }
    v.add(
        key.path("kid"),
        format!("must have 1 to {MAX_KID_BYTES} characters, all printable ASCII"),
    );
    None
}

/// The algorithm, one that a key of this type can have.
fn algorithm(v: &mut Violations, key: &Members<'_>, kty: &str) -> Option<&'static str> {
    let known: &[&str] = match kty {
        "EC" => &["ES256"],
        "OKP" => &["EdDSA"],
        "RSA" => &["RS256", "PS256"],
        _ => &["ES256", "EdDSA", "RS256", "PS256"],
    };
    let alg = key.text("alg");
    let found = known.iter().find(|known| **known == alg).copied();
    if found.is_none() {
        v.add(key.path("alg"), format!("must be {}", known.join(" or ")));
    }
    found
}

fn verifies_only(key_ops: &Value) -> bool {
    key_ops
        .as_array()
        .is_some_and(|ops| !ops.is_empty() && ops.iter().all(|op| op == "verify"))
}

/// A point of P-256 (RFC 7518 §6.2.1).
fn p256(v: &mut Violations, key: &Members<'_>) -> Option<Numbers> {
    let crv = key.curve(v, "P-256");
    let (x, y) = (key.coordinate(v, "x"), key.coordinate(v, "y"));
    let ((x, x_text), (y, y_text)) = (x?, y?);
    let uncompressed = [&[4], &x[..], &y[..]].concat();
    if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed).is_err() {
        v.add(key.path("x"), "must be, together with y, a point on the curve");
        return None;
    }
    Some(Numbers::P256 {
        crv: crv?,
        x: x_text,
        y: y_text,
    })
}

/// A point of Ed25519 (RFC 8037 §2).
fn ed25519(v: &mut Violations, key: &Members<'_>) -> Option<Numbers> {
    let crv = key.curve(v, "Ed25519");
    let (x, text) = key.coordinate(v, "x")?;
    if has_small_order(x) {
        v.add(key.path("x"), "must not be a point for which anyone can sign");
        return None;
    }
    Some(Numbers::Ed25519 { crv: crv?, x: text })
}

/// Whether this is one of the points of Ed25519 whose order divides 8: signatures for them can be made
/// without a private key. The highest bit, the sign of the other coordinate, makes no difference.
fn has_small_order(mut point: [u8; 32]) -> bool {
    point[31] &= 0x7f;
    let (first, last, between) = (point[0], point[31], &point[1..31]);
    // 0, 1 and -1; and 0 and 1 once more, written as the prime and the number after it.
    let small = first <= 1 && last == 0 && between.iter().all(|byte| *byte == 0);
    let large = (0xec..=0xee).contains(&first) && last == 0x7f && between.iter().all(|byte| *byte == 0xff);
    small || large || ORDER_EIGHT.contains(&point)
}

/// The points of order 8.
const ORDER_EIGHT: [[u8; 32]; 2] = [
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

/// A modulus and an exponent (RFC 7518 §6.3.1).
fn rsa(v: &mut Violations, key: &Members<'_>) -> Option<Numbers> {
    let modulus = key.bytes(v, "n").filter(|(n, _)| {
        let sound = is_odd(n) && bits(n).is_some_and(|bits| MODULUS_BITS.contains(&bits));
        if !sound {
            let (least, most) = (MODULUS_BITS.start(), MODULUS_BITS.end());
            let rule = format!("must be an odd number of {least} to {most} bits, without leading zeros");
            v.add(key.path("n"), rule);
        }
        sound
    });
    let exponent = key.bytes(v, "e").filter(|(e, _)| {
        let sound = is_odd(e) && bits(e).is_some() && EXPONENTS.contains(&number(e));
        if !sound {
            let (least, most) = (EXPONENTS.start(), EXPONENTS.end());
            let rule = format!("must be an odd number from {least} to {most}, without leading zeros");
            v.add(key.path("e"), rule);
        }
        sound
    });
    let ((_, n), (_, e)) = (modulus?, exponent?);
    Some(Numbers::Rsa { n, e })
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte % 2 == 1)
}

/// How many bits a big-endian number has; `None` if its first byte is zero.
fn bits(number: &[u8]) -> Option<usize> {
    let first = number.first().filter(|byte| **byte != 0)?;
    Some(number.len() * 8 - first.leading_zeros() as usize)
}

/// A big-endian number, or the largest there is for a larger one.
fn number(bytes: &[u8]) -> u64 {
    let shifted = |value: u64, byte: &u8| value.checked_mul(256)?.checked_add(u64::from(*byte));
    bytes.iter().try_fold(0, shifted).unwrap_or(u64::MAX)
}
