//! Receipts of consents, and the examples that check them with the issuer's keys, the log's key, and nothing else.

use std::{
    fs,
    process::Output,
    time::{Duration, Instant},
};

use accord::{
    audit::v1::{GetCheckpointRequest, audit_service_client::AuditServiceClient},
    testing::calls::{altered, ok},
    token::v1::{
        self as tok, consent_service_client::ConsentServiceClient, token_service_client::TokenServiceClient,
    },
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::harness::{dev, document::file, partner::World, suite};

#[path = "../examples/verify_consent_receipt.rs"]
#[allow(dead_code)]
mod example;

tests!(the_rust_example_accepts_good_receipts_alone);

pub mod python {
    use super::{Receipt, run_python};

    tests!(the_python_example_accepts_good_receipts_alone);

    async fn the_python_example_accepts_good_receipts_alone() {
        let receipt = Receipt::issued().await;
        let output = run_python(&receipt.key, &receipt.jwks, &receipt.file);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let claims: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(claims["record_id"], receipt.grant_id.as_str());
        for (what, file) in receipt.broken() {
            let output = run_python(&receipt.key, &receipt.jwks, &file);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{what}: {said}");
            assert!(
                said.starts_with("not verified: ") && output.stdout.is_empty(),
                "{what}: {said}"
            );
        }
    }
}

/// How soon an event is sealed.
const SEALED: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// A receipt, and what it is checked with.
struct Receipt {
    key: String,
    jwks: Value,
    file: Value,
    grant_id: String,
    access_token: String,
    /// The receipt of another consent of the same tenant.
    other: Value,
}

impl Receipt {
    async fn issued() -> Self {
        let (_directory, dev) = dev::start().await;
        let world = World::new(&dev.file);
        let mut files = Vec::new();
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let partner = world.partner().await;
            let issued = world.first_tokens(&partner).await;
            files.push(receipt(&world, &issued.grant_id).await);
            tokens.push(issued);
        }
        let mut client = AuditServiceClient::new(world.token_operator.clone());
        let newest = ok(client.get_checkpoint(GetCheckpointRequest {}).await);
        let mut client = TokenServiceClient::new(world.anyone.clone());
        let keys = ok(client
            .get_json_web_key_set(tok::GetJsonWebKeySetRequest::default())
            .await);
        let keys = keys.keys.into_iter().map(|key| {
            json!({ "kty": key.kty, "crv": key.crv, "x": key.x, "kid": key.kid, "use": key.r#use, "alg": key.alg })
        });
        let jwks = json!({ "keys": keys.collect::<Vec<_>>() });
        dev.stop().await.unwrap();
        let issued = tokens.remove(0);
        Self {
            key: newest.verifier_key,
            jwks,
            other: files.pop().unwrap(),
            file: files.pop().unwrap(),
            grant_id: issued.grant_id,
            access_token: issued.access_token,
        }
    }

    /// Returns files that are no proven receipts, and what is wrong with them.
    fn broken(&self) -> Vec<(&'static str, Value)> {
        let with = |name: &str, value: &Value| {
            let mut file = self.file.clone();
            file[name] = value.clone();
            file
        };
        let receipt = self.file["receipt"].as_str().unwrap();
        let mut unsealed = self.file.clone();
        unsealed["proof"]["index"] = json!(0);
        vec![
            ("an altered signature", with("receipt", &json!(altered(receipt)))),
            ("an access token", with("receipt", &json!(self.access_token))),
            (
                "the receipt of another consent",
                with("receipt", &self.other["receipt"]),
            ),
            (
                "the proof of another consent",
                with("proof", &self.other["proof"]),
            ),
            ("another leaf", unsealed),
            ("no proof", with("proof", &Value::Null)),
        ]
    }
}

/// Returns the receipt of a consent as a file, once the consent is sealed.
async fn receipt(world: &World, grant_id: &str) -> Value {
    let request = tok::GetConsentReceiptRequest {
        tenant_id: world.target.tenant_id.clone(),
        grant_id: grant_id.into(),
        ..Default::default()
    };
    let mut client = ConsentServiceClient::new(world.token_operator.clone());
    let started = Instant::now();
    loop {
        match client.get_consent_receipt(request.clone()).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let proof: Value = serde_json::from_str(&answer.proof).unwrap();
                return json!({ "receipt": answer.receipt, "proof": proof });
            }
            Err(status) => assert!(started.elapsed() < SEALED, "{status:?}"),
        }
        sleep(POLL).await;
    }
}

fn run_python(key: &str, jwks: &Value, receipt: &Value) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("log.key"), key.to_owned() + "\n").unwrap();
    fs::write(at("jwks.json"), jwks.to_string()).unwrap();
    fs::write(at("receipt.json"), receipt.to_string()).unwrap();
    suite::python()
        .arg(file("examples/verify_consent_receipt.py"))
        .args([at("log.key"), at("jwks.json"), at("receipt.json")])
        .output()
        .unwrap()
}

async fn the_rust_example_accepts_good_receipts_alone() {
    let receipt = Receipt::issued().await;
    let verify = |file: &Value| example::verify(&receipt.key, &receipt.jwks.to_string(), &file.to_string());
    let claims = verify(&receipt.file).unwrap();
    assert_eq!(claims["record_id"], receipt.grant_id.as_str());
    for (what, file) in receipt.broken() {
        assert!(verify(&file).is_err(), "{what}");
    }
    let no_keys = json!({ "keys": [] }).to_string();
    assert!(example::verify(&receipt.key, &no_keys, &receipt.file.to_string()).is_err());
}
