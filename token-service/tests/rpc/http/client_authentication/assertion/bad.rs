//! Assertions that prove nothing: made by the client's own key and flawed, or forged without it.

use accord::clock::Clock;
use serde_json::{Value, json};

use crate::{
    http::keys::{ALGORITHMS, ClientKey, hs256, jwt},
    world::World,
};

/// How to make a flawed assertion with the client's own key.
type Change = fn(&World, &mut Value, &mut Value);

/// What is wrong with claims or header of an assertion that the client's own key signed.
const FLAWS: [(&str, Change); 35] = [
    ("another tenant's authority", |world, _, claims| {
        claims["aud"] = world.issuer.replace("acme", "globex").into();
    }),
    ("the token endpoint", |world, _, claims| {
        claims["aud"] = format!("{}/oauth2/token", world.issuer).into();
    }),
    ("a slash more", |world, _, claims| {
        claims["aud"] = format!("{}/", world.issuer).into()
    }),
    ("an audience in capitals", |world, _, claims| {
        claims["aud"] = world.issuer.to_uppercase().into();
    }),
    ("two audiences", |world, _, claims| {
        claims["aud"] = json!([world.issuer, "https://b.example"])
    }),
    ("no audience", |_, _, claims| {
        drop(claims.as_object_mut().unwrap().remove("aud"))
    }),
    ("an empty audience", |_, _, claims| claims["aud"] = "".into()),
    ("no end", |_, _, claims| {
        drop(claims.as_object_mut().unwrap().remove("exp"))
    }),
    ("an end a minute ago", |world, _, claims| {
        claims["exp"] = (world.clock().now().as_secs() - 60).into();
    }),
    ("an end long ago", |_, _, claims| claims["exp"] = 1.into()),
    ("a negative end", |_, _, claims| claims["exp"] = json!(-1)),
    ("an end in text", |_, _, claims| {
        claims["exp"] = claims["exp"].to_string().into()
    }),
    ("an end that is null", |_, _, claims| claims["exp"] = Value::Null),
    ("an end too far ahead", |world, _, claims| {
        claims["exp"] = (world.clock().now().as_secs() + 3600 + 61).into();
    }),
    ("an end in milliseconds", |world, _, claims| {
        claims["exp"] = (world.clock().now().as_secs() * 1000).into();
    }),
    ("an end beyond numbers", |_, _, claims| {
        claims["exp"] = json!(1e300)
    }),
    ("a beginning to come", |world, _, claims| {
        claims["nbf"] = (world.clock().now().as_secs() + 61).into();
    }),
    ("an issue to come", |world, _, claims| {
        claims["iat"] = (world.clock().now().as_secs() + 61).into();
    }),
    ("no jti", |_, _, claims| {
        drop(claims.as_object_mut().unwrap().remove("jti"))
    }),
    ("an empty jti", |_, _, claims| claims["jti"] = "".into()),
    ("a jti that is a number", |_, _, claims| claims["jti"] = 1.into()),
    ("no iss", |_, _, claims| {
        drop(claims.as_object_mut().unwrap().remove("iss"))
    }),
    ("another iss", |_, _, claims| {
        claims["iss"] = "https://partner.example".into()
    }),
    ("another sub", |_, _, claims| {
        claims["sub"] = "cli_01arz3ndektsv4rrffq69g5fav".into()
    }),
    ("no sub", |_, _, claims| {
        drop(claims.as_object_mut().unwrap().remove("sub"))
    }),
    ("a sub that is no client", |_, _, claims| {
        claims["sub"] = "partner".into()
    }),
    ("an unknown kid", |_, header, _| header["kid"] = "key-2".into()),
    ("an empty kid", |_, header, _| header["kid"] = "".into()),
    ("a kid that is a number", |_, header, _| header["kid"] = 1.into()),
    ("a kid that is a path", |_, header, _| {
        header["kid"] = "../../../../dev/null".into()
    }),
    ("a critical extension", |_, header, _| {
        header["crit"] = json!(["exp"])
    }),
    ("a critical extension that is there", |_, header, _| {
        header["crit"] = json!(["b64"]);
        header["b64"] = false.into();
    }),
    ("an algorithm of the family", |_, header, _| {
        header["alg"] = "RS512".into()
    }),
    ("another algorithm", |_, header, _| header["alg"] = "ES384".into()),
    ("no algorithm", |_, header, _| {
        drop(header.as_object_mut().unwrap().remove("alg"))
    }),
];

/// Assertions that are not signed with the client's private key, or not in this form.
fn forgeries(world: &World, key: &ClientKey) -> Vec<(String, String)> {
    let mut forged = Vec::new();
    let (header, claims) = key.parts(world);
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": key.kid});
        let unsigned = jwt(&header, &claims, |_| Vec::new());
        let kept = jwt(&header, &claims, |message| key.sign(message));
        forged.extend([
            (format!("{alg:?} without a signature"), unsigned),
            (format!("{alg:?}"), kept),
        ]);
    }
    for (index, secret) in key.public_bytes().into_iter().enumerate() {
        for alg in ["HS256", key.algorithm] {
            let header = json!({"alg": alg, "kid": key.kid});
            let signed = jwt(&header, &claims, |message| hs256(&secret, message));
            forged.push((format!("HMAC by public key, form {index}, as {alg}"), signed));
        }
    }
    // Keys of the attacker's own, in every way of slipping one in.
    for algorithm in ALGORITHMS {
        let own = ClientKey::generate(algorithm, &key.kid);
        let mut header = json!({"alg": algorithm, "kid": own.kid});
        forged.push((
            format!("{algorithm} by another key"),
            jwt(&header, &claims, |m| own.sign(m)),
        ));
        header["jwk"] = own.jwk();
        header["jku"] = "https://evil.example/jwks.json".into();
        header["x5u"] = "https://evil.example/cert.pem".into();
        forged.push((
            format!("{algorithm} with its key in the header"),
            jwt(&header, &claims, |m| own.sign(m)),
        ));
    }
    for other in ALGORITHMS.into_iter().filter(|other| *other != key.algorithm) {
        let header = json!({"alg": other, "kid": key.kid});
        forged.push((
            format!("{other} in the header alone"),
            jwt(&header, &claims, |m| key.sign(m)),
        ));
    }
    // The right signature of something else.
    let good = jwt(&header, &claims, |message| key.sign(message));
    let parts: Vec<_> = good.split('.').collect();
    let (_, mut longer) = key.parts(world);
    longer["exp"] = (claims["exp"].as_i64().unwrap() + 60).into();
    let moved = jwt(&header, &longer, |_| Vec::new());
    forged.push(("a moved signature".into(), format!("{moved}{}", parts[2])));
    for broken in [
        ".".into(),
        "..".into(),
        "...".into(),
        "not a JWT".into(),
        "{\"alg\":\"none\"}".into(),
        "ü.ü.ü".into(),
        parts[0].into(),
        parts[..2].join("."),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{good}."),
        format!("{good}.{}", parts[2]),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{good}="),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][..parts[2].len() - 4]),
        jwt(&header, &json!([]), |message| key.sign(message)),
        jwt(&header, &json!("claims"), |message| key.sign(message)),
        jwt(&json!([]), &claims, |message| key.sign(message)),
    ] {
        forged.push((format!("broken: {broken:.40}"), broken));
    }
    let mut padded = claims.clone();
    padded["padding"] = "x".repeat(8 * 1024).into();
    forged.push((
        "oversize".into(),
        jwt(&header, &padded, |message| key.sign(message)),
    ));
    forged
}

/// Every bad assertion, with what is bad about it.
pub fn bad_assertions(world: &World, key: &ClientKey) -> Vec<(String, String)> {
    let own = FLAWS.iter().map(|(flaw, change)| {
        let jwt = key.assertion_with(world, |header, claims| change(world, header, claims));
        ((*flaw).to_owned(), jwt)
    });
    own.chain(forgeries(world, key)).collect()
}
