//! Nonces (RFC 9449 §8): required, or sent without need.

use std::time::Duration;

use accord::testing::dpop::ProofKey;
use serde_json::json;
use token_service::model::dpop_nonce::NoncePolicy;

use super::{
    super::{Answer, Request, assert_error, keys::ClientKey},
    CREDENTIALS, TOKEN, altered, ask, ask_for, assert_bound, proof,
};
use crate::{http::token::by_code, world::World};

async fn with_required_nonces() -> World {
    World::start_with(|settings| settings.dpop_nonce = NoncePolicy::Required).await
}

fn with_nonce(world: &World, key: &ProofKey, nonce: &str) -> String {
    altered(world, key, |_, claims| claims["nonce"] = json!(nonce))
}

/// The nonce of a challenge.
#[track_caller]
fn challenged(answer: &Answer) -> String {
    assert_error(answer, 400, "use_dpop_nonce");
    answer.header("dpop-nonce").unwrap().to_owned()
}

/// The nonce of a token's answer.
#[track_caller]
fn next(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("dpop-nonce").unwrap().to_owned()
}

#[tokio::test]
async fn a_challenged_call_can_be_repeated_with_its_code_and_its_assertion() {
    let world = with_required_nonces().await;
    let (key, signer) = (ProofKey::es256(), ClientKey::of_client(&world, "ES256"));
    let code = world.code().await;
    let assertion = signer.assertion(&world);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let more = [("client_assertion_type", kind), ("client_assertion", &*assertion)];
    let fields = [&*by_code(&code), &more].concat();
    let send = async |proof: String| {
        let request = Request::post(TOKEN).header("DPoP", proof).form(&fields);
        request.send(&world).await
    };
    let nonce = challenged(&send(proof(&world, &key)).await);
    assert_bound(&send(with_nonce(&world, &key, &nonce)).await, &key);
}

#[tokio::test]
async fn a_challenged_proof_is_not_used() {
    let world = with_required_nonces().await;
    world.first_tokens().await;
    let key = ProofKey::es256();
    let jti = "the same id with the nonce";
    let without = altered(&world, &key, |_, claims| claims["jti"] = json!(jti));
    let nonce = challenged(&ask(&world, &without).await);
    challenged(&ask(&world, &without).await);
    let with = altered(&world, &key, |_, claims| {
        claims["jti"] = json!(jti);
        claims["nonce"] = json!(nonce);
    });
    assert_bound(&ask(&world, &with).await, &key);
}

#[tokio::test]
async fn a_client_that_keeps_the_newest_nonce_is_challenged_once() {
    let world = with_required_nonces().await;
    let key = ProofKey::es256();
    let code = world.code().await;
    let nonce = challenged(&ask_for(&world, &proof(&world, &key), &by_code(&code)).await);
    let mut answer = ask_for(&world, &with_nonce(&world, &key, &nonce), &by_code(&code)).await;
    for _ in 0..5 {
        let (nonce, refresh_token) = (next(&answer), answer.text("refresh_token"));
        world.clock().advance(Duration::from_secs(9 * 60));
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &*refresh_token),
        ];
        answer = ask_for(&world, &with_nonce(&world, &key, &nonce), &fields).await;
        assert_bound(&answer, &key);
    }
}

#[tokio::test]
async fn several_workers_with_one_key_share_a_nonce() {
    let world = with_required_nonces().await;
    world.first_tokens().await;
    let key = ProofKey::es256();
    let nonce = challenged(&ask(&world, &proof(&world, &key)).await);
    for _ in 0..3 {
        assert_bound(&ask(&world, &with_nonce(&world, &key, &nonce)).await, &key);
    }
    // Another client's key, too: a nonce says when, not who.
    let other = ProofKey::ed25519();
    assert_bound(&ask(&world, &with_nonce(&world, &other, &nonce)).await, &other);
}

#[tokio::test]
async fn a_nonce_that_is_expired_or_from_the_future_or_none_of_this_service_is_replaced() {
    let world = with_required_nonces().await;
    world.first_tokens().await;
    let key = ProofKey::es256();
    let nonce = challenged(&ask(&world, &proof(&world, &key)).await);
    for foreign in ["", "n", &nonce[1..], &nonce.to_uppercase()] {
        challenged(&ask(&world, &with_nonce(&world, &key, foreign)).await);
    }
    world.clock().advance(Duration::from_secs(600));
    let newer = challenged(&ask(&world, &with_nonce(&world, &key, &nonce)).await);
    assert_bound(&ask(&world, &with_nonce(&world, &key, &newer)).await, &key);
    world.clock().set(accord::testing::TEST_START);
    challenged(&ask(&world, &with_nonce(&world, &key, &newer)).await);
}

#[tokio::test]
async fn an_optional_nonce_is_checked_if_it_is_there_and_renewed() {
    let world = World::start().await;
    world.first_tokens().await;
    let key = ProofKey::es256();
    let answer = ask(&world, &proof(&world, &key)).await;
    assert_bound(&answer, &key);
    assert_eq!(answer.header("dpop-nonce"), None);
    let nonce = challenged(&ask(&world, &with_nonce(&world, &key, "of another server")).await);
    let answer = ask(&world, &with_nonce(&world, &key, &nonce)).await;
    assert_bound(&answer, &key);
    next(&answer);
}

#[tokio::test]
async fn a_client_without_proofs_needs_no_nonce() {
    let world = with_required_nonces().await;
    world.first_tokens().await;
    let request = Request::post(TOKEN).basic(&world.client).form(&[CREDENTIALS]);
    let answer = request.send(&world).await;
    assert_eq!((answer.status, answer.header("dpop-nonce")), (200, None));
}
