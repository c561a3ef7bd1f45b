//! Issuance, renewal, introspection and revocation, rule by rule, through both services.

pub mod documents;
pub mod endings;
pub mod issuance;
pub mod renewal;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

fn claims(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

pub fn header(token: &str) -> serde_json::Value {
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}
