//! DPoP proofs, signed before they are needed: a client's work is not the server's.

use std::sync::{Mutex, PoisonError};

use accord::{
    clock::{Clock, SystemClock},
    testing::dpop::ProofKey,
};

use super::{Credentials, Failure, pick};
use crate::protocol::CALLERS;

/// Proofs for each caller, by a key of its own.
pub struct Proofs(Vec<Mutex<Vec<(Credentials, String)>>>);

impl Proofs {
    /// Signs so many proofs for each caller, for the token endpoints below this URL.
    pub fn sign(clients: &[Credentials], each: usize, base_url: &str) -> Self {
        let now = SystemClock.now().as_secs();
        let of_caller = |_| {
            let key = ProofKey::es256();
            let proofs = (0..each).map(|_| {
                let client = pick(clients).clone();
                let url = format!("{base_url}/{}/oauth2/token", client.tenant_id);
                let proof = key.proof(&url, now);
                (client, proof)
            });
            Mutex::new(proofs.collect())
        };
        Self((0..CALLERS).map(of_caller).collect())
    }

    /// Takes a proof, and the client that it is for.
    pub fn take(&self, caller: usize) -> Result<(Credentials, String), Failure> {
        let mut own = self.0[caller].lock().unwrap_or_else(PoisonError::into_inner);
        own.pop().ok_or(Failure::NothingLeft)
    }
}
