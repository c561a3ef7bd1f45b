//! A client's public keys (RFC 7517), with which it signs assertions, or whose certificates it presents.
//!
//! A set is read tolerantly: keys for other uses and of other types are skipped, as is a key that can't be used.

use accord::text::{
    jwk::{self, certificate::public_key},
    validation::Violations,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{Jwk, KeyAlgorithm},
};
use serde_json::Value;

/// How many keys of a set are read. Each may cost a verification for every signature.
const MAX_KEYS: usize = 32;

/// The keys of a client.
#[derive(Clone, Default, derive_more::Debug)]
#[debug("ClientKeySet")]
pub struct ClientKeySet {
    keys: Vec<ClientKey>,
    /// The certificates in `x5c` (RFC 7517 §4.7), in DER form: of each key the first.
    certificates: Vec<Vec<u8>>,
}

#[derive(Clone)]
struct ClientKey {
    kid: Option<String>,
    algorithm: Option<KeyAlgorithm>,
    verifying: DecodingKey,
    /// The members of a JSON Web Key.
    members: Value,
}

/// A signature of a JWT that is not verified yet.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The `alg` of the header.
    pub algorithm: Algorithm,
    /// The `kid` of the header.
    pub kid: Option<&'a str>,
    /// The encoded header and claims, which the signature covers.
    pub message: &'a str,
    /// The signature, in base64url.
    pub signature: &'a str,
}

impl ClientKeySet {
    /// Reads a JSON Web Key Set (RFC 7517 §5). Returns `None` for a text that is none; an empty one has no keys.
    pub fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::default());
        }
        let set = serde_json::from_str::<Value>(text).ok()?;
        let elements = set.get("keys")?.as_array()?;
        let elements = elements.iter().take(MAX_KEYS);
        Some(Self {
            keys: elements.clone().filter_map(ClientKey::read).collect(),
            certificates: elements.filter_map(certificate).collect(),
        })
    }

    /// Returns whether one of the keys verifies a signature. Tries each key whose `kid` and `alg` equal the header's;
    /// an absent one equals any (RFC 7517 §4.4, §4.5).
    pub fn verify(&self, signed: &Signed<'_>) -> bool {
        let algorithm = KeyAlgorithm::from(signed.algorithm);
        self.keys.iter().any(|key| {
            let kid = key.kid.as_deref();
            (signed.kid.is_none() || kid.is_none() || kid == signed.kid)
                && key.algorithm.is_none_or(|known| known == algorithm)
                && key.verifying.family() == signed.algorithm.family()
                && crypto::verify(
                    signed.signature,
                    signed.message.as_bytes(),
                    &key.verifying,
                    signed.algorithm,
                )
                .unwrap_or(false)
        })
    }

    /// Returns whether this certificate, in DER form, is in the set, or one of the keys is its public key (RFC 8705 §2.2.2).
    pub fn has_certificate(&self, certificate: &[u8]) -> bool {
        if self.certificates.iter().any(|known| known == certificate) {
            return true;
        }
        let Some(Value::Object(members)) = public_key(certificate) else {
            return false;
        };
        let is_key = |key: &ClientKey| {
            members
                .iter()
                .all(|(name, value)| key.members.get(name) == Some(value))
        };
        self.keys.iter().any(is_key)
    }
}

impl ClientKey {
    fn read(element: &Value) -> Option<Self> {
        let mut v = Violations::default();
        let key = jwk::read(&mut v, String::new(), element).filter(|_| v.is_empty())?;
        let members = serde_json::to_value(&key).ok()?;
        let jwk: Jwk = serde_json::from_value(members.clone()).ok()?;
        Some(Self {
            kid: key.kid,
            algorithm: jwk.common.key_algorithm,
            verifying: DecodingKey::from_jwk(&jwk).ok()?,
            members,
        })
    }
}

/// Returns the certificate of a key, in DER form.
fn certificate(element: &Value) -> Option<Vec<u8>> {
    let is_exposed = element.as_object().is_none_or(jwk::has_private_member);
    let encoded = element["x5c"][0].as_str().filter(|_| !is_exposed)?;
    STANDARD.decode(encoded).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use accord::testing::certificates::{KeyKind, Pair, Subject};
    use serde_json::json;

    use super::*;

    fn set(keys: Vec<Value>) -> ClientKeySet {
        ClientKeySet::read(&json!({ "keys": keys }).to_string()).unwrap()
    }

    fn with(mut key: Value, changes: Value) -> Value {
        let members = key.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        key
    }

    #[test]
    fn a_certificate_is_known_by_its_key_or_as_it_is() {
        for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let [one, other] = [(); 2].map(|()| Pair::self_signed(&Subject::default(), kind).der());
            let key = public_key(&one).unwrap();
            for known in [
                key.clone(),
                with(key.clone(), json!({"kid": "k", "use": "sig", "x5t": "?"})),
            ] {
                let set = set(vec![json!({"kty": "?"}), known]);
                assert!(set.has_certificate(&one), "{kind:?}");
                assert!(!set.has_certificate(&other), "{kind:?}");
            }
            let exposed = set(vec![with(key, json!({"d": "AA"}))]);
            assert!(!exposed.has_certificate(&one), "{kind:?}");
        }
        // A key that signs no assertions.
        let p384 = Pair::self_signed(&Subject::default(), KeyKind::P384).der();
        let key = json!({"kty": "EC", "crv": "P-384", "x5c": [STANDARD.encode(&p384)]});
        assert!(set(vec![key.clone()]).has_certificate(&p384));
        let exposed = with(key.clone(), json!({"d": "AA"}));
        assert!(!set(vec![exposed]).has_certificate(&p384));
        let second = with(key, json!({"x5c": ["AA==", STANDARD.encode(&p384)]}));
        assert!(!set(vec![second]).has_certificate(&p384));
        assert!(!ClientKeySet::default().has_certificate(&p384));
    }

    #[test]
    fn what_is_not_understood_is_skipped() {
        let pair = Pair::self_signed(&Subject::default(), KeyKind::P256).der();
        let good = public_key(&pair).unwrap();
        let foreign = [
            json!("text"),
            json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
            with(good.clone(), json!({"use": "enc"})),
            with(good.clone(), json!({"alg": "ECDH-ES"})),
            with(good.clone(), json!({"x": "AA"})),
            json!({"kty": "oct", "k": "AA"}),
        ];
        for key in &foreign {
            assert!(set(vec![key.clone()]).keys.is_empty(), "{key}");
        }
        let mut keys = foreign.to_vec();
        keys.extend([good.clone(), good.clone()]);
        assert_eq!(set(keys).keys.len(), 2);
        assert_eq!(set(vec![good; 40]).keys.len(), MAX_KEYS);
        for text in ["x", "[]", "{}", "{\"keys\": {}}"] {
            assert!(ClientKeySet::read(text).is_none(), "{text}");
        }
        assert!(ClientKeySet::read("").unwrap().keys.is_empty());
    }
}
