//! Keys of clients, and the proofs that they sign (RFC 9449). A test can spoil each member.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::dpop::VerifiedProof;

/// A key of a client.
#[derive(Debug)]
pub struct ProofKey {
    pair: Pair,
    /// The name of its algorithm.
    pub alg: &'static str,
    /// The public key.
    pub jwk: Value,
}

#[derive(Debug)]
enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    /// Of the point of order 1, for which one signature is valid for every message.
    Anybody,
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl ProofKey {
    /// Generates a key for ES256.
    pub fn es256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)});
        Self {
            pair: Pair::P256(pair),
            alg: "ES256",
            jwk,
        }
    }

    /// Generates a key for EdDSA.
    pub fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())});
        Self {
            pair: Pair::Ed25519(pair),
            alg: "EdDSA",
            jwk,
        }
    }

    /// A public key for which anyone can sign by EdDSA.
    pub fn of_anybody() -> Self {
        let x = encode([&[1][..], &[0; 31]].concat());
        Self {
            pair: Pair::Anybody,
            alg: "EdDSA",
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
        }
    }

    /// Generates a key of 2,048 bits for PS256.
    pub fn rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let n = encode(public.modulus().big_endian_without_leading_zero());
        let e = encode(public.exponent().big_endian_without_leading_zero());
        Self {
            pair: Pair::Rsa(Box::new(pair)),
            alg: "PS256",
            jwk: json!({"kty": "RSA", "n": n, "e": e}),
        }
    }

    /// The thumbprint, as a library that knows nothing of this program computes it.
    pub fn jkt(&self) -> String {
        let jwk: Jwk = serde_json::from_value(self.jwk.clone()).unwrap();
        jwk.thumbprint(ThumbprintHash::SHA256).unwrap()
    }

    /// The header of its proofs.
    pub fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": self.alg, "jwk": self.jwk})
    }

    /// A proof for a POST to `url` that was made at `iat`, with a new `jti`.
    pub fn proof(&self, url: &str, iat: i64) -> String {
        self.sign(&self.header(), &claims("POST", url, iat))
    }

    /// A proof whose header and claims were changed. `null` removes a member.
    pub fn altered(&self, url: &str, iat: i64, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let (mut header, mut claims) = (self.header(), claims("POST", url, iat));
        change(&mut header, &mut claims);
        for part in [&mut header, &mut claims] {
            if let Some(members) = part.as_object_mut() {
                members.retain(|_, value| !value.is_null());
            }
        }
        self.sign(&header, &claims)
    }

    /// Signs any header and claims, by the algorithm of the key, or by RS256 if the header says so.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string(), header["alg"] == "RS256")
    }

    /// Does the same with texts that may be no JSON.
    pub fn sign_text(&self, header: &str, claims: &str, pkcs1: bool) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Pair::Anybody => [&[1][..], &[0; 63]].concat(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding = if pkcs1 { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
                pair.sign(padding, &random, message.as_bytes(), &mut signature)
                    .unwrap();
                signature
            }
        };
        format!("{message}.{}", encode(signature))
    }
}

/// The claims of a proof, with a new `jti`.
pub fn claims(method: &str, url: &str, iat: i64) -> Value {
    json!({"jti": Uuid::new_v4().to_string(), "htm": method, "htu": url, "iat": iat})
}

/// Offers proofs of this second to a memory of used ones, until it has no room in any part: a thousand in a row are rejected.
pub fn use_up_room(iat: i64, mut accepts: impl FnMut(&VerifiedProof) -> bool) {
    let mut rejected = 0;
    for number in 0.. {
        let proof = VerifiedProof {
            jkt: "j".repeat(43),
            jti: format!("filling {number}"),
            iat,
            nonce: None,
        };
        rejected = if accepts(&proof) { 0 } else { rejected + 1 };
        if rejected == 1_000 {
            return;
        }
    }
}
