//! Tests of reading and writing key sets.

#![allow(clippy::unwrap_used)]

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;

/// The modulus of RFC 7517 appendix A.1.
const MODULUS: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

/// The P-256 key of RFC 7517 appendix A.1.
fn p256() -> Value {
    json!({
        "kty": "EC", "crv": "P-256", "kid": "e1", "alg": "ES256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    })
}

/// The Ed25519 key of RFC 8037 appendix A.2.
fn ed25519() -> Value {
    json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "o1", "alg": "EdDSA",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    })
}

fn rsa() -> Value {
    json!({"kty": "RSA", "kid": "r1", "alg": "RS256", "n": MODULUS, "e": "AQAB"})
}

/// Replaces or adds members of a key. `null` removes a member.
fn with(mut key: Value, changes: Value) -> Value {
    let members = key.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    key
}

fn parse(keys: &[Value]) -> Result<ClientKeys, Violations> {
    ClientKeys::parse(&json!({ "keys": keys }).to_string())
}

/// The fields of all violations, sorted.
fn refused(result: Result<ClientKeys, Violations>) -> Vec<String> {
    let mut fields: Vec<_> = result
        .unwrap_err()
        .into_vec()
        .into_iter()
        .map(|v| v.field)
        .collect();
    fields.sort_unstable();
    fields
}

/// Returns the violations of a single key, without the path of the key.
fn refused_key(key: Value) -> Vec<String> {
    let strip = |field: String| {
        field
            .strip_prefix("json_web_key_set.keys[0]")
            .unwrap()
            .trim_start_matches('.')
            .to_owned()
    };
    refused(parse(&[key])).into_iter().map(strip).collect()
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An odd number of this many bits.
fn modulus(bits: usize) -> String {
    let mut number = vec![0x55; bits.div_ceil(8)];
    number[0] = 1 << ((bits - 1) % 8);
    encoded(&number)
}

#[test]
fn equal_key_sets_are_written_in_one_form() {
    let ps256 = with(rsa(), json!({"kid": "a b", "alg": "PS256"}));
    let decorated = with(
        ed25519(),
        json!({"use": "sig", "key_ops": ["verify"], "ext": true, "x5t": "1", "n": 7}),
    );
    let keys = parse(&[rsa(), ed25519(), p256(), ps256.clone()]).unwrap();
    let expected = [
        r#"{"keys":[{"kid":"a b","alg":"PS256","use":"sig","kty":"RSA","n":"MODULUS","e":"AQAB"},"#,
        r#"{"kid":"e1","alg":"ES256","use":"sig","kty":"EC","crv":"P-256","#,
        r#""x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","#,
        r#""y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},"#,
        r#"{"kid":"o1","alg":"EdDSA","use":"sig","kty":"OKP","crv":"Ed25519","#,
        r#""x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},"#,
        r#"{"kid":"r1","alg":"RS256","use":"sig","kty":"RSA","n":"MODULUS","e":"AQAB"}]}"#,
    ];
    assert_eq!(keys.as_str(), expected.concat().replace("MODULUS", MODULUS));
    assert_eq!(keys.kids(), ["a b", "e1", "o1", "r1"]);
    assert_eq!(parse(&[ps256, p256(), decorated, rsa()]).as_ref(), Ok(&keys));
    assert_eq!(ClientKeys::parse(keys.as_str()), Ok(keys));
}

#[test]
fn no_keys_are_an_empty_text() {
    for text in ["", r#"{"keys":[]}"#, " { \"keys\" : [ ], \"more\": 1 }\n"] {
        let keys = ClientKeys::parse(text).unwrap();
        assert_eq!((keys.as_str(), keys.kids().len()), ("", 0), "{text}");
    }
}

#[test]
fn a_text_that_is_no_key_set_is_rejected() {
    for text in [
        " ",
        "x",
        "null",
        "[]",
        "7",
        r#""keys""#,
        r#"{"keys":[]"#,
        r#"{"keys":[]}{}"#,
    ] {
        assert_eq!(refused(ClientKeys::parse(text)), ["json_web_key_set"], "{text}");
    }
    for text in ["{}", r#"{"keys":{}}"#, r#"{"keys":null}"#, r#"{"keys":"[]"}"#] {
        assert_eq!(
            refused(ClientKeys::parse(text)),
            ["json_web_key_set.keys"],
            "{text}"
        );
    }
    // A single private key, as in a key file.
    let pasted = with(p256(), json!({"d": "1"})).to_string();
    assert_eq!(
        refused(ClientKeys::parse(&pasted)),
        ["json_web_key_set.d", "json_web_key_set.keys"]
    );
    for element in [json!(null), json!("k"), json!([])] {
        assert_eq!(refused_key(element.clone()), [""], "{element}");
    }
}

#[test]
fn key_sets_have_limits_of_size_and_number() {
    let numbered = |count| (0..count).map(|n: usize| with(ed25519(), json!({"kid": n.to_string()})));
    assert_eq!(parse(&numbered(10).collect::<Vec<_>>()).unwrap().kids().len(), 10);
    let eleven = parse(&numbered(11).collect::<Vec<_>>());
    assert_eq!(refused(eleven), ["json_web_key_set.keys"]);
    let many = parse(&vec![json!(0); 8000]);
    assert_eq!(refused(many).len(), 11);

    let text = json!({ "keys": [p256()] }).to_string();
    let padded = |length: usize| text.clone() + &" ".repeat(length - text.len());
    ClientKeys::parse(&padded(16 * 1024)).unwrap();
    let long = ClientKeys::parse(&padded(16 * 1024 + 1));
    assert_eq!(refused(long), ["json_web_key_set"]);
    let deep = ClientKeys::parse(&"[".repeat(16 * 1024));
    assert_eq!(refused(deep), ["json_web_key_set"]);
}

#[test]
fn each_key_has_a_unique_name() {
    for kid in ["x", "2026-11, next", &"k".repeat(128)] {
        assert_eq!(parse(&[with(p256(), json!({"kid": kid}))]).unwrap().kids(), [kid]);
    }
    for kid in [
        json!(null),
        json!(7),
        json!(""),
        json!("k".repeat(129)),
        json!("é"),
        json!("a\n"),
    ] {
        assert_eq!(refused_key(with(p256(), json!({"kid": kid}))), ["kid"], "{kid}");
    }
    let same = with(rsa(), json!({"kid": "e1"}));
    assert_eq!(
        refused(parse(&[p256(), ed25519(), same.clone(), same])),
        ["json_web_key_set.keys[2].kid", "json_web_key_set.keys[3].kid"]
    );
}

#[test]
fn the_algorithm_must_fit_the_key_type() {
    for (key, alg) in [
        (p256(), "EdDSA"),
        (p256(), "ES384"),
        (p256(), "es256"),
        (ed25519(), "ES256"),
        (ed25519(), "Ed25519"),
        (rsa(), "RS512"),
        (rsa(), "HS256"),
        (rsa(), "none"),
        (rsa(), "ES256"),
    ] {
        assert_eq!(refused_key(with(key, json!({ "alg": alg }))), ["alg"], "{alg}");
    }
    assert_eq!(refused_key(with(p256(), json!({"alg": null}))), ["alg"]);
    assert_eq!(refused_key(with(p256(), json!({"kty": null}))), ["kty"]);
    assert_eq!(refused_key(with(p256(), json!({"kty": "ec"}))), ["kty"]);
    assert_eq!(refused_key(with(p256(), json!({"crv": "P-384"}))), ["crv"]);
    assert_eq!(refused_key(with(p256(), json!({"crv": null}))), ["crv"]);
    assert_eq!(refused_key(with(ed25519(), json!({"crv": "X25519"}))), ["crv"]);
}

#[test]
fn a_key_must_be_for_verification_only() {
    for ops in [json!(["verify"]), json!(["verify", "verify"])] {
        parse(&[with(p256(), json!({ "key_ops": ops }))]).unwrap();
    }
    for ops in [
        json!([]),
        json!(["sign"]),
        json!(["verify", "sign"]),
        json!("verify"),
        json!([1]),
    ] {
        assert_eq!(
            refused_key(with(p256(), json!({"key_ops": ops}))),
            ["key_ops"],
            "{ops}"
        );
    }
    for usage in ["enc", "", "SIG"] {
        assert_eq!(
            refused_key(with(p256(), json!({"use": usage}))),
            ["use"],
            "{usage}"
        );
    }
}

#[test]
fn private_members_and_certificates_are_rejected() {
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "jku", "x5u", "x5c"] {
        for key in [p256(), ed25519(), rsa()] {
            // Whatever its value is.
            for value in [json!("c2VjcmV0"), json!(""), json!([])] {
                let mut key = key.clone();
                key[name] = value;
                assert_eq!(refused_key(key), [name]);
            }
            let mut key = key.clone();
            key[name] = Value::Null;
            assert_eq!(refused_key(key), [name]);
        }
        let beside = json!({"keys": [p256()], name: "c2VjcmV0"}).to_string();
        assert_eq!(
            refused(ClientKeys::parse(&beside)),
            [format!("json_web_key_set.{name}")]
        );
    }
    let shared = json!({"kty": "oct", "kid": "s1", "alg": "HS256", "k": "c2VjcmV0"});
    assert_eq!(refused_key(shared.clone()), ["alg", "k", "kty"]);
    let told = format!("{:?}", parse(&[shared]).unwrap_err());
    assert!(!told.contains("c2VjcmV0") && !told.contains("s1"), "{told}");
}

#[test]
fn points_must_be_on_their_curve() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = pair.public_key().as_ref();
    let (x, mut y) = (public[1..33].to_vec(), public[33..].to_vec());
    let point = |x: &[u8], y: &[u8]| with(p256(), json!({"x": encoded(x), "y": encoded(y)}));
    parse(&[point(&x, &y)]).unwrap();
    y[31] ^= 1;
    assert_eq!(refused_key(point(&x, &y)), ["x"]);
    assert_eq!(refused_key(point(&[0; 32], &[0; 32])), ["x"]);
    assert_eq!(refused_key(point(&[0xff; 32], &y)), ["x"]);
    assert_eq!(refused_key(point(&x[1..], &[&[0], &y[..]].concat())), ["x", "y"]);
}

#[test]
fn coordinates_are_32_bytes_in_base64url() {
    for bad in [
        json!(null),
        json!(7),
        json!(""),
        json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="),
        json!("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
        json!("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp"),
        json!(" 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"),
        json!(encoded(&[1; 31])),
        json!(encoded(&[1; 33])),
    ] {
        assert_eq!(refused_key(with(ed25519(), json!({"x": bad}))), ["x"], "{bad}");
    }
}

#[test]
fn points_of_small_order_are_rejected() {
    let line = |first: u8, middle: u8, last: u8| {
        let mut point = [middle; 32];
        (point[0], point[31]) = (first, last);
        point
    };
    for point in [
        line(0, 0, 0),
        line(1, 0, 0),
        line(1, 0, 0x80),
        line(0xec, 0xff, 0x7f),
        line(0xed, 0xff, 0xff),
        line(0xee, 0xff, 0x7f),
    ] {
        assert_eq!(refused_key(with(ed25519(), json!({"x": encoded(&point)}))), ["x"]);
    }
    for hex in [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ] {
        let point: Vec<_> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(refused_key(with(ed25519(), json!({"x": encoded(&point)}))), ["x"]);
    }
}

#[test]
fn rsa_keys_have_2048_to_4096_bits_and_an_odd_exponent() {
    for bits in [2048, 2049, 3072, 4096] {
        parse(&[with(rsa(), json!({"n": modulus(bits)}))]).unwrap();
    }
    let even = |text: String| {
        let mut number = URL_SAFE_NO_PAD.decode(text).unwrap();
        *number.last_mut().unwrap() ^= 1;
        encoded(&number)
    };
    let padded = encoded(&[&[0], &URL_SAFE_NO_PAD.decode(MODULUS).unwrap()[..]].concat());
    for n in [
        modulus(1024),
        modulus(2047),
        modulus(4097),
        even(modulus(2048)),
        padded,
        "=".into(),
    ] {
        assert_eq!(refused_key(with(rsa(), json!({ "n": n }))), ["n"], "{n}");
    }
    for e in [&[3_u8][..], &[1, 0, 1], &[1, 0xff, 0xff, 0xff, 0xff]] {
        parse(&[with(rsa(), json!({"e": encoded(e)}))]).unwrap();
    }
    for e in [
        &[][..],
        &[0],
        &[1],
        &[2],
        &[0, 1, 0, 1],
        &[1, 0, 0],
        &[2, 0, 0, 0, 1],
        &[1; 9],
    ] {
        assert_eq!(refused_key(with(rsa(), json!({"e": encoded(e)}))), ["e"], "{e:?}");
    }
}

#[test]
fn all_violations_are_reported_at_once() {
    let bad =
        json!({"kty": "RSA", "kid": "", "alg": "ES256", "use": "enc", "n": "AQAB", "e": "AA", "d": "x"});
    assert_eq!(
        refused(parse(&[p256(), bad, json!(1)])),
        [
            "json_web_key_set.keys[1].alg",
            "json_web_key_set.keys[1].d",
            "json_web_key_set.keys[1].e",
            "json_web_key_set.keys[1].kid",
            "json_web_key_set.keys[1].n",
            "json_web_key_set.keys[1].use",
            "json_web_key_set.keys[2]",
        ]
    );
}
