//! Converts signing keys.

use accord::{
    clock::UnixMillis,
    text::{
        page::{Page, PageRequest},
        validation::Violations,
    },
    token::v1 as pb,
};
use uuid::Uuid;

use prost::Message;

use crate::model::signing_key::{Algorithm, SigningKey, State};

accord::message_enum! { State = pb::SigningKeyState { Next, Active, Retired, Revoked } }

/// Reads a `ListSigningKeysRequest`.
pub fn list(request: &pb::ListSigningKeysRequest) -> Result<(Option<State>, PageRequest), Violations> {
    let mut v = Violations::default();
    let state = v.filter::<pb::SigningKeyState, _>("state", request.state);
    let filters = [&*request.state.to_string()];
    let (size, token) = (request.page_size, &request.page_token);
    let page = PageRequest::parse(&mut v, "signing_keys", &filters, size, token);
    v.finish(|| Some((state?, page?)))
}

/// Reads a `RotateSigningKeyRequest`: request id and algorithm.
pub fn rotate(
    request: &pb::RotateSigningKeyRequest,
) -> Result<(Option<Uuid>, Option<Algorithm>), Violations> {
    let mut v = Violations::default();
    let request_id = v.request_id("request_id", &request.request_id);
    let known = |name: &str| name.parse().map_err(|_| format!("must be {}", Algorithm::NAMES));
    let algorithm = v.optional("algorithm", &request.algorithm, known);
    v.finish(|| Some((request_id?, algorithm?)))
}

/// Reads a `RevokeSigningKeyRequest`: key id and reason.
pub fn revoke(request: &pb::RevokeSigningKeyRequest) -> Result<(String, String), Violations> {
    let mut v = Violations::default();
    let kid = v.text("kid", &request.kid, 1..=128);
    let reason = v.multiline("reason", &request.reason, 1..=1000);
    v.finish(|| Some((kid?, reason?)))
}

/// Writes a key.
pub fn message(key: SigningKey, now: UnixMillis) -> pb::SigningKey {
    pb::SigningKey {
        published: key.published_at(now),
        kid: key.kid,
        algorithm: key.algorithm.as_ref().to_owned(),
        state: pb::SigningKeyState::from(key.state).into(),
        create_time: Some(key.created_at.to_timestamp()),
        activate_time: key.activated_at.map(UnixMillis::to_timestamp),
        retire_time: key.retired_at.map(UnixMillis::to_timestamp),
        revoke_time: key.revoked_at.map(UnixMillis::to_timestamp),
    }
}

/// Writes a page of keys.
pub fn list_response(keys: Page<SigningKey>, now: UnixMillis) -> pb::ListSigningKeysResponse {
    let (signing_keys, next_page_token) = keys.map(|key| message(key, now)).fit(Message::encoded_len);
    pb::ListSigningKeysResponse {
        signing_keys,
        next_page_token,
    }
}
