//! A client's public keys, by which it proves itself with signed assertions instead of a secret
//! (RFC 7523 §2.2): which JSON Web Key Sets are taken, and in what form they are kept. What a single
//! key must be like is in `jwk`.

use accord::text::validation::{Violations, list_field};
use serde::Serialize;
use serde_json::Value;

mod jwk;

/// The longest key set that is taken, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// How many keys a client may have: enough to change over without a gap.
pub const MAX_KEYS: usize = 10;

/// The field that holds the key set, in messages and in violations.
const FIELD: &str = "json_web_key_set";

/// A client's public keys in canonical form: known members alone, in one order, the keys sorted by
/// `kid`. Two sets that mean the same are the same text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientKeys {
    json: String,
    kids: Vec<String>,
}

impl ClientKeys {
    /// Reads a JSON Web Key Set (RFC 7517 §5). An empty text, or a set without keys, means none.
    ///
    /// # Errors
    /// All violations; none holds a value of the text.
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
        keys.sort_by(|one, other| one.kid.cmp(&other.kid));
        let kids = keys.iter().map(|key| key.kid.clone()).collect();
        let json = v.check(FIELD, serde_json::to_string(&KeySet { keys }));
        json.map(|json| Self { json, kids }).ok_or(v)
    }

    /// The key set as it is kept and shown; empty if there are no keys.
    pub fn as_str(&self) -> &str {
        &self.json
    }

    /// The names of the keys, sorted.
    pub fn kids(&self) -> &[String] {
        &self.kids
    }
}

#[derive(Serialize)]
struct KeySet {
    keys: Vec<jwk::Key>,
}

/// The keys of a set that are sound, in its order, and the violations of all others.
fn read(v: &mut Violations, text: &str) -> Vec<jwk::Key> {
    let parsed = serde_json::from_str::<Value>(text).unwrap_or_default();
    let Some(set) = parsed.as_object() else {
        v.add(FIELD, "must be a JSON object with an array `keys`");
        return Vec::new();
    };
    jwk::refuse_members(v, FIELD, set);
    let list = format!("{FIELD}.keys");
    let Some(elements) = set.get("keys").and_then(Value::as_array) else {
        v.add(list, "must be an array");
        return Vec::new();
    };
    if elements.len() > MAX_KEYS {
        v.add(list.as_str(), format!("must have at most {MAX_KEYS} elements"));
    }
    let (mut keys, mut kids) = (Vec::new(), Vec::new());
    // Of more, none needs a look of its own; and an answer has to fit into the headers of a response.
    for (index, element) in elements.iter().enumerate().take(MAX_KEYS) {
        let field = list_field(&list, index);
        let kid = element.get("kid").and_then(Value::as_str).unwrap_or_default();
        if !kid.is_empty() && kids.contains(&kid) {
            v.add(format!("{field}.kid"), "must differ from that of every other key");
        }
        kids.push(kid);
        keys.extend(jwk::read(v, field, element));
    }
    keys
}

#[cfg(test)]
#[path = "client_keys/tests.rs"]
mod tests;
