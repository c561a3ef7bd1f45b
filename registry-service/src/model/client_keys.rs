//! A client's public keys, with which it authenticates by signed assertions instead of a secret (RFC 7523 §2.2).
//! Reads JSON Web Key Sets and writes them in canonical form. The rules for a single key are in `accord::text::jwk`.

use accord::text::{
    jwk,
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
        keys.sort_by_cached_key(|key| (key.kid.clone(), serde_json::to_string(key).unwrap_or_default()));
        let kids = keys.iter().filter_map(|key| key.kid.clone()).collect();
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

    /// Returns whether there are keys, and every one says that it is for RS256.
    pub fn are_for_rs256_alone(&self) -> bool {
        let keys = elements(&self.json);
        !keys.is_empty() && keys.iter().all(|key| key["alg"] == "RS256")
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

#[derive(Serialize)]
struct KeySet {
    keys: Vec<jwk::Key>,
}

/// Returns the keys of a set that can verify assertions, in its order. Skips keys for other uses, and adds the violations
/// of keys that are meant for this one and are malformed, or that expose a private key.
fn read(v: &mut Violations, text: &str) -> Vec<jwk::Key> {
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
        keys.extend(jwk::read(v, field, element));
    }
    if keys.is_empty() && !elements.is_empty() && v.is_empty() {
        v.add(
            list,
            "must hold a key for signatures: EC P-256, OKP Ed25519 or RSA",
        );
    }
    keys
}

#[cfg(test)]
#[path = "client_keys/tests.rs"]
mod tests;
