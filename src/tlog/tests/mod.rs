#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod notes;
mod proof_files;
mod reference;
mod trees;

use super::*;

/// The key of the tests, of the log `accord.example/registry/k7q2`.
pub(super) fn signer() -> Signer {
    Signer::new(origin(), &[7; 32]).unwrap()
}

pub(super) fn origin() -> Origin {
    Origin::of_log("accord.example", "registry", "k7q2", 1).unwrap()
}

/// Returns `count` different texts.
pub(super) fn records(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| format!("record {number}").into_bytes())
        .collect()
}
