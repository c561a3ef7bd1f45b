//! The bare server: signs access tokens with a held key over gRPC and HTTP, verifies their signatures over
//! gRPC, and does nothing else. It authenticates nobody, looks up nothing and stores nothing. The claims of
//! its tokens have the same names and lengths as token-service's.

mod grpc;
mod http;

use std::{sync::Arc, thread};

use accord::{
    clock::{Clock, SystemClock},
    random::SystemRandom,
    text::{
        id::{ClientId, EventId, GrantId, UserId},
        opaque::sha256,
    },
    verify::{ACCESS_TOKEN_TYPE, AccessTokenClaims, Confirmation},
};
use anyhow::{Context, Result, anyhow};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey, UnparsedPublicKey,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::pipe;

/// The role of a process that is a bare server.
pub const ROLE: &str = "bare";
/// The scope of every token.
pub const SCOPE: &str = "contacts.read documents.read matters.read";
/// Life of a token in seconds, token-service's default.
const EXPIRES_IN: u32 = 300;
const PUBLIC_BASE_URL: &str = "http://127.0.0.1:50000";

/// Signs and verifies with one key, in the fewest steps.
struct Signer {
    key: Ed25519KeyPair,
    public_key: ParsedPublicKey,
    /// The header in base64url, with the dot.
    header: String,
    user_id: String,
    grant_id: String,
    client_id: String,
    rev: String,
}

impl Signer {
    fn new() -> Result<Self> {
        let key = Ed25519KeyPair::generate()?;
        let public_key = ParsedPublicKey::new(&ED25519, key.public_key().as_ref());
        let kid = URL_SAFE_NO_PAD.encode(sha256(key.public_key().as_ref()));
        let header = format!(r#"{{"typ":"{ACCESS_TOKEN_TYPE}","alg":"EdDSA","kid":"{kid}"}}"#);
        let (clock, random) = (SystemClock, SystemRandom);
        let epoch = EventId::generate(&clock, &random);
        Ok(Self {
            key,
            public_key: public_key.map_err(|_| anyhow!("not an Ed25519 key"))?,
            header: URL_SAFE_NO_PAD.encode(header) + ".",
            user_id: UserId::generate(&clock, &random).into(),
            grant_id: GrantId::generate(&clock, &random).into(),
            client_id: ClientId::generate(&clock, &random).into(),
            rev: format!("{epoch}.1234.5678"),
        })
    }

    /// Signs a token for a client at a tenant, or for a fixed client if there is none. `jkt` is the thumbprint of
    /// the key that it is bound to.
    fn issue(&self, tenant_id: String, client_id: Option<String>, jkt: Option<String>) -> Result<String> {
        let iat = u32::try_from(SystemClock.now().as_secs())?;
        let claims = serde_json::to_vec(&AccessTokenClaims {
            iss: format!("{PUBLIC_BASE_URL}/{tenant_id}"),
            aud: cloud_api_url(0),
            sub: self.user_id.clone(),
            client_id: client_id.unwrap_or_else(|| self.client_id.clone()),
            tenant_id,
            grant_id: self.grant_id.clone(),
            family_id: None,
            scope: SCOPE.to_owned(),
            jti: EventId::generate(&SystemClock, &SystemRandom).into(),
            iat,
            exp: iat + EXPIRES_IN,
            rev: self.rev.clone(),
            cnf: jkt.map(Confirmation::Jkt),
        })?;
        let mut token = String::with_capacity(1_024);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// Verifies a token's signature, and nothing else about it, and reads its claims.
    fn verify(&self, token: &str) -> Result<AccessTokenClaims> {
        let (signed, signature) = token.rsplit_once('.').context("not a JWT")?;
        let signature = URL_SAFE_NO_PAD.decode(signature)?;
        let verified = self.public_key.verify_sig(signed.as_bytes(), &signature);
        verified.map_err(|_| anyhow!("another signature"))?;
        let (_, claims) = signed.split_once('.').context("not a JWT")?;
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
    }
}

/// The header of a proof, as far as its signature and its key's thumbprint need it.
#[derive(Deserialize)]
struct ProofHeader {
    jwk: Coordinates,
}

#[derive(Deserialize)]
struct Coordinates {
    x: String,
    y: String,
}

/// The claims of a proof. All must be there; their values are not compared with anything.
#[derive(Deserialize)]
#[allow(dead_code)]
struct ProofClaims {
    jti: String,
    htm: String,
    htu: String,
    iat: i64,
}

/// Verifies the signature of a DPoP proof by ES256, and nothing else about it. Returns the thumbprint of its key.
fn verify_proof(proof: &str) -> Result<String> {
    let (signed, signature) = proof.rsplit_once('.').context("not a JWT")?;
    let (header, claims) = signed.split_once('.').context("not a JWT")?;
    let ProofHeader { jwk } = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
    let mut point = Vec::with_capacity(65);
    point.push(4);
    URL_SAFE_NO_PAD.decode_vec(&jwk.x, &mut point)?;
    URL_SAFE_NO_PAD.decode_vec(&jwk.y, &mut point)?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
    let verified = key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature)?);
    verified.map_err(|_| anyhow!("another signature"))?;
    let _: ProofClaims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, jwk.x, jwk.y);
    Ok(URL_SAFE_NO_PAD.encode(sha256(members.as_bytes())))
}

/// The Cloud API URL of a tenant, the audience of its tokens.
pub fn cloud_api_url(tenant: usize) -> String {
    format!("https://api.firm-{tenant}.example/v1")
}

/// Where a server listens, `host:port`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub grpc: String,
    pub http: String,
}

/// Serves until the parent ends.
#[tokio::main]
pub async fn serve() -> Result<()> {
    thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(0);
    });
    let signer = Arc::new(Signer::new()?);
    let grpc = TcpListener::bind("127.0.0.1:0").await?;
    let http = TcpListener::bind("127.0.0.1:0").await?;
    pipe::send(Ok(Addresses {
        grpc: grpc.local_addr()?.to_string(),
        http: http.local_addr()?.to_string(),
    }))?;
    tokio::try_join!(grpc::serve(grpc, signer.clone()), http::serve(http, signer))?;
    Ok(())
}
