//! What a public conformance plan asks of an authorization server: the FAPI 2.0 Security Profile (Final) with plain OAuth, by
//! `private_key_jwt` and DPoP, by mutual TLS, and with client credentials. Everything is https.
//!
//! Each line of the plan fails by its own name, and hides no other. What a client with a secret meets with its proofs is in
//! [`super::dpop`].

use std::fmt::Debug;

use super::Answer;

mod accepted;
mod codes;
mod deployment;
mod failures;
mod proofs;
mod rejected;
mod resource;
mod transport;

pub use deployment::{Deployment, Party, Variant};

/// The lines that did not hold. The test fails with all of them once this is dropped.
#[derive(Default)]
pub struct Lines(Vec<String>);

impl Lines {
    /// Notes whether a line holds, and what shows it.
    pub fn holds(&mut self, line: &str, holds: bool, shown: &dyn Debug) {
        if !holds {
            self.0.push(format!("{line}: {shown:?}"));
        }
    }

    /// Notes whether a request was accepted.
    pub fn accepted(&mut self, line: &str, answer: &Answer) {
        self.holds(line, [200, 201].contains(&answer.status), answer);
    }

    /// Notes whether a request was rejected with this status, and this error in its JSON.
    pub fn rejected(&mut self, line: &str, answer: &Answer, status: u16, error: &str) {
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        self.holds(line, answer.status == status && body["error"] == error, answer);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(
                self.0.is_empty(),
                "these lines do not hold:\n{}",
                self.0.join("\n")
            );
        }
    }
}
