//! Valid and invalid access tokens.

#![allow(clippy::unwrap_used)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};

use super::*;
use crate::verify::testing::{NOW, Signer, claims, tenant};

fn signer() -> Signer {
    Signer::new("k1")
}

fn header() -> Header {
    crate::verify::testing::header("k1")
}

fn set(signer: &Signer) -> KeySet {
    let other = pb::JsonWebKey {
        kty: "RSA".into(),
        kid: "other".into(),
        ..Default::default()
    };
    let keys = vec![other, signer.json_web_key()];
    KeySet::from_response(&pb::GetJsonWebKeySetResponse { keys }).unwrap()
}

#[test]
fn a_genuine_token_is_valid_until_it_expires() {
    let signer = signer();
    let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
    let keys = set(&signer);
    assert_eq!(keys.verify(&token, &tenant(), NOW), Ok(claims()));
    assert!(keys.verify(&token, &tenant(), NOW + 299).is_ok());
    assert_eq!(
        keys.verify(&token, &tenant(), NOW + 300),
        Err(VerifyError::Expired)
    );
}

#[test]
fn issuer_audience_and_tenant_must_be_exact() {
    let signer = signer();
    let token = jsonwebtoken::encode(&header(), &claims(), &signer.key).unwrap();
    for expected in [
        Tenant {
            issuer: "https://auth.example/firm/".into(),
            ..tenant()
        },
        Tenant {
            audience: "https://api.firm.example/v1/".into(),
            ..tenant()
        },
        Tenant {
            tenant_id: "firm2".into(),
            ..tenant()
        },
    ] {
        assert_eq!(
            set(&signer).verify(&token, &expected, NOW),
            Err(VerifyError::WrongTarget)
        );
    }
}

#[test]
fn other_keys_types_and_algorithms_are_rejected() {
    let signer = signer();
    let keys = set(&signer);
    let with = |header: Header, key: &EncodingKey| jsonwebtoken::encode(&header, &claims(), key).unwrap();

    let forged = with(header(), &self::signer().key);
    assert_eq!(keys.verify(&forged, &tenant(), NOW), Err(VerifyError::Signature));
    let unknown = with(
        Header {
            kid: Some("k2".into()),
            ..header()
        },
        &signer.key,
    );
    assert_eq!(
        keys.verify(&unknown, &tenant(), NOW),
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
        keys.verify(&id_token, &tenant(), NOW),
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
    assert_eq!(keys.verify(&hmac, &tenant(), NOW), Err(VerifyError::Malformed));

    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims()).unwrap());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"at+jwt","kid":"k1"}"#);
    for bad in [
        "",
        "a.b.c",
        "..",
        &format!("{none}.{payload}."),
        &"x".repeat(MAX_TOKEN_BYTES + 1),
    ] {
        assert_eq!(keys.verify(bad, &tenant(), NOW), Err(VerifyError::Malformed));
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
    let result = set(&signer).verify(&parts.join("."), &tenant(), NOW);
    assert_eq!(result, Err(VerifyError::Signature));
}
