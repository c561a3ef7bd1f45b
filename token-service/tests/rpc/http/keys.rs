//! A client's key pair, and assertions signed with it (RFC 7523) or forged in whatever way a test wants:
//! every byte of a JWT is the test's to choose.

use accord::clock::Clock;
use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use crate::world::World;

/// The algorithms that an assertion may be signed by.
pub const ALGORITHMS: [&str; 4] = ["ES256", "EdDSA", "RS256", "PS256"];

/// A key pair, for one algorithm.
pub struct ClientKey {
    pub kid: String,
    pub algorithm: &'static str,
    pair: Pair,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A JWT of these parts, whose signature `sign` makes.
pub fn jwt(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// HS256 with these bytes for the secret.
pub fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

/// A key set of these keys.
pub fn key_set(keys: &[&ClientKey]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

impl ClientKey {
    pub fn generate(algorithm: &'static str, kid: &str) -> Self {
        let pair = match algorithm {
            "ES256" => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            "EdDSA" => Pair::Ed25519(Ed25519KeyPair::generate().unwrap()),
            _ => Pair::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())),
        };
        Self {
            kid: kid.into(),
            algorithm,
            pair,
        }
    }

    /// A new key that `world`'s client proves itself by, and no other.
    pub fn of_client(world: &World, algorithm: &'static str) -> Self {
        let key = Self::generate(algorithm, "key-1");
        world.change_client(|client| client.json_web_key_set = key_set(&[&key]));
        key
    }

    /// The public key as an operator registers it (RFC 7517).
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match &self.pair {
            Pair::P256(pair) => {
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key().as_ref())})
            }
            Pair::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                json!({
                    "kty": "RSA",
                    "n": encode(n.big_endian_without_leading_zero()),
                    "e": encode(e.big_endian_without_leading_zero()),
                })
            }
        };
        jwk["kid"] = self.kid.as_str().into();
        jwk["alg"] = self.algorithm.into();
        jwk
    }

    /// The public key in the forms that careless verifiers take for a shared secret.
    pub fn public_bytes(&self) -> Vec<Vec<u8>> {
        let (der, raw) = match &self.pair {
            Pair::P256(pair) => (spki(pair.public_key()), pair.public_key().as_ref().to_vec()),
            Pair::Ed25519(pair) => (spki(pair.public_key()), pair.public_key().as_ref().to_vec()),
            Pair::Rsa(pair) => (spki(pair.public_key()), pair.public_key().as_ref().to_vec()),
        };
        let lines: Vec<_> = STANDARD
            .encode(&der)
            .into_bytes()
            .chunks(64)
            .map(<[u8]>::to_vec)
            .collect();
        let lines = lines.join(&b'\n');
        let pem = [
            b"-----BEGIN PUBLIC KEY-----\n".to_vec(),
            lines,
            b"\n-----END PUBLIC KEY-----".to_vec(),
        ]
        .concat();
        let with_newline = [pem.clone(), b"\n".to_vec()].concat();
        let jwk = self.jwk();
        let member = jwk["x"].as_str().or(jwk["n"].as_str()).unwrap();
        let decoded = URL_SAFE_NO_PAD.decode(member).unwrap();
        vec![
            pem,
            with_newline,
            der,
            raw,
            member.as_bytes().to_vec(),
            decoded,
            jwk.to_string().into_bytes(),
            Vec::new(),
        ]
    }

    /// A signature by this key's algorithm.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match self.algorithm {
                    "PS256" => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
        }
    }

    /// An assertion of the world's client for `acme`, good for a minute.
    pub fn assertion(&self, world: &World) -> String {
        self.assertion_with(world, |_, _| ())
    }

    /// The same with header and claims changed before it is signed.
    pub fn assertion_with(&self, world: &World, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let (mut header, mut claims) = self.parts(world);
        change(&mut header, &mut claims);
        jwt(&header, &claims, |message| self.sign(message))
    }

    /// Header and claims of a good assertion.
    pub fn parts(&self, world: &World) -> (Value, Value) {
        let now = world.clock().now().as_secs();
        let header = json!({"typ": "JWT", "alg": self.algorithm, "kid": self.kid});
        let claims = json!({
            "iss": world.client_id, "sub": world.client_id, "aud": world.issuer,
            "iat": now, "exp": now + 60, "jti": uuid::Uuid::new_v4(),
        });
        (header, claims)
    }
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Vec<u8> {
    key.as_der().unwrap().as_ref().to_vec()
}
