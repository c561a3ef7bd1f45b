//! The public key in a proof's header (RFC 7517, RFC 7518 §6, RFC 8037 §2), and its thumbprint (RFC 7638).

use std::{collections::HashMap, ops::RangeInclusive};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::{Deserialize, de::IgnoredAny};

use super::ProofError;

/// Members of private and of shared keys (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
pub(crate) const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// Bits of an RSA modulus. A shorter one is weak. A longer one costs more to verify, and any stranger can cause that.
pub(crate) const RSA_BITS: RangeInclusive<usize> = 2_048..=4_096;
/// The length of a coordinate of P-256, and of a public key of Ed25519.
const COORDINATE_BYTES: usize = 32;
/// The points of Ed25519 whose order is 8, in base64url.
const ORDER_EIGHT: [&str; 2] = [
    "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
    "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
];

/// A key as a header has it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
    n: String,
    e: String,
    /// Private ones are rejected. Others, `kid` and `use` among them, change nothing.
    #[serde(flatten)]
    others: HashMap<String, IgnoredAny>,
}

/// A public key for one algorithm.
pub(super) struct PublicKey {
    algorithm: Algorithm,
    key: DecodingKey,
    thumbprint: String,
}

impl PublicKey {
    /// Reads the key of a proof that names this algorithm.
    ///
    /// # Errors
    /// [`ProofError::Algorithm`] for another algorithm than those of [`super::ALGORITHMS`]; [`ProofError::Key`].
    pub(super) fn parse(jwk: &Jwk, alg: &str) -> Result<Self, ProofError> {
        // RFC 9449 §4.3 number 7.
        if PRIVATE_MEMBERS.iter().any(|name| jwk.others.contains_key(*name)) {
            return Err(ProofError::Key("have no private member"));
        }
        // The thumbprint is the hash of exactly these members, in this order (RFC 7638 §3.2). Base64url needs no escapes.
        let (algorithm, key, members) = match alg {
            "ES256" => {
                let rule = ProofError::Key("be a public key of P-256 (kty EC) for alg ES256");
                if jwk.kty != "EC" || jwk.crv != "P-256" {
                    return Err(rule);
                }
                let coordinates = [&jwk.x, &jwk.y].map(|text| decoded(text, COORDINATE_BYTES));
                let [Some(_), Some(_)] = coordinates else {
                    return Err(rule);
                };
                let key = DecodingKey::from_ec_components(&jwk.x, &jwk.y).map_err(|_| rule)?;
                let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, jwk.x, jwk.y);
                (Algorithm::ES256, key, members)
            }
            "EdDSA" | "Ed25519" => {
                let rule = ProofError::Key("be a public key of Ed25519 (kty OKP) for alg EdDSA and Ed25519");
                let x = decoded(&jwk.x, COORDINATE_BYTES).and_then(|x| x.try_into().ok());
                if jwk.kty != "OKP" || jwk.crv != "Ed25519" || x.is_none_or(has_small_order) {
                    return Err(rule);
                }
                let key = DecodingKey::from_ed_components(&jwk.x).map_err(|_| rule)?;
                let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, jwk.x);
                (Algorithm::EdDSA, key, members)
            }
            "PS256" => {
                let rule = ProofError::Key("be an RSA key of 2048 to 4096 bits for alg PS256");
                let parts = [&jwk.n, &jwk.e].map(|text| URL_SAFE_NO_PAD.decode(text));
                let [Ok(modulus), Ok(exponent)] = parts else {
                    return Err(rule);
                };
                // RFC 7518 §2: without zeros in front. Else one key had several thumbprints.
                let is_minimal = [&modulus, &exponent]
                    .iter()
                    .all(|number| number.first().is_some_and(|first| *first != 0));
                let bits = modulus.first().map_or(0, |first| {
                    modulus.len().saturating_mul(8) - first.leading_zeros() as usize
                });
                if jwk.kty != "RSA" || !is_minimal || !RSA_BITS.contains(&bits) {
                    return Err(rule);
                }
                let key = DecodingKey::from_rsa_raw_components(&modulus, &exponent);
                let members = format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, jwk.e, jwk.n);
                (Algorithm::PS256, key, members)
            }
            _ => return Err(ProofError::Algorithm),
        };
        Ok(Self {
            algorithm,
            key,
            thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes())),
        })
    }

    /// Returns whether the key made this signature, in base64url.
    pub(super) fn verifies(&self, message: &str, signature: &str) -> bool {
        let verified = crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm);
        verified.unwrap_or(false)
    }

    /// Returns the thumbprint (RFC 7638): 43 base64url characters.
    pub(super) fn into_thumbprint(self) -> String {
        self.thumbprint
    }
}

/// Returns whether this is a point of Ed25519 whose order divides 8: anyone can sign for it, without a private key.
/// Ignores the highest bit, which is the sign of the other coordinate.
pub fn has_small_order(mut point: [u8; 32]) -> bool {
    point[31] &= 0x7f;
    let (first, last, between) = (point[0], point[31], &point[1..31]);
    // The coordinates 0, 1 and -1. The prime and the number after it are other forms of 0 and 1.
    let small = first <= 1 && last == 0 && between.iter().all(|byte| *byte == 0);
    let large = (0xec..=0xee).contains(&first) && last == 0x7f && between.iter().all(|byte| *byte == 0xff);
    small || large || ORDER_EIGHT.contains(&URL_SAFE_NO_PAD.encode(point).as_str())
}

/// Decodes base64url of this many bytes. Rejects padding and other spellings of the same bytes.
fn decoded(text: &str, bytes: usize) -> Option<Vec<u8>> {
    let decoded = URL_SAFE_NO_PAD.decode(text).ok()?;
    (decoded.len() == bytes).then_some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn parse(alg: &str, jwk: Value) -> Result<String, ProofError> {
        let jwk: Jwk = serde_json::from_value(jwk).unwrap();
        PublicKey::parse(&jwk, alg).map(PublicKey::into_thumbprint)
    }

    fn rsa(bits: usize) -> Value {
        let mut modulus = vec![0xFF; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"})
    }

    #[test]
    fn thumbprints_are_those_of_the_rfcs() {
        // RFC 9449 §6.1, for the key of its Figure 2.
        let es256 = json!({
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
            "kid": "ignored", "use": "enc",
        });
        let thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(parse("ES256", es256), Ok(thumbprint.to_owned()));
        // RFC 8037 A.3.
        let ed25519 = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        for alg in ["EdDSA", "Ed25519"] {
            let thumbprint = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
            assert_eq!(parse(alg, ed25519.clone()), Ok(thumbprint.to_owned()));
        }
        // RFC 7638 §3.1.
        let rsa = json!({
            "kty": "RSA", "e": "AQAB",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCi\
                  FV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb\
                  9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls\
                  1jF44-csFCur-kEgU8awapJzKnqDKgw",
        });
        let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(parse("PS256", rsa), Ok(thumbprint.to_owned()));
    }

    #[test]
    fn an_rsa_key_has_2048_to_4096_bits() {
        for (bits, accepted) in [
            (512, false),
            (2_047, false),
            (2_048, true),
            (4_096, true),
            (4_097, false),
            (16_384, false),
        ] {
            assert_eq!(parse("PS256", rsa(bits)).is_ok(), accepted, "{bits}");
        }
    }

    #[test]
    fn a_key_of_small_order_is_rejected() {
        let zeros = URL_SAFE_NO_PAD.encode([0; 32]);
        let one = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        for x in [one, &zeros, ORDER_EIGHT[0], ORDER_EIGHT[1]] {
            for alg in ["EdDSA", "Ed25519"] {
                let parsed = parse(alg, json!({"kty": "OKP", "crv": "Ed25519", "x": x}));
                assert!(matches!(parsed, Err(ProofError::Key(_))), "{x}");
            }
        }
    }

    #[test]
    fn a_key_is_public_and_fits_its_algorithm() {
        let x = URL_SAFE_NO_PAD.encode([1; 32]);
        let short = URL_SAFE_NO_PAD.encode([1; 31]);
        let ec = json!({"kty": "EC", "crv": "P-256", "x": x, "y": x});
        let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
        let with = |key: &Value, name: &str, value: Value| {
            let mut key = key.clone();
            key[name] = value;
            key
        };
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            for value in [json!("AQ"), json!(null), json!([])] {
                let rejected = parse("ES256", with(&ec, name, value));
                assert_eq!(rejected, Err(ProofError::Key("have no private member")), "{name}");
            }
        }
        let unpadded = format!("{x}=");
        let minimal = rsa(2_048)["n"].as_str().unwrap().to_owned();
        let padded = [vec![0], URL_SAFE_NO_PAD.decode(&minimal).unwrap()].concat();
        for (alg, key) in [
            ("ES256", okp.clone()),
            ("ES256", rsa(2_048)),
            ("ES256", with(&ec, "crv", json!("P-384"))),
            ("ES256", with(&ec, "x", json!(short))),
            ("ES256", with(&ec, "y", json!(""))),
            ("ES256", with(&ec, "y", json!(unpadded))),
            ("EdDSA", ec.clone()),
            ("EdDSA", with(&okp, "crv", json!("Ed448"))),
            ("EdDSA", with(&okp, "x", json!(short))),
            ("PS256", ec.clone()),
            ("PS256", with(&rsa(2_048), "e", json!(""))),
            (
                "PS256",
                with(&rsa(2_048), "n", json!(URL_SAFE_NO_PAD.encode(padded))),
            ),
        ] {
            assert!(
                matches!(parse(alg, key.clone()), Err(ProofError::Key(_))),
                "{alg} {key}"
            );
        }
        for alg in ["RS256", "HS256", "none", "es256", "ES384", ""] {
            assert_eq!(parse(alg, ec.clone()), Err(ProofError::Algorithm), "{alg}");
        }
    }
}
