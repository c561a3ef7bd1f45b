//! Verifies the receipt of a consent: `verify_consent_receipt KEY JWKS RECEIPT`.
//!
//! KEY is a file with the verifier key of token-service's audit log, and JWKS one with the issuer's JSON Web Key Set. Take both
//! from somebody whom you trust, and never from where the receipt comes from. RECEIPT is the file that the page of an
//! integration offers, or `{"receipt": ..., "proof": ...}` of `GetConsentReceipt`. No network is needed.
//!
//! Writes the claims of the receipt to standard output, only if it is signed by the issuer, and the log has the event of
//! just this consent.

use std::{error::Error, fs, io::Write, process::ExitCode};

use accord::{
    audit::v1::AuditRecord,
    tlog::{ProofFile, VerifierKey},
    token::v1::JsonWebKey,
    verify::KeySet,
};
use prost::Message;
use serde_json::Value;

/// Verifies a receipt, and returns its claims.
pub fn verify(key: &str, jwks: &str, file: &str) -> Result<Value, Box<dyn Error>> {
    let file: Value = serde_json::from_str(file)?;
    let claims = key_set(jwks)?.verify_consent_receipt(text(&file["receipt"])?)?;
    let proof = ProofFile::parse(&file["proof"].to_string())?;
    proof.verify(&key.trim_end().parse::<VerifierKey>()?)?;
    let event = AuditRecord::decode(&*proof.event)?;
    for (what, in_event, in_receipt) in [
        ("action", event.action, "consent.approve"),
        ("event", ulid(&event.event_id)?, text(&claims["audit_event_id"])?),
        ("grant", event.subject, text(&claims["record_id"])?),
        (
            "tenant",
            event.tenant_id,
            text(&claims["parties"][0]["party_id"])?,
        ),
        (
            "client",
            format!("cli_{}", ulid(&event.client_id)?),
            text(&claims["parties"][1]["party_id"])?,
        ),
    ] {
        if in_event != in_receipt {
            return Err(format!("the proof is for another {what}").into());
        }
    }
    Ok(claims)
}

fn key_set(jwks: &str) -> Result<KeySet, Box<dyn Error>> {
    let jwks: Value = serde_json::from_str(jwks)?;
    let mut set = KeySet::default();
    for key in jwks["keys"].as_array().ok_or("the JWKS has no keys")? {
        let member = |name: &str| key[name].as_str().unwrap_or_default().to_owned();
        set.insert(&JsonWebKey {
            kty: member("kty"),
            kid: member("kid"),
            r#use: member("use"),
            alg: member("alg"),
            crv: member("crv"),
            x: member("x"),
            y: member("y"),
            n: member("n"),
            e: member("e"),
        })?;
    }
    Ok(set)
}

fn text(value: &Value) -> Result<&str, Box<dyn Error>> {
    Ok(value.as_str().ok_or("a member of the file is missing")?)
}

/// Returns the text of a ULID.
fn ulid(bytes: &[u8]) -> Result<String, Box<dyn Error>> {
    let number = u128::from_be_bytes(bytes.try_into()?);
    let digit =
        |index: usize| char::from(b"0123456789abcdefghjkmnpqrstvwxyz"[(number >> (5 * index)) as usize % 32]);
    Ok((0..26).rev().map(digit).collect())
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [key, jwks, receipt] = arguments else {
        return Err("usage: verify_consent_receipt KEY JWKS RECEIPT".into());
    };
    let read = |path: &String| fs::read_to_string(path);
    let claims = verify(&read(key)?, &read(jwks)?, &read(receipt)?)?;
    Ok(writeln!(std::io::stdout(), "{claims:#}")?)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "not verified: {error}");
            ExitCode::FAILURE
        }
    }
}
