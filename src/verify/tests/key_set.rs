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

/// A key pair of an algorithm, made by the signing library alone.
fn pair(algorithm: Algorithm, kid: &str) -> (EncodingKey, pb::JsonWebKey) {
    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rand::SystemRandom,
        rsa::KeySize,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair},
    };
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = pb::JsonWebKey {
        kid: kid.into(),
        alg: format!("{algorithm:?}"),
        ..Default::default()
    };
    if algorithm == Algorithm::ES256 {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        (jwk.kty, jwk.crv) = ("EC".into(), "P-256".into());
        (jwk.x, jwk.y) = (text(x), text(y));
        return (EncodingKey::from_ec_der(pkcs8.as_ref()), jwk);
    }
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    jwk.kty = "RSA".into();
    jwk.n = text(pair.public_key().modulus().big_endian_without_leading_zero());
    jwk.e = text(pair.public_key().exponent().big_endian_without_leading_zero());
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    // The PKCS#1 key behind the header of PKCS#8.
    (EncodingKey::from_rsa_der(&der.as_ref()[26..]), jwk)
}

#[test]
fn a_key_verifies_its_own_algorithm_and_no_other() {
    let signed = |algorithm, key: &EncodingKey, kid: &str| {
        let header = Header {
            alg: algorithm,
            kid: Some(kid.into()),
            ..header()
        };
        jsonwebtoken::encode(&header, &claims(), key).unwrap()
    };
    for algorithm in [Algorithm::ES256, Algorithm::RS256, Algorithm::PS256] {
        let (key, jwk) = pair(algorithm, "k1");
        let mut set = KeySet::default();
        set.insert(&jwk).unwrap();
        let token = signed(algorithm, &key, "k1");
        assert_eq!(set.verify(&token, &tenant(), NOW), Ok(claims()), "{algorithm:?}");
        let (forger, _) = pair(algorithm, "k1");
        let forged = signed(algorithm, &forger, "k1");
        assert_eq!(set.verify(&forged, &tenant(), NOW), Err(VerifyError::Signature));
        // The same RSA key by the other padding.
        let other = match algorithm {
            Algorithm::RS256 => Some(Algorithm::PS256),
            Algorithm::PS256 => Some(Algorithm::RS256),
            _ => None,
        };
        if let Some(other) = other {
            let token = signed(other, &key, "k1");
            assert_eq!(set.verify(&token, &tenant(), NOW), Err(VerifyError::Malformed));
        }
    }
}

#[test]
fn keys_for_something_else_are_ignored_and_malformed_ones_are_errors() {
    let (_, rsa) = pair(Algorithm::RS256, "rsa");
    let (_, ec) = pair(Algorithm::ES256, "ec");
    let ed = signer().json_web_key();
    let change = |key: &pb::JsonWebKey, change: fn(&mut pb::JsonWebKey)| {
        let mut key = key.clone();
        change(&mut key);
        key
    };
    let kids = |keys: Vec<pb::JsonWebKey>| {
        let set = KeySet::from_response(&pb::GetJsonWebKeySetResponse { keys }).unwrap();
        let mut kids: Vec<_> = set.keys.into_keys().collect();
        kids.sort();
        kids
    };
    assert_eq!(
        kids(vec![rsa.clone(), ec.clone(), ed.clone()]),
        ["ec", "k1", "rsa"]
    );
    for ignored in [
        change(&rsa, |key| key.alg.clear()),
        change(&rsa, |key| key.alg = "RS512".into()),
        change(&rsa, |key| key.r#use = "enc".into()),
        change(&rsa, |key| key.kid.clear()),
        change(&ec, |key| key.crv = "P-384".into()),
        change(&ec, |key| key.alg = "RS256".into()),
        change(&ed, |key| key.crv = "X25519".into()),
        change(&ed, |key| key.kty = "oct".into()),
    ] {
        assert!(kids(vec![ignored.clone()]).is_empty(), "{ignored:?}");
    }
    for taken in [
        change(&ed, |key| key.alg = "Ed25519".into()),
        change(&ed, |key| key.alg.clear()),
        change(&ec, |key| key.alg.clear()),
        change(&ec, |key| key.r#use.clear()),
    ] {
        assert_eq!(kids(vec![taken.clone()]).len(), 1, "{taken:?}");
    }
    for malformed in [
        change(&rsa, |key| key.n = "!".into()),
        change(&ec, |key| key.y = "!".into()),
        change(&ed, |key| key.x = "!".into()),
    ] {
        let inserted = KeySet::default().insert(&malformed);
        assert_eq!(inserted, Err(VerifyError::Malformed), "{malformed:?}");
    }
}
