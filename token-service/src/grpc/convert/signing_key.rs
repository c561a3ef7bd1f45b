//! Signing keys between messages and the noun.

use accord::{
    clock::UnixMillis,
    text::{
        page::{Page, PageRequest},
        validation::Violations,
    },
    token::v1 as pb,
};
use uuid::Uuid;

use crate::model::signing_key::{ALGORITHM, SigningKey, State};

/// Reads a `ListSigningKeysRequest`.
///
/// # Errors
/// All violations.
pub fn list(request: &pb::ListSigningKeysRequest) -> Result<(Option<State>, PageRequest), Violations> {
    let mut v = Violations::default();
    let state = match pb::SigningKeyState::try_from(request.state) {
        Ok(pb::SigningKeyState::Unspecified) => Some(None),
        Ok(pb::SigningKeyState::Next) => Some(Some(State::Next)),
        Ok(pb::SigningKeyState::Active) => Some(Some(State::Active)),
        Ok(pb::SigningKeyState::Retired) => Some(Some(State::Retired)),
        Ok(pb::SigningKeyState::Revoked) => Some(Some(State::Revoked)),
        Err(_) => {
            v.add("state", "must be a known state");
            None
        }
    };
    let state_filter = request.state.to_string();
    let page = PageRequest::parse(
        &mut v,
        "signing_keys",
        &[&state_filter],
        request.page_size,
        &request.page_token,
    );
    match (state, page) {
        (Some(state), Some(page)) => Ok((state, page)),
        _ => Err(v),
    }
}

/// Reads a `RotateSigningKeyRequest`.
///
/// # Errors
/// The violation.
pub fn rotate(request: &pb::RotateSigningKeyRequest) -> Result<Option<Uuid>, Violations> {
    let mut v = Violations::default();
    v.request_id("request_id", &request.request_id).ok_or(v)
}

/// Reads a `RevokeSigningKeyRequest`: key id and reason.
///
/// # Errors
/// All violations.
pub fn revoke(request: &pb::RevokeSigningKeyRequest) -> Result<(String, String), Violations> {
    let mut v = Violations::default();
    let kid = v.text("kid", &request.kid, 1..=128);
    let reason = v.multiline("reason", &request.reason, 1..=1000);
    match (kid, reason) {
        (Some(kid), Some(reason)) => Ok((kid, reason)),
        _ => Err(v),
    }
}

/// Writes a key.
pub fn message(key: SigningKey, now: UnixMillis) -> pb::SigningKey {
    let state = match key.state {
        State::Next => pb::SigningKeyState::Next,
        State::Active => pb::SigningKeyState::Active,
        State::Retired => pb::SigningKeyState::Retired,
        State::Revoked => pb::SigningKeyState::Revoked,
    };
    pb::SigningKey {
        published: key.published_at(now),
        kid: key.kid,
        algorithm: ALGORITHM.to_owned(),
        state: state.into(),
        create_time: Some(key.created_at.to_timestamp()),
        activate_time: key.activated_at.map(UnixMillis::to_timestamp),
        retire_time: key.retired_at.map(UnixMillis::to_timestamp),
        revoke_time: key.revoked_at.map(UnixMillis::to_timestamp),
    }
}

/// Writes a key's public half as a JWK.
pub fn json_web_key(key: &SigningKey) -> pb::JsonWebKey {
    pb::JsonWebKey {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: key.x(),
        kid: key.kid.clone(),
        r#use: "sig".to_owned(),
        alg: ALGORITHM.to_owned(),
    }
}

/// Writes a page of keys.
pub fn list_response(keys: Page<SigningKey>, now: UnixMillis) -> pb::ListSigningKeysResponse {
    let page = keys.map(|key| message(key, now));
    pb::ListSigningKeysResponse {
        signing_keys: page.items,
        next_page_token: page.next_page_token,
    }
}
