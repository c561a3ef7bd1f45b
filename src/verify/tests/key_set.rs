//! What counts as an access token, and what does not.

#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};

use super::*;
use crate::verify::testing::{EXPECTED, NOW, Signer, claims};

fn signer() -> Signer {
    Signer::new("k1")
}

fn header() -> Header {
    crate::verify::testing::header("k1")
}

fn set(signer: &Signer) -> KeySet {
    let document = serde_json::json!({"keys": [
        {"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": signer.x, "use": "sig", "alg": "EdDSA"},
    ]});
    KeySet::from_json(document.to_string().as_bytes()).unwrap()
}

#[test]
fn a_genuine_token_counts_until_its_end() {
    let signer = signer();
    let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
    let keys = set(&signer);
    assert_eq!(keys.verify(&token, &EXPECTED, NOW), Ok(claims()));
    assert!(keys.verify(&token, &EXPECTED, NOW + 299).is_ok());
    assert_eq!(
        keys.verify(&token, &EXPECTED, NOW + 300),
        Err(VerifyError::Expired)
    );
}

#[test]
fn issuer_audience_and_tenant_must_be_exact() {
    let signer = signer();
    let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
    for expected in [
        Expected {
            issuer: "https://auth.example/firm/",
            ..EXPECTED
        },
        Expected {
            audience: "https://api.firm.example/v1/",
            ..EXPECTED
        },
        Expected {
            tenant_id: "firm2",
            ..EXPECTED
        },
    ] {
        assert_eq!(
            set(&signer).verify(&token, &expected, NOW),
            Err(VerifyError::WrongTarget)
        );
    }
}

#[test]
fn another_key_type_or_algorithm_is_refused() {
    let signer = signer();
    let keys = set(&signer);
    let with = |header: Header, key: &EncodingKey| jsonwebtoken::encode(&header, &claims(), key).unwrap();

    let forged = with(header(), &self::signer().key);
    assert_eq!(keys.verify(&forged, &EXPECTED, NOW), Err(VerifyError::Signature));
    let unknown = with(
        Header {
            kid: Some("k2".into()),
            ..header()
        },
        &signer.key,
    );
    assert_eq!(
        keys.verify(&unknown, &EXPECTED, NOW),
        Err(VerifyError::UnknownKey)
    );
    let id_token = with(
        Header {
            typ: Some("JWT".into()),
            ..header()
        },
        &signer.key,
    );
    assert_eq!(
        keys.verify(&id_token, &EXPECTED, NOW),
        Err(VerifyError::Malformed)
    );

    // The public key as an HMAC secret: the classic confusion of algorithms.
    let secret = EncodingKey::from_secret(&URL_SAFE_NO_PAD.decode(&signer.x).unwrap());
    let hmac = with(
        Header {
            alg: Algorithm::HS256,
            ..header()
        },
        &secret,
    );
    assert_eq!(keys.verify(&hmac, &EXPECTED, NOW), Err(VerifyError::Malformed));

    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt","kid":"k1"}"#);
    for bad in [
        "",
        "a.b.c",
        "..",
        &format!("{none}.{payload}."),
        &"x".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert_eq!(keys.verify(bad, &EXPECTED, NOW), Err(VerifyError::Malformed));
    }
}

#[test]
fn a_changed_claim_breaks_the_signature() {
    let signer = signer();
    let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
    let mut parts: Vec<&str> = token.split('.').collect();
    let widened = AccessTokenClaims {
        scope: "a b c".into(),
        ..claims()
    };
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&widened).unwrap());
    parts[1] = &payload;
    let refused = set(&signer).verify(&parts.join("."), &EXPECTED, NOW);
    assert_eq!(refused, Err(VerifyError::Signature));
}
