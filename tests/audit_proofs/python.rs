//! The example in Python, which shares no code with Accord.

use std::{fs, process::Output};

use serde_json::Value;

use super::{broken, good, signer};
use crate::harness::{document::file, suite};

tests!(the_python_example_accepts_good_proofs_alone);

fn run(key: &str, proof: &Value) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("log.key"), key.to_owned() + "\n").unwrap();
    fs::write(at("proof.json"), proof.to_string()).unwrap();
    suite::python()
        .arg(file("examples/verify_audit_proof.py"))
        .args([at("log.key"), at("proof.json")])
        .output()
        .unwrap()
}

async fn the_python_example_accepts_good_proofs_alone() {
    let key = signer().verifier_key().to_string();
    for (what, proof) in good() {
        let output = run(&key, &proof);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {said}");
        assert_eq!(output.stdout, b"event 2", "{what}");
        assert!(said.contains("accord.example/token/k7q2"), "{what}: {said}");
    }
    for (what, key, proof) in broken() {
        let output = run(&key, &proof);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.starts_with("not proven: "), "{what}: {said}");
        assert!(output.stdout.is_empty(), "{what}");
    }
}
