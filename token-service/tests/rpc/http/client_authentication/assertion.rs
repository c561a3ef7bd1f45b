//! Assertions over HTTP: forged, misdirected, too early, too late, or used before. None has an effect.

use std::time::Duration;

use accord::clock::Clock;
use tokio::task::JoinSet;

use super::{
    ASSERTION_TYPE, CREDENTIALS, ENDPOINTS, Request, TOKEN, assert_error, by_assertion, post, tokens_issued,
    world_with_grant,
};
use crate::{
    http::keys::{ALGORITHMS, ClientKey, jwt, key_set},
    world::World,
};

pub mod bad;

use bad::bad_assertions;

#[tokio::test]
async fn a_bad_assertion_authenticates_no_client() {
    let world = world_with_grant().await;
    let issued = tokens_issued(&world).await;
    for algorithm in ALGORITHMS {
        let key = ClientKey::of_client(&world, algorithm);
        for (flaw, jwt) in bad_assertions(&world, &key) {
            let answer = post(&world, &by_assertion(&jwt)).await;
            assert_eq!(answer.status, 401, "{algorithm}, {flaw}: {answer:?}");
            assert_error(&answer, 401, "invalid_client");
        }
        // And a good one is still good, so it was not for something else that those were refused.
        assert_eq!(
            post(&world, &by_assertion(&key.assertion(&world))).await.status,
            200,
            "{algorithm}"
        );
    }
    assert_eq!(tokens_issued(&world).await, issued + ALGORITHMS.len());
}

#[tokio::test]
async fn the_edges_of_time_are_where_they_should_be() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let now = world.clock().now().as_secs();
    for (claim, at) in [
        ("exp", now + 1),
        ("exp", now + 3600),
        ("nbf", now + 60),
        ("iat", now + 60),
    ] {
        let jwt = key.assertion_with(&world, |_, claims| claims[claim] = at.into());
        assert_eq!(
            post(&world, &by_assertion(&jwt)).await.status,
            200,
            "{claim} {}",
            at - now
        );
    }
    let late = key.assertion(&world);
    world.clock().advance(Duration::from_secs(60));
    assert_error(&post(&world, &by_assertion(&late)).await, 401, "invalid_client");
}

#[tokio::test]
async fn an_assertion_counts_once_at_whichever_endpoint() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let jwt = key.assertion(&world);
    let [_, kind, assertion] = by_assertion(&jwt);
    for (first, asks) in ENDPOINTS {
        let fresh = key.assertion(&world);
        let assertion = ("client_assertion", &*fresh);
        let answer = Request::post(first)
            .form(&[asks, kind, assertion])
            .send(&world)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        for (second, asks) in ENDPOINTS {
            let answer = Request::post(second)
                .form(&[asks, kind, assertion])
                .send(&world)
                .await;
            assert_error(&answer, 401, "invalid_client");
        }
    }
    // It is the jti that counts once, in whatever assertion.
    let again = key.assertion_with(&world, |_, claims| claims["jti"] = "one".into());
    assert_eq!(post(&world, &by_assertion(&again)).await.status, 200);
    let other = key.assertion_with(&world, |_, claims| {
        claims["jti"] = "one".into();
        claims["exp"] = (claims["exp"].as_i64().unwrap() + 30).into();
    });
    assert_error(&post(&world, &by_assertion(&other)).await, 401, "invalid_client");
    // The first one was never sent, so it still counts.
    assert_eq!(post(&world, &[CREDENTIALS, kind, assertion]).await.status, 200);
}

#[tokio::test]
async fn a_forged_assertion_does_not_spend_a_genuine_jti() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let (header, claims) = key.parts(&world);
    let forged = jwt(&header, &claims, |_| vec![0; 64]);
    assert_error(&post(&world, &by_assertion(&forged)).await, 401, "invalid_client");
    world.registry().set_unavailable(true);
    let genuine = jwt(&header, &claims, |message| key.sign(message));
    assert_error(
        &post(&world, &by_assertion(&genuine)).await,
        503,
        "temporarily_unavailable",
    );
    world.registry().set_unavailable(false);
    assert_eq!(post(&world, &by_assertion(&genuine)).await.status, 200);
}

#[tokio::test]
async fn of_racing_replays_one_wins() {
    for world in World::start_on_all().await {
        world.first_tokens().await;
        let issued = tokens_issued(&world).await;
        let key = ClientKey::of_client(&world, "ES256");
        let jwt = key.assertion(&world);
        let fields = by_assertion(&jwt);
        let mut racers = JoinSet::new();
        for _ in 0..16 {
            let (request, address) = (Request::post(TOKEN).form(&fields), world.http_address());
            racers.spawn(async move { request.send_to(address).await.status });
        }
        let mut statuses = racers.join_all().await;
        statuses.sort_unstable();
        assert_eq!(statuses[0], 200);
        assert!(statuses[1..].iter().all(|status| *status == 401), "{statuses:?}");
        assert_eq!(tokens_issued(&world).await, issued + 1);
    }
}

#[tokio::test]
async fn another_client_s_assertion_is_its_own_alone() {
    let world = world_with_grant().await;
    let issued = tokens_issued(&world).await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let other = world.new_client(&["acme"]);
    let others = ClientKey::generate("EdDSA", "key-1");
    let set = key_set(&[&others]);
    world
        .registry()
        .edit_client(&other.client_id, |client| client.json_web_key_set = set);
    for (iss, sub, signer) in [
        (&world.client_id, &other.client_id, &key),
        (&other.client_id, &world.client_id, &key),
        (&other.client_id, &other.client_id, &key),
        (&world.client_id, &world.client_id, &others),
        (&other.client_id, &world.client_id, &others),
        (&world.client_id, &other.client_id, &others),
    ] {
        let jwt = signer.assertion_with(&world, |_, claims| {
            claims["iss"] = iss.as_str().into();
            claims["sub"] = sub.as_str().into();
        });
        assert_error(&post(&world, &by_assertion(&jwt)).await, 401, "invalid_client");
    }
    // A genuine one, beside the id of another client.
    for named in [&*other.client_id, "x", &*world.client_id.to_uppercase()] {
        let jwt = key.assertion(&world);
        let fields = [by_assertion(&jwt).as_slice(), &[("client_id", named)]].concat();
        assert_error(&post(&world, &fields).await, 401, "invalid_client");
    }
    assert_eq!(tokens_issued(&world).await, issued);
}

#[tokio::test]
async fn without_a_kid_only_a_single_key_verifies() {
    let world = world_with_grant().await;
    let one = ClientKey::of_client(&world, "ES256");
    let nameless = |key: &ClientKey| {
        key.assertion_with(&world, |header, _| {
            drop(header.as_object_mut().unwrap().remove("kid"))
        })
    };
    assert_eq!(post(&world, &by_assertion(&nameless(&one))).await.status, 200);
    let two = ClientKey::generate("ES256", "key-2");
    let third = ClientKey::generate("EdDSA", "key-3");
    world.change_client(|client| client.json_web_key_set = key_set(&[&one, &two, &third]));
    for key in [&one, &two] {
        assert_error(
            &post(&world, &by_assertion(&nameless(key))).await,
            401,
            "invalid_client",
        );
        assert_eq!(
            post(&world, &by_assertion(&key.assertion(&world))).await.status,
            200
        );
    }
    // The only one of its algorithm.
    assert_eq!(post(&world, &by_assertion(&nameless(&third))).await.status, 200);
    // A key under another key's name.
    let crossed = one.assertion_with(&world, |header, _| header["kid"] = "key-2".into());
    assert_error(
        &post(&world, &by_assertion(&crossed)).await,
        401,
        "invalid_client",
    );
}

#[tokio::test]
async fn a_key_that_is_gone_or_a_client_that_is_suspended_proves_nothing() {
    let world = world_with_grant().await;
    let old = ClientKey::of_client(&world, "EdDSA");
    world.suspend("client", true);
    assert_error(
        &post(&world, &by_assertion(&old.assertion(&world))).await,
        401,
        "invalid_client",
    );
    world.suspend("client", false);
    assert_eq!(
        post(&world, &by_assertion(&old.assertion(&world))).await.status,
        200
    );
    let new = ClientKey::of_client(&world, "EdDSA");
    assert_error(
        &post(&world, &by_assertion(&old.assertion(&world))).await,
        401,
        "invalid_client",
    );
    world.change_client(|client| client.json_web_key_set = String::new());
    assert_error(
        &post(&world, &by_assertion(&new.assertion(&world))).await,
        401,
        "invalid_client",
    );
}

#[tokio::test]
async fn an_assertion_needs_its_type() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let jwt = key.assertion(&world);
    let upper = ASSERTION_TYPE.to_uppercase();
    for kind in [
        "",
        "jwt",
        "urn:ietf:params:oauth:client-assertion-type:saml2-bearer",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        &upper,
    ] {
        let fields = [
            CREDENTIALS,
            ("client_assertion_type", kind),
            ("client_assertion", &jwt),
        ];
        assert_error(&post(&world, &fields).await, 400, "invalid_request");
    }
    let alone = [CREDENTIALS, ("client_assertion_type", ASSERTION_TYPE)];
    assert_error(&post(&world, &alone).await, 401, "invalid_client");
    assert_eq!(post(&world, &by_assertion(&jwt)).await.status, 200);
}

#[tokio::test]
async fn at_another_tenant_s_authority_an_assertion_is_a_stranger_s() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    for tenant in ["globex", "nobody-known"] {
        let jwt = key.assertion(&world);
        let request = Request::post(format!("/{tenant}/oauth2/token")).form(&by_assertion(&jwt));
        assert_error(&request.send(&world).await, 401, "invalid_client");
        assert_eq!(
            post(&world, &by_assertion(&jwt)).await.status,
            200,
            "it was not used up there"
        );
    }
}
