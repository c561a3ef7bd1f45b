//! Tests of reading and writing key sets.

#![allow(clippy::unwrap_used, clippy::panic)]

use accord::{
    testing::certificates::{KeyKind, Pair, Subject},
    text::jwk::certificate::public_key,
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
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
        json!({
            "use": "sig", "key_ops": ["verify"], "ext": true, "n": 7, "x5t": "1", "x5t#S256": "1",
            "x5u": "https://partner.example/key.pem", "jku": "https://partner.example/jwks.json",
        }),
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

/// Asserts that a key is skipped beside another one, and that a set of it alone has no key.
#[track_caller]
fn assert_skipped(key: Value) {
    let beside = parse(&[key.clone(), rsa()]).unwrap_or_else(|v| panic!("{key}: {v:?}"));
    assert_eq!(beside, parse(&[rsa()]).unwrap(), "{key}");
    assert_eq!(refused(parse(&[key])), ["json_web_key_set.keys"]);
}

#[test]
fn a_key_may_have_a_name_and_share_it() {
    for kid in ["x", "2026-11, next", &"k".repeat(128)] {
        assert_eq!(parse(&[with(p256(), json!({"kid": kid}))]).unwrap().kids(), [kid]);
    }
    for kid in [
        json!(7),
        json!(""),
        json!("k".repeat(129)),
        json!("é"),
        json!("a\n"),
    ] {
        assert_eq!(refused_key(with(p256(), json!({"kid": kid}))), ["kid"], "{kid}");
    }
    let nameless = with(p256(), json!({"kid": null}));
    let keys = parse(&[with(rsa(), json!({"kid": "o1"})), nameless.clone(), ed25519()]).unwrap();
    assert_eq!(keys.kids(), ["o1", "o1"]);
    let reordered = [ed25519(), nameless, with(rsa(), json!({"kid": "o1"}))];
    assert_eq!(parse(&reordered).unwrap(), keys);
    assert_eq!(ClientKeys::parse(keys.as_str()), Ok(keys));
}

#[test]
fn keys_of_other_types_algorithms_and_uses_are_skipped() {
    for (key, change) in [
        (p256(), json!({"alg": "EdDSA"})),
        (p256(), json!({"alg": "ES384"})),
        (p256(), json!({"alg": "es256"})),
        (p256(), json!({"alg": "ECDH-ES"})),
        (p256(), json!({"alg": 7})),
        (p256(), json!({"kty": null})),
        (p256(), json!({"kty": "ec"})),
        (p256(), json!({"kty": "AKP", "alg": "ML-DSA-44"})),
        (p256(), json!({"crv": "P-384"})),
        (p256(), json!({"crv": "secp256k1", "alg": "ES256K"})),
        (p256(), json!({"crv": null})),
        (p256(), json!({"use": "enc"})),
        (p256(), json!({"use": ""})),
        (p256(), json!({"use": "SIG"})),
        (p256(), json!({"key_ops": []})),
        (p256(), json!({"key_ops": ["sign"]})),
        (p256(), json!({"key_ops": ["verify", "sign"]})),
        (p256(), json!({"key_ops": "verify"})),
        (p256(), json!({"key_ops": [1]})),
        (ed25519(), json!({"alg": "ES256"})),
        (ed25519(), json!({"crv": "X25519"})),
        (ed25519(), json!({"crv": "Ed448", "alg": "Ed448"})),
        (rsa(), json!({"alg": "RS512"})),
        (rsa(), json!({"alg": "RSA-OAEP-256", "use": "enc"})),
        (rsa(), json!({"alg": "HS256"})),
        (rsa(), json!({"alg": "none"})),
        // What is wrong with a key that is skipped does not matter.
        (rsa(), json!({"use": "enc", "n": "AQAB", "kid": 7})),
    ] {
        assert_skipped(with(key, change));
    }
    for ops in [json!(["verify"]), json!(["verify", "verify"])] {
        parse(&[with(p256(), json!({ "key_ops": ops }))]).unwrap();
    }
}

#[test]
fn a_key_without_an_algorithm_keeps_none_and_ed25519_has_one_name() {
    for key in [p256(), ed25519(), rsa()] {
        let keys = parse(&[with(key, json!({"alg": null}))]).unwrap();
        assert!(!keys.as_str().contains("alg"), "{}", keys.as_str());
    }
    let other_name = with(ed25519(), json!({"alg": "Ed25519"}));
    assert_eq!(parse(&[other_name]), parse(&[ed25519()]));
}

#[test]
fn private_members_are_rejected() {
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
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
    assert_eq!(refused_key(shared.clone()), ["k"]);
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
fn a_key_keeps_its_own_certificate() {
    let made = |kind| Pair::self_signed(&Subject::default(), kind).der();
    for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048, KeyKind::P384] {
        let (own, other) = (made(kind), made(kind));
        let key = with(public_key(&own).unwrap(), json!({"kid": "c1"}));
        let certified = |chain: &[&[u8]]| {
            let chain: Vec<_> = chain.iter().map(|der| STANDARD.encode(der)).collect();
            with(key.clone(), json!({ "x5c": chain }))
        };
        let keys = parse(&[certified(&[&own])]).unwrap();
        let stored = elements(keys.as_str()).remove(0);
        assert_eq!(stored["x5c"], json!([STANDARD.encode(&own)]));
        assert_eq!(keys.kids(), ["c1"]);
        assert_eq!(keys.sign_assertions(), kind != KeyKind::P384);
        assert_eq!(ClientKeys::parse(keys.as_str()).as_ref(), Ok(&keys));
        // Nobody asks who vouches for it.
        assert_eq!(parse(&[certified(&[&own, &other])]), Ok(keys));
        for wrong in [certified(&[&other]), certified(&[b"x"]), certified(&[])] {
            assert_eq!(refused_key(wrong), ["x5c"]);
        }
        for wrong in [json!("x"), json!([7]), json!(null), json!({})] {
            let mut key = key.clone();
            key["x5c"] = wrong;
            assert_eq!(refused_key(key), ["x5c"]);
        }
        let exposed = with(certified(&[&own]), json!({"d": "AA"}));
        assert_eq!(refused_key(exposed), ["d"]);
        assert_skipped(with(certified(&[&own]), json!({"use": "enc"})));
        let nameless = with(certified(&[&own]), json!({"kid": 7}));
        assert_eq!(refused_key(nameless), ["kid"]);
    }
}

#[test]
fn all_violations_are_reported_at_once() {
    let bad = json!({"kty": "RSA", "kid": "", "alg": "RS256", "n": "AQAB", "e": "AA", "d": "x"});
    let skipped = json!({"kty": "oct", "alg": "A128KW"});
    assert_eq!(
        refused(parse(&[p256(), bad, json!(1), skipped])),
        [
            "json_web_key_set.keys[1].d",
            "json_web_key_set.keys[1].e",
            "json_web_key_set.keys[1].kid",
            "json_web_key_set.keys[1].n",
            "json_web_key_set.keys[2]",
        ]
    );
}
