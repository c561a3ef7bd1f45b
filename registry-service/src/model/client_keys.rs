//! A client's public keys, with which it authenticates by signed assertions (RFC 7523 §2.2), or by the certificates that come
//! with them (RFC 8705 §2.2), instead of a secret.
//! Reads JSON Web Key Sets and writes them in canonical form. The rules for a single key are in `accord::text::jwk`.

use accord::text::{
    jwk::{
        self,
        certificate::{self, CertifiedKey},
    },
    validation::{Violations, list_field},
};
use serde::Serialize;
use serde_json::{Value, json};

/// The longest key set, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// The most keys of a client: enough to replace one without a gap.
pub const MAX_KEYS: usize = 10;

/// The field that holds the key set, in messages and in violations.
const FIELD: &str = "json_web_key_set";

/// A client's public keys in canonical form: only known members, in one order, the keys sorted. Equal sets have
/// equal texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientKeys {
    json: String,
    kids: Vec<String>,
}

impl ClientKeys {
    /// Reads a JSON Web Key Set (RFC 7517 §5). An empty text, or a set without keys, means no keys. No violation holds a
    /// value of the text.
    pub fn parse(text: &str) -> Result<Self, Violations> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut v = Violations::default();
        if text.len() > MAX_BYTES {
            v.add(FIELD, format!("must have at most {MAX_BYTES} bytes"));
            return Err(v);
        }
        let mut keys = read(&mut v, text);
        if !v.is_empty() {
            return Err(v);
        }
        if keys.is_empty() {
            return Ok(Self::default());
        }
        // Several keys may have one name, or none.
        keys.sort_by_cached_key(|key| (key.kid().cloned(), serde_json::to_string(key).unwrap_or_default()));
        let kids = keys.iter().filter_map(|key| key.kid().cloned()).collect();
        let json = v.check(FIELD, serde_json::to_string(&KeySet { keys }));
        json.map(|json| Self { json, kids }).ok_or(v)
    }

    /// Returns the key set as it is stored and shown. It is empty if there are no keys.
    pub fn as_str(&self) -> &str {
        &self.json
    }

    /// Returns whether each of the keys is in another set in canonical form.
    pub fn are_within(&self, others: &str) -> bool {
        let others = elements(others);
        elements(&self.json).iter().all(|key| others.contains(key))
    }

    /// Adds the keys of another set in canonical form.
    ///
    /// # Errors
    /// A violation if there are too many, or the text is too long.
    pub fn joined(&self, others: &str) -> Result<Self, Violations> {
        let mut all = elements(others);
        let new = elements(&self.json);
        all.extend(new.into_iter().filter(|key| !elements(others).contains(key)));
        Self::parse(&json!({"keys": all}).to_string())
    }

    /// Returns whether a key signs assertions. Others are there for their certificates.
    pub fn sign_assertions(&self) -> bool {
        elements(&self.json).iter().any(signs_assertions)
    }

    /// Returns whether the client has keys that sign assertions and all of them are limited to RS256.
    pub fn are_for_rs256_alone(&self) -> bool {
        let keys = elements(&self.json);
        let mut signing = keys.iter().filter(|key| signs_assertions(key)).peekable();
        signing.peek().is_some() && signing.all(|key| key["alg"] == "RS256")
    }

    /// Returns the names of the keys that have one, sorted.
    pub fn kids(&self) -> &[String] {
        &self.kids
    }
}

/// Returns the keys of a set in canonical form.
fn elements(json: &str) -> Vec<Value> {
    let set = serde_json::from_str::<Value>(json).unwrap_or_default();
    set["keys"].as_array().cloned().unwrap_or_default()
}

/// Returns whether a key in canonical form signs assertions. Only such keys have the member `use`.
fn signs_assertions(key: &Value) -> bool {
    key["use"] == "sig"
}

#[derive(Serialize)]
struct KeySet {
    keys: Vec<ClientKey>,
}

/// A key of a client.
#[derive(Serialize)]
#[serde(untagged)]
enum ClientKey {
    /// Signs assertions.
    Signing(jwk::Key),
    /// Only its certificate is used.
    Certified(CertifiedKey),
}

impl ClientKey {
    fn kid(&self) -> Option<&String> {
        match self {
            Self::Signing(key) => key.kid.as_ref(),
            Self::Certified(key) => key.kid.as_ref(),
        }
    }
}

/// Returns the keys of a set that can verify assertions, or that have a certificate, in its order. Skips keys for other uses, and
/// adds the violations of keys that are meant for this one and are malformed, or that expose a private key.
fn read(v: &mut Violations, text: &str) -> Vec<ClientKey> {
    let parsed = serde_json::from_str::<Value>(text).unwrap_or_default();
    let Some(set) = parsed.as_object() else {
        v.add(FIELD, "must be a JSON object with an array `keys`");
        return Vec::new();
    };
    jwk::reject_members(v, FIELD, set);
    let list = format!("{FIELD}.keys");
    let Some(elements) = set.get("keys").and_then(Value::as_array) else {
        v.add(list, "must be an array");
        return Vec::new();
    };
    if elements.len() > MAX_KEYS {
        v.add(list.as_str(), format!("must have at most {MAX_KEYS} elements"));
    }
    let mut keys = Vec::new();
    // Skips those beyond the limit, because all violations have to fit into the headers of a response.
    for (index, element) in elements.iter().enumerate().take(MAX_KEYS) {
        let field = list_field(&list, index);
        let signing = jwk::read_with_certificate(v, field.clone(), element);
        keys.extend(match signing {
            Some(key) => Some(ClientKey::Signing(key)),
            None => certificate::read(v, field, element).map(ClientKey::Certified),
        });
    }
    if keys.is_empty() && !elements.is_empty() && v.is_empty() {
        v.add(
            list,
            "must hold a key for signatures, EC P-256, OKP Ed25519 or RSA, or one of EC P-384 or P-521 with its certificate in x5c",
        );
    }
    keys
}

#[cfg(test)]
#[path = "client_keys/tests.rs"]
mod tests;
