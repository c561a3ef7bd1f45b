//! The certificate of a key (RFC 7517 §4.7), by which a client with a self-signed one authenticates (RFC 8705 §2.2).
//!
//! It must not decide whether the certificate is valid.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::Serialize;
use serde_json::{Value, json};
use x509_parser::{
    der_parser::oid,
    prelude::{FromDer, X509Certificate},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use super::{Members, kid};
use crate::text::validation::Violations;

/// The curves of certificates, each with the bytes of a coordinate. Keys on the others than P-256 sign no assertions.
const CURVES: [(&str, usize); 3] = [("P-256", 32), ("P-384", 48), ("P-521", 66)];

/// A key that signs no assertions, with its certificate. Its members are written in this order.
#[derive(Debug, Serialize)]
pub struct CertifiedKey {
    /// The key's name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(flatten)]
    numbers: Value,
    x5c: [String; 1],
}

/// Reads a key that [`super::read`] has skipped, if it is on a curve of certificates and has one, or adds all its violations.
pub fn read(v: &mut Violations, field: String, value: &Value) -> Option<CertifiedKey> {
    let members = value.as_object()?;
    let is_for_signatures = members.get("use").is_none_or(|usage| usage == "sig");
    let is_curve = CURVES[1..].iter().any(|(curve, _)| value["crv"] == *curve);
    if value["kty"] != "EC" || !is_curve || !is_for_signatures {
        return None;
    }
    let key = Members { field, members };
    let x5c = first(v, &key)??;
    Some(CertifiedKey {
        kid: kid(v, &key)?,
        numbers: public_key(&STANDARD.decode(&x5c[0]).ok()?)?,
        x5c,
    })
}

/// Returns the first certificate of a key's `x5c`, if it has one. Those that follow vouch for it, which nobody asks. Adds the
/// violation of one that holds another key.
pub(super) fn first(v: &mut Violations, key: &Members<'_>) -> Option<Option<[String; 1]>> {
    let Some(chain) = key.members.get("x5c") else {
        return Some(None);
    };
    let first = chain[0].as_str().filter(|encoded| holds_key(encoded, key));
    let rule = "must begin with the certificate of this key, in base64 (RFC 7517 §4.7)";
    let first = v.check(&key.path("x5c"), first.ok_or(rule))?;
    Some(Some([first.to_owned()]))
}

fn holds_key(encoded: &str, key: &Members<'_>) -> bool {
    let held = STANDARD.decode(encoded).ok().and_then(|der| public_key(&der));
    let Some(Value::Object(held)) = held else {
        return false;
    };
    held.iter()
        .all(|(name, value)| key.members.get(name) == Some(value))
}

/// Returns the public key of a certificate in DER form as the members `kty`, `crv`, `x`, `y`, `n` and `e` of a JSON Web Key
/// (RFC 7518 §6, RFC 8037 §2). Returns `None` for a key of another type.
pub fn public_key(certificate: &[u8]) -> Option<Value> {
    let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
    let key = certificate.public_key();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if !rest.is_empty() {
        return None;
    }
    if key.algorithm.algorithm == oid!(1.3.101.112) {
        let x = encode(&key.subject_public_key.data);
        return Some(json!({"kty": "OKP", "crv": "Ed25519", "x": x}));
    }
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => {
            let [n, e] = [rsa.modulus, rsa.exponent].map(|number| encode(without_zeros(number)));
            Some(json!({"kty": "RSA", "n": n, "e": e}))
        }
        PublicKey::EC(point) => {
            let (curve, bytes) = curve(key)?;
            let coordinates = point.data().strip_prefix(&[4])?;
            let (x, y) = coordinates
                .split_at_checked(bytes)
                .filter(|(_, y)| y.len() == bytes)?;
            Some(json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)}))
        }
        _ => None,
    }
}

/// Returns the curve of a key (RFC 5480 §2.1.1.1), and the bytes of a coordinate.
fn curve(key: &SubjectPublicKeyInfo<'_>) -> Option<(&'static str, usize)> {
    let oids = [oid!(1.2.840.10045.3.1.7), oid!(1.3.132.0.34), oid!(1.3.132.0.35)];
    let named = key.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let place = oids.iter().position(|oid| *oid == named)?;
    CURVES.get(place).copied()
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0);
    first.map_or(&[], |first| &number[first..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::certificates::{KeyKind, Pair, Subject};

    #[test]
    fn the_public_key_is_a_json_web_key() {
        for (kind, kty, crv, member, length) in [
            (KeyKind::P256, "EC", json!("P-256"), "y", 43),
            (KeyKind::P384, "EC", json!("P-384"), "y", 64),
            (KeyKind::Ed25519, "OKP", json!("Ed25519"), "x", 43),
            (KeyKind::Rsa2048, "RSA", json!(null), "n", 342),
        ] {
            let key = public_key(&Pair::self_signed(&Subject::default(), kind).der()).unwrap();
            assert_eq!((&key["kty"], &key["crv"]), (&json!(kty), &crv));
            assert_eq!(key[member].as_str().unwrap().len(), length, "{kty} {crv}");
        }
        assert_eq!(public_key(b"x"), None);
    }
}
