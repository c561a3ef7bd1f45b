//! Proofs, good and bad.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use serde_json::json;

use super::*;
use crate::testing::dpop::{ProofKey, claims};

const NOW: i64 = 1_800_000_000;
const URL: &str = "https://auth.example/firm/oauth2/token";

static URLS: LazyLock<[String; 1]> = LazyLock::new(|| [URL.to_owned()]);

fn expected() -> Expected<'static> {
    Expected {
        method: "POST",
        urls: &*URLS,
        access_token: None,
        now: UnixMillis::from_millis(NOW * 1000 + 999),
    }
}

fn check(proof: &str) -> Result<VerifiedProof, ProofError> {
    verify(proof, &expected())
}

/// The name of the rule that a changed proof breaks; `None` if it is accepted.
fn broken(key: &ProofKey, change: impl FnOnce(&mut Value, &mut Value)) -> Option<&'static str> {
    check(&key.altered(URL, NOW, change))
        .err()
        .map(|error| error.name())
}

#[test]
fn each_algorithm_proves_its_key() {
    for key in [ProofKey::es256(), ProofKey::ed25519(), ProofKey::rsa()] {
        let verified = check(&key.proof(URL, NOW)).unwrap();
        assert_eq!((verified.jkt, verified.iat), (key.jkt(), NOW), "{}", key.alg);
        assert_eq!(verified.nonce, None);
    }
    let key = ProofKey::ed25519();
    assert_eq!(broken(&key, |header, _| header["alg"] = json!("Ed25519")), None);
    let proof = key.altered(URL, NOW, |_, claims| {
        claims["nonce"] = json!("n");
        claims["jti"] = json!("j");
    });
    let verified = check(&proof).unwrap();
    assert_eq!(
        (verified.jti.as_str(), verified.nonce.as_deref()),
        ("j", Some("n"))
    );
}

#[test]
fn a_header_is_as_the_rfc_demands() {
    let key = ProofKey::es256();
    let rsa = ProofKey::rsa();
    for (name, member, value) in [
        ("typ", "typ", json!(null)),
        ("typ", "typ", json!("JWT")),
        ("typ", "typ", json!("DPoP+jwt")),
        ("typ", "typ", json!(["dpop+jwt"])),
        ("alg", "alg", json!(null)),
        ("alg", "alg", json!("none")),
        ("alg", "alg", json!("HS256")),
        ("alg", "alg", json!("RS256")),
        ("jwk", "alg", json!("EdDSA")),
        ("jwk", "jwk", json!(null)),
        ("jwk", "jwk", rsa.jwk.clone()),
        ("malformed", "jwk", json!("key")),
        ("crit", "crit", json!(["exp"])),
        ("crit", "crit", json!([])),
        ("signature", "jwk", ProofKey::es256().jwk),
    ] {
        let found = broken(&key, |header, _| header[member] = value.clone());
        assert_eq!(found, Some(name), "{member}: {value}");
    }
    for alg in ["EdDSA", "Ed25519"] {
        let found = broken(&ProofKey::of_anybody(), |header, _| header["alg"] = json!(alg));
        assert_eq!(found, Some("jwk"), "{alg}");
    }
    let crit_null = r#"{"crit":null,"typ":"dpop+jwt","alg":"ES256"}"#;
    let proof = key.sign_text(crit_null, &claims("POST", URL, NOW).to_string(), false);
    assert_eq!(check(&proof), Err(ProofError::Critical));
    assert_eq!(
        broken(&rsa, |header, _| header["alg"] = json!("RS256")),
        Some("alg")
    );
    assert_eq!(
        broken(&key, |header, _| header["jwk"]["d"] = json!("AQ")),
        Some("jwk")
    );
    // What names keys elsewhere changes nothing.
    let ignored = |header: &mut Value, _: &mut Value| {
        header["jku"] = json!("https://evil.example/keys");
        header["kid"] = json!("k");
        header["x5u"] = json!(7);
    };
    assert_eq!(broken(&key, ignored), None);
}

#[test]
fn a_claim_is_as_the_rfc_demands() {
    let key = ProofKey::es256();
    for (claim, value) in [
        ("jti", json!(null)),
        ("jti", json!("")),
        ("jti", json!(7)),
        ("jti", json!("\u{e9}".repeat(MAX_JTI_CHARS + 1))),
        ("htm", json!(null)),
        ("htm", json!("GET")),
        ("htm", json!("post")),
        ("htm", json!(["POST"])),
        ("htu", json!(null)),
        ("htu", json!("https://auth.example/firm/oauth2/par")),
        ("htu", json!([URL])),
        ("iat", json!(null)),
        ("iat", json!(NOW - 61)),
        ("iat", json!(NOW + 11)),
        ("iat", json!(NOW - 3_600)),
        ("iat", json!(NOW + 3_600)),
        ("iat", json!(NOW * 1000)),
        ("iat", json!(NOW.to_string())),
        ("iat", json!(1e300)),
        ("iat", json!(-1e300)),
        ("nbf", json!(NOW + 11)),
        ("nbf", json!("now")),
        ("exp", json!(NOW - 10)),
        ("exp", json!("soon")),
        ("nonce", json!(7)),
    ] {
        let found = broken(&key, |_, claims| claims[claim] = value.clone());
        assert_eq!(found, Some(claim), "{value}");
    }
    for (claim, value) in [
        ("jti", json!("\u{e9}".repeat(MAX_JTI_CHARS))),
        ("htu", json!(format!("{URL}?a=b#c"))),
        ("iat", json!(NOW - 60)),
        ("iat", json!(NOW - 9)),
        ("iat", json!(NOW + 9)),
        ("iat", json!(NOW + 10)),
        ("iat", json!(NOW as f64 + 10.9)),
        ("nbf", json!(NOW + 10)),
        ("exp", json!(NOW - 9)),
        ("exp", json!(NOW + 1)),
        ("ath", json!("anything, where no token is")),
    ] {
        let found = broken(&key, |_, claims| claims[claim] = value.clone());
        assert_eq!(found, None, "{claim}: {value}");
    }
}

#[test]
fn an_error_names_the_right_value_and_nothing_of_the_proof() {
    let key = ProofKey::es256();
    for (claim, right) in [
        ("htm", "POST".to_owned()),
        ("htu", URL.to_owned()),
        ("iat", NOW.to_string()),
    ] {
        let error = check(&key.altered(URL, NOW, |_, claims| claims[claim] = json!("s3cret"))).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(claim) && text.contains(&right), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn at_a_resource_the_proof_names_the_access_token() {
    let key = ProofKey::es256();
    let expected = Expected {
        access_token: Some("token"),
        ..expected()
    };
    let with = |ath: Value| {
        let proof = key.altered(URL, NOW, |_, claims| claims["ath"] = ath);
        verify(&proof, &expected)
            .map(|_| ())
            .map_err(|error| error.name())
    };
    assert_eq!(with(json!(access_token_hash("token"))), Ok(()));
    for wrong in [json!(null), json!("token"), json!(access_token_hash("other"))] {
        assert_eq!(with(wrong), Err("ath"));
    }
}

#[test]
fn each_of_several_urls_is_right() {
    let key = ProofKey::es256();
    let alias = "https://mtls.example/firm/oauth2/token";
    let expected = Expected {
        urls: &[URL.to_owned(), alias.to_owned()],
        ..expected()
    };
    for url in [URL, alias] {
        assert!(verify(&key.proof(url, NOW), &expected).is_ok(), "{url}");
    }
    let error = verify(&key.proof("https://else.example", NOW), &expected).unwrap_err();
    assert_eq!(error.to_string(), format!("htu must be {URL} or {alias}"));
}

#[test]
fn other_texts_are_no_proofs() {
    let key = ProofKey::es256();
    let good = key.proof(URL, NOW);
    let parts: Vec<_> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        unreachable!()
    };
    for malformed in [
        String::new(),
        "..".to_owned(),
        header.to_owned(),
        format!("{header}.{claims}"),
        format!("{good}."),
        format!(" {good}"),
        format!("{header}=.{claims}.{signature}"),
        format!("a.{good}"),
        key.sign_text("[]", "{}", false),
        key.sign_text(r#"["dpop+jwt","ES256"]"#, "{}", false),
        key.sign_text("{", "{}", false),
        key.sign_text(r#"{"typ":"dpop+jwt","typ":"dpop+jwt"}"#, "{}", false),
    ] {
        assert_eq!(check(&malformed), Err(ProofError::Malformed), "{malformed}");
    }
    let header_text = key.header().to_string();
    for claims in ["[]", "7", "{", r#"{"jti":"a","jti":"b"}"#, "\u{feff}{}"] {
        let proof = key.sign_text(&header_text, claims, false);
        assert_eq!(check(&proof), Err(ProofError::Malformed), "{claims}");
    }
    for unsigned in [
        format!("{header}.{claims}."),
        format!("{header}.{claims}.{}", &signature[1..]),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("{}")),
    ] {
        assert_eq!(check(&unsigned), Err(ProofError::Signature), "{unsigned}");
    }
    assert_eq!(check(&"a".repeat(64 * 1024)), Err(ProofError::TooLong));
}

#[test]
fn many_members_change_nothing() {
    let key = ProofKey::es256();
    let crowded = |members: usize| {
        key.altered(URL, NOW, |header, _| {
            for number in 0..members {
                header[format!("{number:x}")] = json!(1);
            }
        })
    };
    assert!(check(&crowded(500)).is_ok());
    assert_eq!(check(&crowded(10_000)), Err(ProofError::TooLong));
}

#[test]
fn a_key_that_is_no_key_verifies_nothing() {
    let key = ProofKey::rsa();
    for exponent in ["AQ", "Ag", "_____________w"] {
        let found = broken(&key, |header, _| header["jwk"]["e"] = json!(exponent));
        assert_eq!(found, Some("signature"), "{exponent}");
    }
    let ec = ProofKey::es256();
    // Not a point of the curve.
    let off = URL_SAFE_NO_PAD.encode([1; 32]);
    let found = broken(&ec, |header, _| header["jwk"]["x"] = json!(off));
    assert_eq!(found, Some("signature"));
}
