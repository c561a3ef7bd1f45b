//! DPoP at the token endpoint (RFC 9449 §5): what binds a token, and what of a call is used up by a proof that is not accepted.

use std::time::Duration;

use accord::{clock::Clock, testing::dpop::ProofKey};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Answer, Request, assert_error, client::Fields, keys::ClientKey, tokens_issued};
use crate::{
    http::token::{CREDENTIALS, TOKEN, by_code},
    world::{World, confirmation},
};

mod nonces;
mod proofs;
mod rpc;

/// The URL of the token endpoint, as the metadata has it.
fn endpoint(world: &World) -> String {
    format!("{}/oauth2/token", world.issuer)
}

fn now(world: &World) -> i64 {
    world.clock().now().as_secs()
}

/// A new proof for the token endpoint.
fn proof(world: &World, key: &ProofKey) -> String {
    key.proof(&endpoint(world), now(world))
}

/// A proof whose header and claims were changed.
fn altered(world: &World, key: &ProofKey, change: impl FnOnce(&mut Value, &mut Value)) -> String {
    key.altered(&endpoint(world), now(world), change)
}

/// Requests a token with this proof and these fields.
async fn ask_for(world: &World, proof: &str, fields: &Fields<'_>) -> Answer {
    let request = Request::post(TOKEN).basic(&world.client);
    request.header("DPoP", proof).form(fields).send(world).await
}

/// Requests a token by client credentials with this proof.
async fn ask(world: &World, proof: &str) -> Answer {
    ask_for(world, proof, &[CREDENTIALS]).await
}

/// A world whose client has a grant, so that it could ask for tokens by itself.
async fn world_with_grant() -> World {
    let world = World::start().await;
    world.first_tokens().await;
    world
}

/// Asserts that an answer has a token that is bound to the key.
#[track_caller]
fn assert_bound(answer: &Answer, key: &ProofKey) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text("token_type"), "DPoP");
    let token = answer.text("access_token");
    assert_eq!(confirmation(&token), json!({"jkt": key.jkt()}));
    token
}

#[tokio::test]
async fn a_proof_binds_each_access_token_to_its_key_and_no_refresh_token() {
    let world = World::start().await;
    let (first, second) = (ProofKey::es256(), ProofKey::ed25519());
    let code = world.code().await;
    let answer = ask_for(&world, &proof(&world, &first), &by_code(&code)).await;
    assert_bound(&answer, &first);
    // RFC 9449 §5: those of a confidential client are bound to the client.
    let refresh_token = answer.text("refresh_token");
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh_token),
    ];
    let answer = ask_for(&world, &proof(&world, &second), &fields).await;
    assert_bound(&answer, &second);
    let token = assert_bound(&ask(&world, &proof(&world, &first)).await, &first);
    let introspected = world.introspect(&token).await;
    assert_eq!(introspected.token_type, "DPoP");
    assert_eq!(introspected.cnf.unwrap().jkt, first.jkt());
    // The record says which token is bound to what.
    let events = world.audit_events("token.issue").await;
    let bound: Vec<_> = events
        .iter()
        .filter_map(|event| event.detail.get("jkt"))
        .collect();
    assert_eq!(bound.len(), 3);
    assert!(bound.contains(&&first.jkt()) && bound.contains(&&second.jkt()));
}

#[tokio::test]
async fn without_a_proof_a_token_is_a_bearer_token() {
    let world = world_with_grant().await;
    let request = Request::post(TOKEN).basic(&world.client).form(&[CREDENTIALS]);
    let answer = request.send(&world).await;
    assert_eq!(answer.text("token_type"), "Bearer");
    assert_eq!(answer.header("dpop-nonce"), None);
    let introspected = world.introspect(&answer.text("access_token")).await;
    assert_eq!(
        (introspected.token_type.as_str(), introspected.cnf),
        ("Bearer", None)
    );
}

#[tokio::test]
async fn a_proof_replayed_from_32_connections_at_once_yields_one_token() {
    let world = world_with_grant().await;
    let issued = tokens_issued(&world).await;
    let proof = proof(&world, &ProofKey::es256());
    let request = Request::post(TOKEN).basic(&world.client).header("DPoP", &*proof);
    let request = request.form(&[CREDENTIALS]);
    let mut calls = JoinSet::new();
    for _ in 0..32 {
        let (request, address) = (request.clone(), world.http_address());
        calls.spawn(async move { request.send_to(address).await });
    }
    let answers = calls.join_all().await;
    let (good, bad): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(good.len(), 1);
    for answer in bad {
        assert_error(answer, 400, "invalid_dpop_proof");
    }
    assert_eq!(tokens_issued(&world).await, issued + 1);
}

#[tokio::test]
async fn a_rejected_proof_uses_up_neither_code_nor_refresh_token_nor_assertion() {
    let world = World::start().await;
    let (key, signer) = (ProofKey::es256(), ClientKey::of_client(&world, "ES256"));
    let code = world.code().await;
    let used = proof(&world, &key);
    let late = altered(&world, &key, |_, claims| claims["iat"] = json!(now(&world) - 61));
    let assertion = signer.assertion(&world);
    let by_assertion = |fields: &Fields<'_>, proof: &str| {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let more = [("client_assertion_type", kind), ("client_assertion", &*assertion)];
        let fields = [fields, &more].concat();
        Request::post(TOKEN).header("DPoP", proof).form(&fields)
    };
    let fields = by_code(&code);
    assert_error(
        &by_assertion(&fields, &late).send(&world).await,
        400,
        "invalid_dpop_proof",
    );
    let answer = by_assertion(&fields, &used).send(&world).await;
    assert_bound(&answer, &key);

    let refresh_token = answer.text("refresh_token");
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh_token),
    ];
    for bad in [&used, &late] {
        assert_error(&ask_for(&world, bad, &fields).await, 400, "invalid_dpop_proof");
    }
    let answer = ask_for(&world, &proof(&world, &key), &fields).await;
    assert_bound(&answer, &key);
    assert!(world.audit_events("refresh_token.repeat").await.is_empty());
    // Whoever replays a whole call that was heard ends no family.
    world.clock().advance(Duration::from_secs(31));
    let next = answer.text("refresh_token");
    let newer = [("grant_type", "refresh_token"), ("refresh_token", &*next)];
    assert_bound(&ask_for(&world, &proof(&world, &key), &newer).await, &key);
    assert_error(&ask_for(&world, &used, &fields).await, 400, "invalid_dpop_proof");
    assert!(world.audit_events("refresh_token.reuse").await.is_empty());
}

#[tokio::test]
async fn a_call_that_fails_for_something_else_can_be_repeated_with_its_proof() {
    let world = world_with_grant().await;
    let key = ProofKey::es256();
    let proof = proof(&world, &key);
    let wrong = [CREDENTIALS, ("resource", "https://else.example")];
    assert_error(&ask_for(&world, &proof, &wrong).await, 400, "invalid_target");
    assert_error(
        &ask_for(&world, &proof, &by_code("acc_1")).await,
        400,
        "invalid_grant",
    );
    assert_bound(&ask(&world, &proof).await, &key);
    assert!(world.audit_events("token.refuse").await.is_empty());
    assert_error(&ask(&world, &proof).await, 400, "invalid_dpop_proof");
    assert_eq!(world.audit_events("token.refuse").await.len(), 1);
}

#[tokio::test]
async fn another_key_than_those_of_dpop_jkts_yields_nothing_and_is_an_event() {
    let world = World::start().await;
    let tokens = world.first_tokens().await;
    let (own, second, foreign) = (ProofKey::es256(), ProofKey::ed25519(), ProofKey::es256());
    world.change_client(|client| client.dpop_jkts = vec![own.jkt(), second.jkt()]);
    let issued = tokens_issued(&world).await;
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*tokens.refresh_token),
    ];
    for fields in [&fields[..], &[CREDENTIALS]] {
        let answer = ask_for(&world, &proof(&world, &foreign), fields).await;
        assert_error(&answer, 400, "invalid_dpop_proof");
        assert!(
            answer.text("error_description").contains("dpop_jkts"),
            "{answer:?}"
        );
        // Without a proof the token would be of use to whoever has it.
        let unbound = Request::post(TOKEN).basic(&world.client).form(fields);
        assert_error(&unbound.send(&world).await, 400, "invalid_dpop_proof");
    }
    assert_eq!(tokens_issued(&world).await, issued);
    let events = world.audit_events("dpop_key.refuse").await;
    assert_eq!(events.len(), 4);
    for event in &events {
        assert_eq!(event.client_id, world.client_id);
        assert!(event.detail.get("jkt").is_none_or(|jkt| *jkt == foreign.jkt()));
    }
    // The partner notices nothing.
    assert_bound(&ask_for(&world, &proof(&world, &own), &fields).await, &own);
    assert_bound(&ask(&world, &proof(&world, &second)).await, &second);
}
