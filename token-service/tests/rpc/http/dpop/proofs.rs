//! Proofs that are accepted, and those that are rejected, each by its line of what a conformance plan asks.

use std::time::Duration;

use accord::testing::dpop::ProofKey;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    super::{Request, assert_error, keys::ClientKey, pushed_request::parameters, tokens_issued},
    CREDENTIALS, TOKEN, altered, ask, assert_bound, endpoint, now, proof, world_with_grant,
};
use crate::world::{VERIFIER, World, challenge};

/// Asserts that a proof with this change is accepted.
async fn accepts(world: &World, change: impl FnOnce(&mut Value, &mut Value)) {
    let key = ProofKey::es256();
    let proof = altered(world, &key, change);
    assert_bound(&ask(world, &proof).await, &key);
}

/// Asserts that a proof with this change is rejected, and that the error names this text.
async fn rejects(world: &World, named: &str, change: impl FnOnce(&mut Value, &mut Value)) {
    let proof = altered(world, &ProofKey::es256(), change);
    assert_rejected(world, named, &proof).await;
}

async fn assert_rejected(world: &World, named: &str, proof: &str) {
    let issued = tokens_issued(world).await;
    let answer = ask(world, proof).await;
    assert_error(&answer, 400, "invalid_dpop_proof");
    let description = answer.text("error_description");
    assert!(description.contains(named), "{named}: {description}");
    assert_eq!(tokens_issued(world).await, issued);
}

#[tokio::test]
async fn iat_of_a_proof_10_seconds_behind_or_ahead_is_accepted() {
    let world = world_with_grant().await;
    for offset in [-60, -10, -9, 9, 10] {
        let iat = now(&world) + offset;
        accepts(&world, |_, claims| claims["iat"] = json!(iat)).await;
    }
}

#[tokio::test]
async fn nbf_and_exp_in_a_proof_are_accepted() {
    let world = world_with_grant().await;
    let now = now(&world);
    accepts(&world, |_, claims| {
        claims["nbf"] = json!(now - 5);
        claims["exp"] = json!(now + 60);
    })
    .await;
    rejects(&world, "exp", |_, claims| claims["exp"] = json!(now - 60)).await;
    rejects(&world, "nbf", |_, claims| claims["nbf"] = json!(now + 60)).await;
}

#[tokio::test]
async fn htu_with_and_without_the_query_of_the_called_url_is_accepted() {
    let world = world_with_grant().await;
    let url = endpoint(&world);
    let capitals = url.replace("https://auth.example", "HTTPS://AUTH.example:443");
    for htu in [format!("{url}?a=b"), format!("{url}#c"), capitals] {
        accepts(&world, |_, claims| claims["htu"] = json!(htu)).await;
    }
}

#[tokio::test]
async fn the_header_dpop_has_any_letter_case() {
    let world = world_with_grant().await;
    for name in ["DPoP", "dpop", "DPOP"] {
        let key = ProofKey::es256();
        let request = Request::post(TOKEN)
            .basic(&world.client)
            .header(name, proof(&world, &key));
        assert_bound(&request.form(&[CREDENTIALS]).send(&world).await, &key);
    }
}

#[tokio::test]
async fn ps256_and_both_names_of_eddsa_are_accepted() {
    let world = world_with_grant().await;
    for key in [ProofKey::rsa(), ProofKey::ed25519()] {
        assert_bound(&ask(&world, &proof(&world, &key)).await, &key);
    }
    let key = ProofKey::ed25519();
    let proof = altered(&world, &key, |header, _| header["alg"] = json!("Ed25519"));
    assert_bound(&ask(&world, &proof).await, &key);
}

#[tokio::test]
async fn two_dpop_headers_are_rejected_whether_joined_by_a_comma_or_not() {
    let world = world_with_grant().await;
    let key = ProofKey::es256();
    let (first, second) = (proof(&world, &key), proof(&world, &key));
    let request = || Request::post(TOKEN).basic(&world.client).form(&[CREDENTIALS]);
    for request in [
        request().header("DPoP", &*first).header("DPoP", &*second),
        request().header("DPoP", &*first).header("dpop", &*first),
        // As a proxy joins them.
        request().header("DPoP", format!("{first}, {second}")),
        request().header("DPoP", format!("{first},{first}")),
    ] {
        assert_error(&request.send(&world).await, 400, "invalid_dpop_proof");
    }
    // None of them was used.
    assert_bound(&ask(&world, &first).await, &key);
}

#[tokio::test]
async fn a_proof_without_typ_alg_jwk_jti_htm_htu_or_iat_is_rejected() {
    let world = world_with_grant().await;
    for member in ["typ", "alg", "jwk"] {
        rejects(&world, member, |header, _| header[member] = json!(null)).await;
    }
    for claim in ["jti", "htm", "htu", "iat"] {
        rejects(&world, claim, |_, claims| claims[claim] = json!(null)).await;
    }
}

#[tokio::test]
async fn a_proof_with_a_wrong_typ_alg_jwk_jti_htm_htu_or_iat_is_rejected() {
    let world = world_with_grant().await;
    for (member, value) in [
        ("typ", json!("JWT")),
        ("alg", json!("ES384")),
        ("jwk", json!({})),
        ("crit", json!(["b64"])),
    ] {
        rejects(&world, member, |header, _| header[member] = value).await;
    }
    let other_tenant = endpoint(&world).replace("acme", "globex");
    for (claim, value) in [
        ("jti", json!("")),
        ("jti", json!("x".repeat(257))),
        ("htm", json!("GET")),
        ("htu", json!("https://auth.example/acme/oauth2/par")),
        ("htu", json!("http://auth.example/acme/oauth2/token")),
        ("htu", json!(format!("{}/", endpoint(&world)))),
        ("htu", json!(other_tenant)),
        ("iat", json!("now")),
    ] {
        rejects(&world, claim, |_, claims| claims[claim] = value).await;
    }
}

#[tokio::test]
async fn a_proof_that_is_an_hour_early_or_late_is_rejected() {
    let world = world_with_grant().await;
    for offset in [-3_600, -61, 11, 3_600] {
        let iat = now(&world) + offset;
        rejects(&world, "iat", |_, claims| claims["iat"] = json!(iat)).await;
    }
}

#[tokio::test]
async fn a_proof_that_was_used_before_is_rejected() {
    let world = world_with_grant().await;
    let key = ProofKey::es256();
    let made = proof(&world, &key);
    assert_bound(&ask(&world, &made).await, &key);
    assert_rejected(&world, "jti", &made).await;
    let jti = "one for two proofs";
    let same = || altered(&world, &key, |_, claims| claims["jti"] = json!(jti));
    assert_bound(&ask(&world, &same()).await, &key);
    assert_rejected(&world, "jti", &same()).await;
}

/// Failed elsewhere: the entry lived for the age of a proof from its arrival on, and such a proof counts for longer.
#[tokio::test]
async fn a_proof_9_seconds_in_the_future_is_remembered_until_it_is_too_old() {
    let world = world_with_grant().await;
    let key = ProofKey::es256();
    let iat = now(&world) + 9;
    let made = altered(&world, &key, |_, claims| claims["iat"] = json!(iat));
    assert_bound(&ask(&world, &made).await, &key);
    for pause in [0, 1, 30, 28, 1, 1, 1, 7] {
        world.clock().advance(Duration::from_secs(pause));
        assert_rejected(&world, "jti", &made).await;
    }
    assert_eq!(now(&world), iat + 60, "it was not too old");
    world.clock().advance(Duration::from_secs(1));
    assert_rejected(&world, "iat", &made).await;
}

#[tokio::test]
async fn a_proof_signed_with_rs256_none_or_another_key_is_rejected() {
    let world = world_with_grant().await;
    let rsa = altered(&world, &ProofKey::rsa(), |header, _| {
        header["alg"] = json!("RS256")
    });
    assert_rejected(&world, "alg", &rsa).await;
    let unsigned = altered(&world, &ProofKey::es256(), |header, _| {
        header["alg"] = json!("none")
    });
    assert_rejected(&world, "alg", &unsigned).await;
    let (message, _) = unsigned.rsplit_once('.').unwrap();
    assert_rejected(&world, "alg", &format!("{message}.")).await;
    let other = ProofKey::es256();
    rejects(&world, "signature", |header, _| header["jwk"] = other.jwk).await;
}

#[tokio::test]
async fn a_proof_that_holds_a_private_key_is_rejected() {
    let world = world_with_grant().await;
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        rejects(&world, "private", |header, _| header["jwk"][member] = json!("AQ")).await;
    }
}

#[tokio::test]
async fn a_proof_with_a_key_of_512_or_16384_bits_is_rejected() {
    let world = world_with_grant().await;
    for bytes in [64, 2_048] {
        let n = URL_SAFE_NO_PAD.encode(vec![0xFF; bytes]);
        let key = ProofKey::rsa();
        let proof = altered(&world, &key, |header, _| header["jwk"]["n"] = json!(n));
        assert_rejected(&world, "2048 to 4096 bits", &proof).await;
    }
}

#[tokio::test]
async fn a_key_for_which_anyone_can_sign_is_rejected() {
    let world = world_with_grant().await;
    let key = ProofKey::of_anybody();
    for alg in ["EdDSA", "Ed25519"] {
        let proof = altered(&world, &key, |header, _| header["alg"] = json!(alg));
        assert_rejected(&world, "jwk", &proof).await;
    }
}

#[tokio::test]
async fn proofs_that_are_too_large_are_rejected() {
    let world = world_with_grant().await;
    let crowded = |members: u32| {
        altered(&world, &ProofKey::es256(), |header, _| {
            (0..members).for_each(|number| header[format!("{number}")] = json!(1));
        })
    };
    assert_rejected(&world, "8192 bytes", &crowded(1_000)).await;
    // Longer headers than the listener takes.
    for long in [crowded(10_000), "a".repeat(64 * 1024), "a".repeat(300 * 1024)] {
        assert_eq!(ask(&world, &long).await.status, 431, "{}", long.len());
    }
    for text in ["x", "..", "a.b.c", "{}", "\"\""] {
        assert_rejected(&world, "compact form", text).await;
    }
}

#[tokio::test]
async fn clocks_9_seconds_apart_are_accepted_and_61_are_not() {
    let world = world_with_grant().await;
    let key = ProofKey::es256();
    for (offset, accepted) in [(-9, true), (9, true), (-61, false), (61, false)] {
        let iat = now(&world) + offset;
        let made = altered(&world, &key, |_, claims| claims["iat"] = json!(iat));
        let answer = ask(&world, &made).await;
        assert_eq!(answer.status == 200, accepted, "{offset}: {answer:?}");
    }
}

#[tokio::test]
async fn htu_may_be_that_of_the_endpoints_for_certificates() {
    let base = "https://mtls.auth.example";
    let world = World::start_with(|settings| settings.mtls_base_url = base.into()).await;
    world.first_tokens().await;
    for (htu, accepted) in [
        (format!("{base}/acme/oauth2/token"), true),
        (format!("{base}/acme/oauth2/par"), false),
        (format!("{base}/globex/oauth2/token"), false),
    ] {
        let made = altered(&world, &ProofKey::es256(), |_, claims| claims["htu"] = json!(htu));
        assert_eq!(ask(&world, &made).await.status == 200, accepted, "{htu}");
    }
}

#[tokio::test]
async fn without_room_for_a_proof_the_assertion_counts_later_and_other_clients_now() {
    let world = world_with_grant().await;
    let key = ClientKey::of_client(&world, "ES256");
    let assertion = key.assertion_with(&world, |_, claims| claims["exp"] = json!(now(&world) + 600));
    let fields = [
        CREDENTIALS,
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", &assertion),
    ];
    let proof_key = ProofKey::es256();
    let ask = async || {
        let request = Request::post(TOKEN).header("DPoP", proof(&world, &proof_key));
        request.form(&fields).send(&world).await
    };
    let issued = tokens_issued(&world).await;
    world.fill_proofs(&world.client_id);
    let answer = ask().await;
    let retry_after = answer.header("retry-after").map(str::to_owned);
    assert_eq!(
        (answer.status, retry_after.as_deref()),
        (429, Some("12")),
        "{answer:?}"
    );
    assert_eq!(tokens_issued(&world).await, issued);
    let (other, par) = (world.new_client(&["acme"]), "/acme/oauth2/par");
    let made = proof_key.proof(&format!("{}/oauth2/par", world.issuer), now(&world));
    let pushed = Request::post(par).basic(&other).header("DPoP", made);
    let pushed = pushed.form(&parameters(&challenge(VERIFIER))).send(&world).await;
    assert_eq!(pushed.status, 201, "{pushed:?}");
    world.clock().advance(Duration::from_secs(80));
    assert_bound(&ask().await, &proof_key);
}
