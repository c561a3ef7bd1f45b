//! Assertions over HTTP: forged, misdirected, too early, too late, or used before. None has an effect.

use std::time::Duration;

use accord::clock::Clock;
use serde_json::{Value, json};
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
        ("exp", now - 59),
        ("exp", now + 3660),
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
    world.clock().advance(Duration::from_secs(120));
    let before = world.audit_events("client_credential.refuse").await.len();
    assert_error(&post(&world, &by_assertion(&late)).await, 401, "invalid_client");
    // The client has signed it, and somebody may have copied it.
    let events = world.audit_events("client_credential.refuse").await;
    assert_eq!(events.len(), before + 1);
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
async fn each_key_that_can_be_meant_is_tried() {
    let world = world_with_grant().await;
    let one = ClientKey::of_client(&world, "ES256");
    let nameless = |key: &ClientKey| {
        key.assertion_with(&world, |header, _| {
            drop(header.as_object_mut().unwrap().remove("kid"))
        })
    };
    assert_eq!(post(&world, &by_assertion(&nameless(&one))).await.status, 200);
    // Two keys have one name. One has none, and one has no algorithm.
    let two = ClientKey::generate("ES256", "key-1");
    let third = ClientKey::generate("EdDSA", "");
    let fourth = ClientKey::generate("PS256", "key-4");
    let mut keys = [&one, &two, &third, &fourth].map(ClientKey::jwk);
    keys[2].as_object_mut().unwrap().remove("kid");
    keys[3].as_object_mut().unwrap().remove("alg");
    let keys = serde_json::json!({ "keys": keys }).to_string();
    world.change_client(|client| client.json_web_key_set = keys);
    for key in [&one, &two, &third, &fourth] {
        for jwt in [key.assertion(&world), nameless(key)] {
            assert_eq!(
                post(&world, &by_assertion(&jwt)).await.status,
                200,
                "{}",
                key.algorithm
            );
        }
    }
    // A key under another key's name, or with an algorithm that is not its own.
    for change in [("kid", "key-4"), ("alg", "EdDSA")] {
        let crossed = one.assertion_with(&world, |header, _| header[change.0] = change.1.into());
        let answer = post(&world, &by_assertion(&crossed)).await;
        assert_error(&answer, 401, "invalid_client");
    }
}

#[tokio::test]
async fn both_names_of_ed25519_mean_the_one_algorithm() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    for alg in ["EdDSA", "Ed25519"] {
        let jwt = key.assertion_with(&world, |header, _| header["alg"] = alg.into());
        assert_eq!(post(&world, &by_assertion(&jwt)).await.status, 200, "{alg}");
    }
    let other = ClientKey::of_client(&world, "ES256");
    let jwt = other.assertion_with(&world, |header, _| header["alg"] = "Ed25519".into());
    assert_error(&post(&world, &by_assertion(&jwt)).await, 401, "invalid_client");
}

#[tokio::test]
async fn an_audience_may_be_a_list_of_one() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "ES256");
    let listed = |audiences: Value| key.assertion_with(&world, |_, claims| claims["aud"] = audiences.clone());
    let one = listed(json!([world.issuer]));
    assert_eq!(post(&world, &by_assertion(&one)).await.status, 200);
    for audiences in [
        json!([world.issuer, world.issuer]),
        json!([]),
        json!([[world.issuer]]),
    ] {
        let answer = post(&world, &by_assertion(&listed(audiences))).await;
        assert_error(&answer, 401, "invalid_client");
    }
}

/// Claims that are wrong, with the claim that the error must name and the value that it must hold.
fn wrong_claims(world: &World) -> Vec<(&'static str, Value, String)> {
    let now = world.clock().now().as_secs();
    let token_endpoint = format!("{}/oauth2/token", world.issuer);
    vec![
        ("aud", json!(token_endpoint), world.issuer.clone()),
        ("aud", json!([world.issuer, token_endpoint]), world.issuer.clone()),
        ("exp", json!(now - 60), now.to_string()),
        ("exp", json!((now + 60).to_string()), "number of seconds".into()),
        ("nbf", json!(now + 61), now.to_string()),
        ("iat", json!(now + 61), now.to_string()),
        ("jti", json!(""), "string".into()),
        ("jti", Value::Null, "string".into()),
        ("sub", json!("somebody"), world.client_id.clone()),
        (
            "sub",
            json!("cli_01arz3ndektsv4rrffq69g5fav"),
            world.client_id.clone(),
        ),
        ("iss", json!("https://partner.example"), world.client_id.clone()),
    ]
}

#[tokio::test]
async fn a_signed_assertion_is_told_its_wrong_claim_and_a_forged_one_nothing() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let forger = ClientKey::generate("EdDSA", "key-1");
    let unknown = forger.assertion_with(&world, |_, claims| {
        claims["iss"] = "cli_01arz3ndektsv4rrffq69g5fav".into();
        claims["sub"] = claims["iss"].clone();
    });
    let general = post(&world, &by_assertion(&unknown)).await;
    assert_error(&general, 401, "invalid_client");
    for (claim, value, right) in wrong_claims(&world) {
        let wrong = |key: &ClientKey| key.assertion_with(&world, |_, claims| claims[claim] = value.clone());
        let answer = post(&world, &by_assertion(&wrong(&key))).await;
        assert_error(&answer, 401, "invalid_client");
        let description = answer.text("error_description");
        assert!(
            description.contains(&format!("{claim} of the assertion")) && description.contains(&right),
            "{claim}: {value}: {description}"
        );
        let request = super::assertion_rpc::issuing(&world, &wrong(&key));
        let status = world.issue(request).await.unwrap_err();
        assert_eq!(status.message(), description);
        let details = tonic_types::StatusExt::get_error_details(&status);
        assert_eq!(details.error_info().unwrap().metadata["claim"], claim);
        let forged = post(&world, &by_assertion(&wrong(&forger))).await;
        assert_eq!(forged.body, general.body, "{claim}");
    }
}

#[tokio::test]
async fn a_rejected_call_leaves_its_assertion() {
    let world = world_with_grant().await;
    let refresh_token = world.first_tokens().await.refresh_token;
    let code = world.code().await;
    let key = ClientKey::of_client(&world, "EdDSA");
    let jwt = key.assertion(&world);
    let [_, kind, assertion] = by_assertion(&jwt);
    let code_without = |name: &'static str| {
        let mut fields = crate::http::token::by_code(&code);
        fields.retain(|(known, _)| *known != name);
        fields
    };
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", &*refresh_token),
    ];
    for (fields, error) in [
        (vec![CREDENTIALS, ("scope", "files.read")], "invalid_scope"),
        (vec![CREDENTIALS, ("scope", "openid")], "invalid_scope"),
        (
            vec![CREDENTIALS, ("resource", "https://evil.example")],
            "invalid_target",
        ),
        (vec![("grant_type", "password")], "unsupported_grant_type"),
        (vec![], "invalid_request"),
        (code_without("code_verifier"), "invalid_request"),
        (code_without("redirect_uri"), "invalid_request"),
        (
            vec![("grant_type", "refresh_token"), ("refresh_token", "acr_x")],
            "invalid_grant",
        ),
        (
            [&refresh[..], &[("scope", "files.read")]].concat(),
            "invalid_scope",
        ),
        (
            [
                &crate::http::token::by_code(&code)[..],
                &[("resource", "https://evil.example")],
            ]
            .concat(),
            "invalid_target",
        ),
    ] {
        let answer = post(&world, &[&fields[..], &[kind, assertion]].concat()).await;
        assert_error(&answer, 400, error);
    }
    for (path, _) in &ENDPOINTS[1..] {
        let answer = Request::post(*path).form(&[kind, assertion]).send(&world).await;
        assert_error(&answer, 400, "invalid_request");
    }
    // A replayed token is judged only by a call whose assertion counts, and the same holds for a code that is burnt.
    let spent = key.assertion(&world);
    assert_eq!(post(&world, &by_assertion(&spent)).await.status, 200);
    for fields in [
        vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", &*refresh_token),
        ],
        [&code_without("code_verifier")[..], &[("code_verifier", "wrong")]].concat(),
    ] {
        let answer = post(
            &world,
            &[&fields[..], &[kind, ("client_assertion", &spent)]].concat(),
        )
        .await;
        assert_error(&answer, 401, "invalid_client");
        assert!(answer.text("error_description").contains("jti"), "{answer:?}");
    }
    let by_code = [&crate::http::token::by_code(&code)[..], &[kind, assertion]].concat();
    assert_eq!(post(&world, &by_code).await.status, 200);
    assert_error(&post(&world, &by_assertion(&jwt)).await, 401, "invalid_client");
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
